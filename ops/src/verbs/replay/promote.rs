//! `replay promote`: another generation takes the place of the active one.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use serviceradar_log::LogStore;
use serviceradar_materializers::{PostgresViews, postgres::Generation};
use serviceradar_replay::candidate::{Candidate, CandidateConfig, CandidateError, Outcome};
use serviceradar_schemas::time::SystemClock;
use serviceradar_streams::rules::Rules;
use tokio_util::sync::CancellationToken;

use super::{super::Context, begin, end, not_done, operation, rebuild};
use crate::{
    exit::{Interrupted, Mistaken, Wanting},
    log_store,
    output::{self, Format},
    pipeline::{WORKERS, writer},
    registry, shutdown,
};

/// Lets a generation that is ready take the place of the active one
///
/// It is caught up with the log, the writers stop for a moment, the difference goes to the journals and is published, and
/// this process writes until a pipeline stands by and has followed: then it ends. Pipelines need not be restarted. Readers
/// notice nothing.
#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// Which [default: the newest that is ready and was never active]
    generation: Option<i32>,
    /// Changes nothing where more devices than that would change
    #[arg(long, value_name = "DEVICES")]
    max_changes: Option<u64>,
    /// Ends when it is done, and does not write until a pipeline takes over: for when none runs
    #[arg(long)]
    leave: bool,
    /// Says which would be promoted, and how it differs, and promotes nothing
    #[arg(long)]
    dry_run: bool,
}

impl Promote {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let views = super::views(context).await?;
        let generations = views.generations().await?;
        let given = generations.iter().find(|of| self.generation == Some(of.id));
        if let Some(part) = given.and_then(|of| of.partial.as_ref()) {
            return Err(Mistaken(format!(
                "that generation is of a part of the log ({part}), and is never promoted"
            ))
            .into());
        }
        let ready = |of: &&Generation| {
            of.state == "ready" && of.partial.is_none() && self.generation.is_none_or(|id| of.id == id)
        };
        let newest = match self.generation {
            Some(_) => generations.iter().find(ready),
            None => generations.iter().filter(ready).rfind(|of| of.promoted_at.is_none()),
        };
        let id = newest.context("no such generation is ready (one of the past never is): see `serviceradar replay generations`, and build one with `serviceradar replay rebuild`")?.id;
        let promotion = Promotion { action: "promote", changes_max: self.max_changes, leave: self.leave };
        take_place(context, views, id, promotion, self.dry_run).await
    }
}

/// How a generation is promoted.
pub(super) struct Promotion {
    /// The action that the operation is written as.
    pub(super) action: &'static str,
    /// How many devices may differ; none: any number.
    pub(super) changes_max: Option<u64>,
    /// Whether nobody writes afterwards, until a pipeline does.
    pub(super) leave: bool,
}

/// Catches a generation up, and promotes it.
pub(super) async fn take_place(
    context: &Context,
    views: PostgresViews,
    id: i32,
    promotion: Promotion,
    dry_run: bool,
) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signal()?;
    let rules = views.rules_of(id).await?.unwrap_or_default();
    let views = Arc::new(views);
    let log = log_store::reach(&context.config).await?;
    let candidate = start(context, views.clone(), log.clone(), id, rules).await?;
    tokio::select! {
        caught_up = rebuild::caught_up(&candidate, None) => caught_up?,
        () = shutdown.cancelled() => {
            candidate.stop().await?;
            return Err(Interrupted.into());
        }
    }
    if dry_run {
        candidate.stop().await?;
        return rebuild::compare(context, &views, id).await.map(drop);
    }
    promote(context, candidate, log, promotion, shutdown).await
}

/// Starts the drivers of a generation.
pub(super) async fn start(
    context: &Context,
    views: Arc<PostgresViews>,
    log: Arc<dyn LogStore>,
    id: i32,
    rules: Rules,
) -> anyhow::Result<Candidate> {
    let config = &context.config;
    let schemas = registry::register(config).await?;
    let config = CandidateConfig {
        // Another than that of the pipeline of the same folder, which is to stand by.
        writer: format!("{}-{:x}", tail(&writer(config)?), rand::random::<u32>()),
        workers: WORKERS,
        log,
        writers: schemas.writers,
        framings: schemas.framings,
        views,
        clock: Arc::new(SystemClock),
        ticks: true,
        journals_kept: config.journals_kept,
    };
    Ok(Candidate::start(config, id, rules).await?)
}

/// The end of a writer's name, with room for what is appended.
fn tail(name: &str) -> String {
    name.chars().skip(name.chars().count().saturating_sub(50)).collect()
}

/// Promotes a candidate that has caught up, and writes until a pipeline has taken over, or until told to end.
pub(super) async fn promote(
    context: &Context,
    candidate: Candidate,
    log: Arc<dyn LogStore>,
    Promotion { action, changes_max, leave }: Promotion,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let id = candidate.generation();
    let begun = begin(&log, id, operation(action, None, "")).await?;
    let outcome = match candidate.promote(changes_max).await {
        Ok(outcome) => outcome,
        Err(error) => {
            candidate.stop().await?;
            not_done(&log, begun, &error.to_string()).await?;
            return Err(match error {
                CandidateError::TooMany { .. } => Wanting(error.to_string()).into(),
                error => error.into(),
            });
        }
    };
    end(&log, begun).await?;
    let Outcome { from, changes, paused, .. } = &outcome;
    match context.format {
        Format::Json => output::line(
            &json!({
                "generation": id, "former": from, "changes": changes, "paused_seconds": paused.as_secs_f64(),
            })
            .to_string(),
        )?,
        Format::Table => output::line(&format!(
            "generation {id} has taken the place of {from}: {changes} devices changed, nobody wrote for {:.1} s; the way back is `serviceradar replay rollback`",
            paused.as_secs_f64()
        ))?,
    }
    if leave {
        return Ok(candidate.stop().await?);
    }
    lead(candidate, shutdown).await
}

/// Writes until a pipeline has taken over, or until told to end.
pub(super) async fn lead(candidate: Candidate, shutdown: CancellationToken) -> anyhow::Result<()> {
    tracing::info!("writing until a pipeline stands by and has followed (`serviceradar run`)");
    let id = candidate.generation();
    let relieved = tokio::select! {
        relieved = candidate.relieved() => relieved,
        () = shutdown.cancelled() => Ok(()),
    };
    candidate.stop().await?;
    relieved.with_context(|| {
        format!("generation {id} is active, but its writer has ended: start `serviceradar run`")
    })
}
