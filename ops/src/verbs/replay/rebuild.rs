//! `replay rebuild`: the views made anew from the log, beside those that are read.

use std::{collections::BTreeMap, io::IsTerminal, num::NonZeroU32, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;
use serviceradar_log::{LogStore, RatedLog};
use serviceradar_materializers::{
    PostgresViews,
    views::{Frontier, Views},
};
use serviceradar_replay::{
    Phase,
    candidate::Candidate,
    intake_times::offset_at,
    preview::{self, Becomes},
    topics::{Partition, read_by},
    verify::Verify,
};
use serviceradar_schemas::time::{self, SystemClock};
use serviceradar_streams::{rows::Uid, rules::Rules};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Context, rules},
    as_of::instant,
    diff, plan,
    promote::{self, Promotion},
};
use crate::{
    ask::ask,
    exit::{Interrupted, InterruptedForGood, Mistaken, Wanting},
    log_store,
    output::{self, Format},
    pipeline::WORKERS,
    progress::Progress,
    registry, shutdown,
};

/// Devices that a table shows; JSON has all.
const BECOMES_SHOWN: usize = 100;

/// When the new generation takes the place of the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum When {
    /// It does not: `replay promote` does that later.
    Never,
    /// Where no more devices differ than --max-changes says.
    Auto,
    /// Where a person says so, who is shown how it differs.
    Ask,
}

/// Builds the views anew beside those that are read, compares them, and lets them take their place
///
/// All tenants of the active generation are read from the log's start into tables of their own; the pipeline goes on
/// meanwhile, and nothing is published. What was interrupted is gone on with: give the same command again. The former
/// generation stays as the way back (`replay rollback`), until it is dropped (`replay generations --drop`).
#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// Other rules of identity, a TOML document [default: those of the active generation]
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// When it takes the place of the active generation
    #[arg(long, value_enum, default_value = "never")]
    promote: When,
    /// With `--promote auto`: how many devices may differ
    #[arg(long, value_name = "DEVICES", default_value_t = 0)]
    max_changes: u64,
    /// Ends when it is done, and does not write until a pipeline takes over: for when none runs
    #[arg(long)]
    leave: bool,
    /// Reads so many events a second at most, so that the pipeline has room beside
    #[arg(long, value_name = "EVENTS")]
    rate: Option<NonZeroU32>,
    /// Reads only what the log took in from then on, such as 2026-03-01T00:00:00Z; what is built so can be looked at (`replay
    /// diff`), is never promoted, and not gone on with where it is interrupted
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<i64>,
    /// Reads over events that are gone although nobody said that they are lost; what is built so is never promoted either
    #[arg(long)]
    partial: bool,
    /// Says what would be read and, of the tenant, what other rules would make of it: merges, splits, other uids; builds nothing
    #[arg(long)]
    dry_run: bool,
}

