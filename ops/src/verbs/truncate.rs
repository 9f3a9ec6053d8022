//! `truncate`: the log and the views of a tenant are emptied of what can be crawled again.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use serviceradar_log::LogStore;
use serviceradar_materializers::PostgresViews;
use serviceradar_replay::{
    archive::Place,
    truncate::{self, Fate, Plan, Truncated},
};
use serviceradar_schemas::{Operation, Source, time::SystemClock};

use super::{
    Context, decide,
    replay::{self, archive, operation, rebuild},
};
use crate::{
    ask::ask,
    crawls,
    exit::Interrupted,
    log_store,
    output::{self, Format},
    pipeline::WORKERS,
    progress::Progress,
    registry, shutdown,
};

/// Empties the log and the views of the tenant of what the configuration crawls
///
/// What other sources said, which cannot be crawled again, is published again behind it, with its times; devices keep their
/// uids, by pins where present evidence alone would name them otherwise. Journals and decisions stay. The pipeline may run:
/// it starts over by itself. Whatever it is interrupted by, the same command goes on.
#[derive(Debug, Args)]
pub(crate) struct Truncate {
    #[command(flatten)]
    pub(super) wanted: Wanted,
}

/// What goes, and who says so.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// Archives the log there first: a folder, or s3://BUCKET/PREFIX as for `replay archive`; no event goes that it lacks
    #[arg(long, value_name = "PLACE", required_unless_present_any = ["no_archive", "dry_run"])]
    archive: Option<String>,
    /// Archives nothing: what goes is gone
    #[arg(long, conflicts_with = "archive")]
    no_archive: bool,
    /// Gives up what a source said that cannot be crawled again, kind/instance; may be repeated
    #[arg(long, value_name = "SOURCE", value_parser = decide::source)]
    lose: Vec<Source>,
    /// The tenant's name once more, where nobody can be asked to type it
    #[arg(long, value_name = "TENANT")]
    yes_i_mean: Option<String>,
    /// Says what would go, what is kept, and what would become of the devices; changes nothing
    #[arg(long)]
    dry_run: bool,
}

impl Truncate {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let (views, log) =
            (Arc::new(replay::views(context).await?), log_store::reach(&context.config).await?);
        let Some(work) = self.wanted.confirmed(context, views, log).await? else {
            return Ok(());
        };
        let intent = operation(serviceradar_replay::operations::TRUNCATE, None, "");
        let Truncated { epoch, events, kept, pins } = work.run(context, intent).await?;
        match context.format {
            Format::Json => output::line(
                &json!({ "epoch": epoch, "events": events, "kept": kept, "pins": pins }).to_string(),
            )?,
            Format::Table => output::line(&format!(
                "{} of {events} events are gone, {kept} were published again, {pins} devices are pinned: crawl again (`serviceradar sync`)",
                events.saturating_sub(kept)
            ))?,
        }
        Ok(())
    }
}

/// A truncation that somebody who may has confirmed.
pub(super) struct Work {
    wanted: Wanted,
    of: truncate::Truncate,
    pub(super) plan: Plan,
}

impl Wanted {
    /// Shows what would be done, and asks; none where that is all.
    pub(super) async fn confirmed(
        self,
        context: &Context,
        views: Arc<PostgresViews>,
        log: Arc<dyn LogStore>,
    ) -> anyhow::Result<Option<Work>> {
        let of = self.truncation(context, views, log).await?;
        let mut progress = Progress::begin("log", "reading the log");
        let plan = of.plan(|done, total| progress.at(done, total)).await?;
        drop(progress);
        if plan.behind > 0 {
            tracing::warn!(
                "the views are {} events behind the log: what is said of devices is said of those that they have",
                plan.behind
            );
        }
        if self.dry_run || context.format == Format::Table {
            show(context, &of, &plan)?;
        }
        if self.dry_run {
            return Ok(None);
        }
        self.confirm(&context.config.tenant)?;
        Ok(Some(Work { wanted: self, of, plan }))
    }

