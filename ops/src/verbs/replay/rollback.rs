//! `replay rollback`: the generation that was active before takes its place again, caught up or at once.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use serviceradar_log::LogStore;
use serviceradar_materializers::{
    PostgresViews,
    postgres::{Generation, Untold},
    views::Views,
};
use serviceradar_replay::{PartitionStatus, operations::Operations};
use serviceradar_schemas::Operation;

use super::{
    super::Context,
    diff, end, not_done, operation,
    promote::{self, Promotion},
    rebuild,
};
use crate::{
    exit::Interrupted,
    log_store,
    output::{self, Format},
    progress::Progress,
    shutdown,
};

/// The action that the operation is written as.
const ACTION: &str = "rollback";
/// How long a rollback at once waits for the log, in which it says what it does, before it is done all the same.
const LOG_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Lets the generation that was active before take its place again
///
/// As `replay promote`, of the ready generation that was active last.
///
/// With `--now` it is read at once, as it stands, for when what is read is badly wrong: nobody is asked, and whoever writes is
/// fenced. Then it catches up, written by this process or by a pipeline, and until it is where the other stopped nothing goes
/// into journals or device changes; then the difference does, once. Where this is interrupted, the same command goes on,
/// and so does a pipeline.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// Which [default: the one that is ready and was active last]
    generation: Option<i32>,
    /// At once: it catches up afterwards
    #[arg(long)]
    now: bool,
    /// Ends when it is done, and does not write until a pipeline takes over: for when none runs; with `--now`, when it is read,
    /// and a pipeline catches it up
    #[arg(long)]
    leave: bool,
    /// Says which would be promoted, and how it differs, and promotes nothing
    #[arg(long)]
    dry_run: bool,
}

impl Rollback {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let views = super::views(context).await?;
        let generations = views.generations().await?;
        let active = generations.iter().find(|of| of.state == "active").context("no generation is active")?;
        let is_meant = |of: &&Generation| {
            of.state == "ready" && of.promoted_at.is_some() && self.generation.is_none_or(|id| of.id == id)
        };
        let former = generations.iter().filter(is_meant).max_by_key(|of| of.promoted_at);
        let untold = if self.now { views.untold().await? } else { Vec::new() };
        let goes_on = self.generation.is_none_or(|id| id == active.id) && !untold.is_empty();
        let meant = if goes_on { Some(active) } else { former };
        let to = meant.context(
            "no generation that was active before is ready: see `serviceradar replay generations`",
        )?;
        if self.dry_run && goes_on {
            for Untold { tenant, generation, told } in untold {
                diff::print(context, &views, &tenant, (told, generation)).await?;
            }
            return Ok(());
        }
        if self.now {
            return self.at_once(context, Arc::new(views), active.id, to).await;
        }
        let promotion = Promotion { action: ACTION, changes_max: None, leave: self.leave };
        promote::take_place(context, views, to.id, promotion, self.dry_run).await
    }

    /// Lets it be read; what was interrupted is gone on with where it is read already.
    async fn at_once(
        &self,
        context: &Context,
        views: Arc<PostgresViews>,
        active: i32,
        to: &Generation,
    ) -> anyhow::Result<()> {
        let (shutdown, to_id) = (shutdown::on_signal()?, to.id);
        let rules = views.rules_of(to_id).await?.unwrap_or_default();
        if to.fingerprint.as_ref() != Some(&rules.fingerprint(views.layout_version())) {
            bail!(
                "generation {to_id} was made by another program, which must catch it up: roll back with that one"
            );
        }
        if self.dry_run {
            return rebuild::compare(context, &views, to_id).await.map(drop);
        }
        let interrupted = self.generation.is_none().then_some(active);
        let in_time = tokio::time::timeout(LOG_ANSWERS_WITHIN, begin(context, to_id, interrupted)).await;
        let id = match &in_time {
            Ok(Ok((_, intent))) => intent.generation.unwrap_or(to_id),
            _ => to_id,
        };
        if id == active && views.untold().await?.is_empty() {
            if let Ok(Ok((log, intent))) = in_time {
                end(&log, intent).await?;
            }
            bail!(
                "an earlier rollback was killed when generation {id} had taken its place and all was told: it is over now; to go to another, say so again"
            );
        }
        if id != active {
            if let Err(error) = views.take_place(active, id).await {
                if let Ok(Ok((log, intent))) = in_time {
                    not_done(&log, intent, &error.to_string()).await?;
                }
                return Err(error.into());
            }
            if let Err(error) = views.show_active().await {
                tracing::warn!(%error, "what people read is of the former generation until a writer starts");
            }
            let json = json!({ "generation": id, "former": active, "told": false });
            let text = format!(
                "generation {id} is read in place of {active}, as it stands; journals and device changes stay as they are until it has caught up"
            );
            tell(context, &json, text)?;
        }
        let begun = match in_time {
            Ok(begun) => begun,
            Err(_) => {
                tracing::warn!(
                    "waiting for the log, so that generation {id} is caught up; a pipeline would do so, too"
                );
                tokio::select! {
                    begun = begin(context, id, None) => begun,
                    () = shutdown.cancelled() => return Err(Interrupted.into()),
                }
            }
        };
        let is_behind = || {
            format!("generation {id} is read, and not caught up by this process: start `serviceradar run`")
        };
        let (log, intent) = begun.with_context(is_behind)?;
        end(&log, intent).await?;
        if self.leave {
            return Ok(());
        }
        let rules = views.rules_of(id).await?.unwrap_or_default();
        let candidate = promote::start(context, views, log, id, rules).await.with_context(is_behind)?;
        let mut progress = Progress::begin("log", "catching up");
        let told = tokio::select! {
            told = candidate.tell_difference(|status| {
                let at = status.values().flat_map(|of| of.partitions.values());
                let sum = |(done, total): (u64, u64), at: &PartitionStatus| (done + at.next_offset, total + at.end);
                let (done, total) = at.fold((0, 0), sum);
                progress.at(done, total);
            }) => told.map_err(anyhow::Error::from),
            () = shutdown.cancelled() => Err(Interrupted.into()),
        };
        drop(progress);
        if let Err(error) = told {
            candidate.stop().await?;
            return Err(error.context(is_behind()));
        }
        let text = format!(
            "generation {id} has caught up; the difference is in the journals, and on its way to device changes"
        );
        tell(context, &json!({ "generation": id, "told": true }), text)?;
        promote::lead(candidate, shutdown).await
    }
}

/// Says in the log what is to be done. Where a rollback to the generation that is `interrupted` did not say that it ended, it is
/// gone on with: to go to another would be to take it back.
async fn begin(
    context: &Context,
    id: i32,
    interrupted: Option<i32>,
) -> anyhow::Result<(Arc<dyn LogStore>, Operation)> {
    let log = log_store::reach(&context.config).await?;
    let known = Operations::read(&*log).await?;
    let begun =
        |of: &&Operation| of.action == ACTION && interrupted.is_some() && of.generation == interrupted;
    let intent = match known.unfinished().find(begun) {
        Some(begun) => begun.clone(),
        None => super::begin(&log, id, operation(ACTION, None, "")).await?,
    };
    Ok((log, intent))
}

/// Says how far it has come.
fn tell(context: &Context, json: &Value, text: String) -> anyhow::Result<()> {
    let line = match context.format {
        Format::Json => json.to_string(),
        Format::Table => text,
    };
    Ok(output::line(&line)?)
}