impl Rebuild {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { rules, promote: when, max_changes, leave, rate, from, partial, dry_run } = self;
        let views = Arc::new(super::views(context).await?);
        let others = rules.as_deref().map(rules::read).transpose()?;
        let of_views = views.rules().await?.unwrap_or_default();
        let reached = log_store::reach(&context.config).await?;
        let planned = plan::plan(&*reached, &views).await?;
        if dry_run {
            planned.print(context)?;
        }
        let is_part = from.is_some() || partial && planned.gaps > 0;
        if planned.gaps > 0 && !is_part {
            return Err(Wanting(
                "events are gone that nobody said are lost: see `serviceradar replay plan`, or build what is left with --partial, never to be promoted".to_owned(),
            )
            .into());
        }
        if is_part && when != When::Never {
            return Err(Mistaken(
                "a generation of a part of the log is never promoted: leave out --promote".to_owned(),
            )
            .into());
        }
        if dry_run {
            return match others {
                Some(rules) => preview(context, &views, reached, rules).await,
                None => Ok(()),
            };
        }
        let rules = others.unwrap_or(of_views);
        if when == When::Ask && !std::io::stdin().is_terminal() {
            bail!("nobody can be asked here: give --promote never, or auto");
        }
        let shutdown = shutdown::on_signal()?;
        let log = match rate {
            Some(rate) => Arc::new(RatedLog::new(reached.clone(), rate)),
            None => reached.clone(),
        };
        let (id, events) = match is_part {
            true => part(&*reached, &views, &rules, from, planned.gaps).await?,
            false => (views.building(&rules).await?, planned.events),
        };
        tracing::info!(generation = id, events, "building");
        let candidate = match build(context, &views, log, (id, events), rules, &shutdown).await {
            Err(error) if is_part => {
                give_up(&views, id).await;
                return Err(if error.is::<Interrupted>() { InterruptedForGood.into() } else { error });
            }
            built => built?,
        };
        let differing = compare(context, &views, id).await?;
        let promotes = match when {
            When::Never => false,
            When::Auto => true,
            When::Ask => {
                ask(&format!("Let generation {id} take the place of the active one? Type yes: "))?.trim()
                    == "yes"
            }
        };
        if promotes {
            let changes_max = (when == When::Auto).then_some(max_changes);
            let promotion = Promotion { action: "promote", changes_max, leave };
            return promote::promote(context, candidate, reached, promotion, shutdown).await;
        }
        candidate.stop().await?;
        if is_part {
            return Ok(output::line(&format!(
                "generation {id} is of a part of the log, and {differing} devices of it differ: it is never promoted, and goes with `serviceradar replay generations --drop {id}`"
            ))?);
        }
        output::line(&format!(
            "generation {id} is ready, and {differing} devices of it differ: `serviceradar replay promote {id}` lets it take the active one's place"
        ))?;
        Ok(())
    }
}

/// Builds a generation until it has what the log has.
async fn build(
    context: &Context,
    views: &Arc<PostgresViews>,
    log: Arc<dyn LogStore>,
    (id, events): (i32, u64),
    rules: Rules,
    shutdown: &CancellationToken,
) -> anyhow::Result<Candidate> {
    let candidate = promote::start(context, views.clone(), log, id, rules).await?;
    let ended = tokio::select! {
        caught_up = caught_up(&candidate, Some(events)) => caught_up,
        () = shutdown.cancelled() => Err(Interrupted.into()),
    };
    if let Err(error) = ended {
        candidate.stop().await?;
        return Err(error);
    }
    Ok(candidate)
}

/// Drops a generation that nobody goes on with.
async fn give_up(views: &PostgresViews, id: i32) {
    if let Err(error) = views.retire(id).await {
        tracing::warn!(
            "generation {id} is of no use any more, and was not dropped ({error}): give `serviceradar replay generations --drop {id}`"
        );
    }
}

/// Makes a generation of what is left of the log, or of what it took in from an instant on. Returns how many events that are.
async fn part(
    log: &dyn LogStore,
    views: &PostgresViews,
    rules: &Rules,
    from: Option<i64>,
    gaps: usize,
) -> anyhow::Result<(i32, u64)> {
    let (mut frontiers, mut events) = (BTreeMap::new(), 0);
    // What is gone is before the begin of a log partition.
    let mut from_begin = from.is_none();
    for tenant in views.tenants().await? {
        let mut of_tenant = Vec::new();
        for partition in read_by(log, &tenant).await? {
            let offsets = log.offsets(&partition.topic, partition.log_partition).await?;
            let next_offset = match from {
                Some(at) => offset_at(log, &partition, at).await?,
                None => offsets.start,
            };
            from_begin |= next_offset == offsets.start;
            events += offsets.end.saturating_sub(next_offset);
            let Partition { topic, log_partition } = partition;
            of_tenant.push(Frontier {
                topic,
                log_partition,
                next_offset,
                intake_max: i64::MIN,
                witness: None,
            });
        }
        frontiers.insert(tenant, of_tenant);
    }
    let from = from.map(|at| format!("from {}", time::format(at)));
    let over = (gaps > 0 && from_begin).then(|| format!("without {gaps} ranges of events that are gone"));
    let partial = from.into_iter().chain(over).collect::<Vec<_>>().join(", ");
    let id = views.part(rules, &partial, &frontiers).await?;
    Ok((id, events))
}

