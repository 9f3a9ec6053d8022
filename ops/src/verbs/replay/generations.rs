//! `replay generations`: builds of the views.

use clap::Args;
use serde_json::Value;
use serviceradar_replay::operations::Operations;
use serviceradar_schemas::{Operation, time};

use super::{super::Context, AS_OF, end};
use crate::{ask::ask, log_store, output};

/// Lists the generations of the views, or drops one
///
/// One is active, and what is read. Those that are ready can take its place: the one before, or one that was built beside it.
/// Those of the past (`replay as-of --into-generation`) show a tenant's inventory of a moment, and cannot; nor can one that
/// is partial, of which it says of what part of the log it is.
/// A row stays of each that was dropped: `retired`.
#[derive(Debug, Args)]
pub(crate) struct Generations {
    /// Drops the tables of this one
    #[arg(long, value_name = "GENERATION")]
    drop: Option<i32>,
    /// Its number again, where nobody can be asked
    #[arg(long, value_name = "GENERATION", requires = "drop")]
    confirm: Option<String>,
    /// Says what would be dropped, and drops nothing
    #[arg(long, requires = "drop")]
    dry_run: bool,
}

impl Generations {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let views = super::views(context).await?;
        let generations = views.generations().await?;
        let Some(id) = self.drop else {
            let row = |of: &serviceradar_materializers::postgres::Generation| {
                vec![
                    Value::from(of.id),
                    of.state.as_str().into(),
                    time::format(of.started_at).into(),
                    of.promoted_at.map(time::format).into(),
                    of.bytes.into(),
                    of.fingerprint.clone().into(),
                    of.past.as_ref().map(|past| past.tenant.as_str()).into(),
                    of.past.as_ref().map(|past| past.moment.as_str()).into(),
                    of.partial.clone().into(),
                ]
            };
            let columns = [
                "generation",
                "state",
                "started",
                "promoted",
                "bytes",
                "fingerprint",
                "tenant",
                "moment",
                "partial",
            ];
            return Ok(output::rows(
                context.format,
                &columns,
                &generations.iter().map(row).collect::<Vec<_>>(),
            )?);
        };
        let found = generations.iter().find(|of| of.id == id);
        let bytes = found.map_or(0, |of| of.bytes);
        if self.dry_run {
            return Ok(output::line(&format!("would drop generation {id}, {bytes} bytes of it"))?);
        }
        let typed = match self.confirm {
            Some(typed) => typed,
            None => ask(&format!("This drops generation {id} for ever. Type its number: "))?,
        };
        if typed.trim() != id.to_string() {
            anyhow::bail!(
                "generation {id} was not confirmed, and is as it was: type its number, or give `--confirm {id}`"
            );
        }
        if found.is_some_and(|of| of.past.is_some()) && log_store::is_there(&context.config) {
            give_up(context, id).await?;
        }
        views.retire(id).await?;
        Ok(output::line(&format!("dropped generation {id}, {bytes} bytes of it"))?)
    }
}

/// Ends what was begun to fill a generation: nobody goes on with it.
async fn give_up(context: &Context, id: i32) -> anyhow::Result<()> {
    let log = log_store::reach(&context.config).await?;
    let known = Operations::read(&*log).await?;
    for begun in known.unfinished().filter(|of| of.action == AS_OF && of.generation == Some(id)) {
        let reason = format!("{}, dropped", begun.reason);
        end(&log, Operation { reason, ..begun.clone() }).await?;
    }
    Ok(())
}
