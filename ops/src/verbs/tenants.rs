//! `tenants`: whose data there are, and one that goes.

use std::collections::BTreeSet;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use serviceradar_replay::{
    archive::Place,
    removal::{self, Holding},
};
use serviceradar_schemas::{
    time::SystemClock,
    topics::{SYSTEM, split},
};

use super::{
    Context,
    replay::{self, archive, operation},
};
use crate::{
    ask::ask,
    exit::Interrupted,
    log_store,
    output::{self, Format},
    progress::Progress,
    shutdown,
};

/// Lists tenants, or removes one
#[derive(Debug, Args)]
pub(crate) struct Tenants {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists all tenants: their topics, events and devices
    List,
    /// Deletes all topics of a tenant and all of its rows, journals too, for ever
    ///
    /// Stop its pipelines and its producers before: it is refused while a pipeline writes it. What operators did to it stays
    /// in the operations. Whatever it is interrupted by, the same command goes on.
    Remove(Remove),
}

#[derive(Debug, Args)]
struct Remove {
    /// The tenant
    name: String,
    /// Archives its log there first: a folder, or s3://BUCKET/PREFIX as for `replay archive`
    #[arg(long, value_name = "PLACE", required_unless_present_any = ["no_archive", "dry_run"])]
    archive: Option<String>,
    /// Archives nothing: what goes is gone
    #[arg(long, conflicts_with = "archive")]
    no_archive: bool,
    /// The tenant's name once more, where nobody can be asked to type it
    #[arg(long, value_name = "TENANT")]
    yes_i_mean: Option<String>,
    /// Says what would go; changes nothing
    #[arg(long)]
    dry_run: bool,
}

impl Tenants {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self.verb {
            Verb::List => list(context).await,
            Verb::Remove(remove) => {
                let shutdown = shutdown::on_signal()?;
                tokio::select! {
                    removed = remove.run(context) => removed,
                    () = shutdown.cancelled() => Err(Interrupted.into()),
                }
            }
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let (log, views) = (log_store::reach(&context.config).await?, replay::views(context).await?);
    let mut tenants: BTreeSet<String> = views.tenants().await?.into_iter().collect();
    let topics = log.topics(None).await?;
    let names = topics.iter().filter_map(|topic| split(&topic.name));
    tenants.extend(names.map(|(tenant, _)| tenant.to_owned()).filter(|tenant| tenant != SYSTEM));
    let mut rows = Vec::new();
    for tenant in tenants {
        let Holding { topics, events, .. } = removal::look(&*log, &views, &tenant).await?;
        let (devices, _) = views.devices(&tenant).await?;
        rows.push(vec![Value::from(tenant), topics.len().into(), events.into(), devices.into()]);
    }
    Ok(output::rows(context.format, &["tenant", "topics", "events", "devices"], &rows)?)
}

impl Remove {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { name, archive, yes_i_mean, dry_run, .. } = self;
        let (log, views) = (log_store::reach(&context.config).await?, replay::views(context).await?);
        let Holding { topics, events, has_views } = removal::look(&*log, &views, &name).await?;
        let of_views = if has_views { " and its views with their journals" } else { "" };
        let what = format!("{} topics of tenant {name} with {events} events{of_views}", topics.len());
        if dry_run {
            return Ok(output::line(&format!("would delete {what}"))?);
        }
        let typed = match yes_i_mean {
            Some(typed) => typed,
            None => ask(&format!("This deletes {what} for ever. Type the tenant's name: "))?,
        };
        if typed.trim() != name {
            bail!(
                "tenant {name} was not confirmed, and all is as it was: type its name, or give `--yes-i-mean {name}`"
            );
        }
        // Of one that was interrupted there may be nothing left to archive.
        if let Some(place) = archive.filter(|_| !topics.is_empty()) {
            archive::archive(context, &name, &*log, &Place::at(&place)?, Vec::new()).await?;
        }
        let intent = operation("", None, "");
        let mut progress = Progress::begin("removal", "Deleting topics and rows");
        let told = |gone, topics| progress.at(gone, topics);
        let rows = removal::remove(&log, &views, &name, intent, &SystemClock, told).await?;
        progress.end(topics.len() as u64, "topics and rows are deleted");
        match context.format {
            Format::Json => {
                output::line(&json!({ "topics": topics.len(), "events": events, "rows": rows }).to_string())?;
            }
            Format::Table => output::line(&format!("deleted {what}: {rows} rows"))?,
        }
        Ok(())
    }
}