/// Prints what other rules would make of the log of a tenant.
async fn preview(
    context: &Context,
    views: &PostgresViews,
    log: Arc<dyn LogStore>,
    rules: Rules,
) -> anyhow::Result<()> {
    let config = &context.config;
    let of = Verify {
        tenant: config.tenant.clone(),
        workers: WORKERS,
        log,
        writers: registry::register(config).await?.writers,
        clock: Arc::new(SystemClock),
    };
    let mut progress = Progress::begin("log", "reading the log");
    let placements = preview::preview(&of, views, rules, |done, total| progress.at(done, total)).await?;
    drop(progress);
    let becomes = placements.becomes();
    if context.format == Format::Json {
        return becomes
            .iter()
            .try_for_each(|each| output::line(&serde_json::to_string(each)?).map_err(anyhow::Error::from));
    }
    output::line("")?;
    if !becomes.is_empty() {
        print_becomes(&becomes)?;
    }
    Ok(output::line(&format!(
        "tenant {}: {} devices would become others, {} records would be of another device, or of none",
        config.tenant,
        becomes.len(),
        placements.moved
    ))?)
}

/// Prints what would become of devices, for people.
pub(in crate::verbs) fn print_becomes(becomes: &[Becomes]) -> anyhow::Result<()> {
    let list = |uids: &[Uid]| uids.iter().map(Uid::to_string).collect::<Vec<_>>().join(", ");
    let row = |each: &Becomes| {
        let (word, from, into) = match each {
            Becomes::Merged { uids, into } => ("merged", list(uids), list(&[*into])),
            Becomes::Split { uid, into } => ("split", list(&[*uid]), list(into)),
            Becomes::Renamed { uid, into } => ("renamed", list(&[*uid]), list(&[*into])),
            Becomes::Vanished { uid } => ("vanished", list(&[*uid]), String::new()),
            Becomes::Appeared { uid } => ("appeared", String::new(), list(&[*uid])),
        };
        vec![word.into(), from.into(), into.into()]
    };
    let rows: Vec<Vec<Value>> = becomes.iter().take(BECOMES_SHOWN).map(row).collect();
    Ok(output::rows(Format::Table, &["becomes", "device", "into"], &rows)?)
}

/// Waits until a candidate holds what the log holds.
pub(super) async fn caught_up(candidate: &Candidate, events: Option<u64>) -> anyhow::Result<()> {
    let mut reading = events.map(|events| (Progress::begin("log", "reading the log"), events));
    let mut writing = None;
    candidate
        .caught_up(|status| {
            let done: u64 = status.values().map(|of| of.loading + of.events).sum();
            if let Some((progress, events)) = &mut reading {
                progress.at(done.min(*events), *events);
            }
            // All is read, and not yet in tables with their indexes.
            if events.is_some_and(|events| done >= events)
                && status.values().any(|of| of.phase == Phase::Loading)
                && writing.is_none()
            {
                writing = Some(Progress::begin("write", "writing rows and indexes"));
            }
        })
        .await?;
    Ok(())
}

/// Prints how a generation differs from the active one; returns how many devices do.
pub(super) async fn compare(context: &Context, views: &PostgresViews, id: i32) -> anyhow::Result<u64> {
    let generations = views.generations().await?;
    let active = generations.iter().find(|of| of.state == "active").context("no generation is active")?.id;
    let mut differing = 0;
    for tenant in views.tenants().await? {
        differing += diff::print(context, views, &tenant, (active, id)).await?;
    }
    Ok(differing)
}
