//! `replay`: views are made anew from the log and seen to be what it says, an instant of the past is made of it, and the
//! log is kept and restored.

mod accept_gap;
pub(super) mod archive;
pub(super) mod as_of;
mod bound_intake;
mod diff;
mod generations;
mod import;
mod plan;
mod promote;
pub(super) mod rebuild;
mod republish;
mod restore;
mod rollback;
mod verify;

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serviceradar_log::LogStore;
use serviceradar_materializers::PostgresViews;
use serviceradar_replay::operations::{self, Operations};
use serviceradar_schemas::{
    Operation,
    operation::Phase,
    time::{Clock, SystemClock},
};

use super::{Context, decide};
use crate::lag;

/// The action of a generation that is made of an instant.
const AS_OF: &str = "as_of";

/// The database of the configuration, or the private one of a pipeline that runs.
pub(super) async fn views(context: &Context) -> anyhow::Result<PostgresViews> {
    let config = &context.config;
    let url = lag::database_url(config).with_context(|| {
        format!("no database: give --database, or start a pipeline on {}", config.dir.display())
    })?;
    Ok(PostgresViews::connect(&url).await?)
}

/// Makes views anew from the log, and sees that they are what it says; shows the past; keeps the log in files, and restores it;
/// imports observations
#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Says that events which are missing from the log are lost, so that the pipeline passes them
    AcceptGap(accept_gap::AcceptGap),
    /// Says that a broker's clock had leapt ahead, so that what it took meanwhile is not of the future
    BoundIntake(bound_intake::BoundIntake),
    /// Prints the inventory as it was, or as it was known, at an instant, or makes a generation of it
    AsOf(as_of::AsOf),
    /// Says what a rebuild would read, and what is missing
    Plan(plan::Plan),
    /// Builds the views anew beside those that are read, compares them, and lets them take their place
    Rebuild(rebuild::Rebuild),
    /// Lets a generation that is ready take the place of the active one
    Promote(promote::Promote),
    /// Lets the generation that was active before take its place again
    Rollback(rollback::Rollback),
    /// Lists the generations of the views, or drops one
    Generations(generations::Generations),
    /// Says how two generations differ
    Diff(diff::Diff),
    /// Compares the views with the log, read anew, and with the sums that their writer kept
    Verify(verify::Verify),
    /// Publishes all device changes again, for consumers that lost theirs
    Republish(republish::Republish),
    /// Archives what the log holds to a folder or to a store that speaks as S3 does
    Archive(archive::Archive),
    /// Publishes again what an archive has
    Restore(restore::Restore),
    /// Publishes observations of files as new ones
    Import(import::Import),
}

impl Replay {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self.verb {
            Verb::AcceptGap(accept_gap) => accept_gap.run(context).await,
            Verb::BoundIntake(bound) => bound.run(context).await,
            Verb::AsOf(as_of) => as_of.run(context).await,
            Verb::Plan(plan) => plan.run(context).await,
            Verb::Rebuild(rebuild) => rebuild.run(context).await,
            Verb::Promote(promote) => promote.run(context).await,
            Verb::Rollback(rollback) => rollback.run(context).await,
            Verb::Generations(generations) => generations.run(context).await,
            Verb::Diff(diff) => diff.run(context).await,
            Verb::Verify(verify) => verify.run(context).await,
            Verb::Republish(republish) => republish.run(context).await,
            Verb::Archive(archive) => archive.run(context).await,
            Verb::Restore(restore) => restore.run(context).await,
            Verb::Import(import) => import.run(context).await,
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

/// Writes the intent of an operation on a generation; one that was interrupted is gone on with.
async fn begin(log: &Arc<dyn LogStore>, generation: i32, new: Operation) -> anyhow::Result<Operation> {
    let known = Operations::read(&**log).await?;
    let is_it = |of: &&Operation| of.action == new.action && of.generation == Some(generation);
    if let Some(begun) = known.unfinished().find(is_it) {
        return Ok(begun.clone());
    }
    let intent = Operation { generation: Some(generation), ..new };
    operations::write(log, &intent).await?;
    Ok(intent)
}

/// Writes that an operation has come to its end.
async fn end(log: &Arc<dyn LogStore>, begun: Operation) -> anyhow::Result<()> {
    let done = Operation { phase: Phase::Done, event_time: SystemClock.now(), ..begun };
    Ok(operations::write(log, &done).await?)
}

/// Writes that an operation changed nothing, and that nothing is left to do.
async fn not_done(log: &Arc<dyn LogStore>, begun: Operation, why: &str) -> anyhow::Result<()> {
    end(log, Operation { reason: format!("not done: {why}"), ..begun }).await
}
