//! `replay`: views are seen to be what the log says, an instant of the past is made of it, and the log is kept and restored.

mod accept_gap;
mod archive;
mod as_of;
mod restore;
mod verify;

use clap::{Args, Subcommand};
use serviceradar_schemas::{
    Operation,
    operation::Phase,
    time::{Clock, SystemClock},
};

use super::{Context, decide};

/// Sees that views are what the log says; shows the past; keeps the log in files, and restores it
#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Says that events which are missing from the log are lost, so that the pipeline passes them
    AcceptGap(accept_gap::AcceptGap),
    /// Prints the inventory as it was, or as it was known, at an instant
    AsOf(as_of::AsOf),
    /// Compares the views with the log, read anew, and with the sums that their writer kept
    Verify(verify::Verify),
    /// Archives what the log holds to a folder or to a store that speaks as S3 does
    Archive(archive::Archive),
    /// Publishes again what an archive has
    Restore(restore::Restore),
}

impl Replay {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self.verb {
            Verb::AcceptGap(accept_gap) => accept_gap.run(context).await,
            Verb::AsOf(as_of) => as_of.run(context).await,
            Verb::Verify(verify) => verify.run(context).await,
            Verb::Archive(archive) => archive.run(context).await,
            Verb::Restore(restore) => restore.run(context).await,
        }
    }
}

/// An operation of whoever is logged in, now: its intent.
pub(crate) fn operation(action: &str, tenant: Option<&str>, reason: &str) -> Operation {
    Operation {
        id: format!("operator/{:032x}", rand::random::<u128>()),
        phase: Phase::Intent,
        action: action.to_owned(),
        tenant: tenant.map(str::to_owned),
        actor: decide::actor(),
        reason: reason.to_owned(),
        event_time: SystemClock.now(),
        ..Operation::default()
    }
}