    fn confirm(&self, tenant: &str) -> anyhow::Result<()> {
        let typed = match &self.yes_i_mean {
            Some(typed) => typed.clone(),
            None => ask(&format!("This empties the log and the views of tenant {tenant}. Type its name: "))?,
        };
        if typed.trim() != tenant {
            bail!(
                "tenant {tenant} was not confirmed, and all is as it was: type its name, or give `--yes-i-mean {tenant}`"
            );
        }
        Ok(())
    }

    async fn truncation(
        &self,
        context: &Context,
        views: Arc<PostgresViews>,
        log: Arc<dyn LogStore>,
    ) -> anyhow::Result<truncate::Truncate> {
        let config = &context.config;
        let schemas = registry::register(config).await?;
        let mut crawled = BTreeSet::new();
        if config.armis.url.is_some() {
            let armis = crawls::armis(config)?;
            crawled.insert((armis.partition.clone(), armis.source()));
        }
        Ok(truncate::Truncate {
            tenant: config.tenant.clone(),
            workers: WORKERS,
            log,
            writers: schemas.writers,
            framing: schemas.framings.decisions,
            views,
            clock: Arc::new(SystemClock),
            crawled,
            lost: self.lose.iter().cloned().collect(),
        })
    }
}

impl Work {
    /// Archives, and truncates.
    pub(super) async fn run(self, context: &Context, intent: Operation) -> anyhow::Result<Truncated> {
        let Self { wanted, of, plan } = self;
        let shutdown = shutdown::on_signal()?;
        let working = async {
            let archived = match wanted.archive {
                // What goes was said already.
                Some(place) if plan.interrupted.is_none() => Some(
                    archive::archive(context, &of.tenant, &*of.log, &Place::at(&place)?, Vec::new())
                        .await?
                        .manifest,
                ),
                _ => None,
            };
            let mut progress = Progress::begin("truncate", "publishing again what is kept");
            let told = |done, total| progress.at(done, total);
            let truncated = of.run(plan, archived.as_ref(), intent, told).await?;
            progress.end(truncated.events, &format!("tenant {} is truncated", of.tenant));
            Ok(truncated)
        };
        tokio::select! {
            worked = working => worked,
            () = shutdown.cancelled() => Err(Interrupted.into()),
        }
    }
}

/// Prints what would be done.
fn show(context: &Context, of: &truncate::Truncate, plan: &Plan) -> anyhow::Result<()> {
    if context.format == Format::Json {
        let pin = |pin: &truncate::Pin| {
            let claim = format!("{}:{}", pin.claim.namespace, pin.claim.value);
            json!({ "uid": pin.uid, "partition": pin.partition, "claim": claim })
        };
        let pins: Vec<Value> = plan.pins.iter().map(pin).collect();
        let told = json!({
            "sources": plan.sources, "devices": plan.devices, "pins": pins, "becomes": plan.becomes,
            "interrupted": plan.interrupted.is_some(),
        });
        return Ok(output::line(&told.to_string())?);
    }
    if let Some(interrupted) = &plan.interrupted {
        let when = serviceradar_schemas::time::format(interrupted.event_time);
        output::line(&format!(
            "a truncation of {when} was interrupted, and is gone on with ({})",
            of.what_goes()
        ))?;
    }
    let row = |of: &truncate::OfSource| {
        let becomes = match of.fate {
            Fate::CrawledAgain => "goes, and is crawled again",
            Fate::Lost => "is lost (--lose)",
            Fate::Kept => "is kept: published again",
        };
        vec![of.source.as_str().into(), of.records.into(), of.open.into(), of.events.into(), becomes.into()]
    };
    let rows: Vec<Vec<Value>> = plan.sources.iter().map(row).collect();
    output::rows(Format::Table, &["source", "records", "open", "events", "becomes"], &rows)?;
    output::line(&format!(
        "\n{} devices; {} are pinned, so that they keep their uids; {} would become others all the same",
        plan.devices,
        plan.pins.len(),
        plan.becomes.len()
    ))?;
    if !plan.becomes.is_empty() {
        rebuild::print_becomes(&plan.becomes)?;
    }
    Ok(())
}
