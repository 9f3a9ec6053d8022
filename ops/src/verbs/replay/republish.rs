//! `replay republish`: all device changes again.

use clap::Args;
use serde_json::json;
use serviceradar_materializers::postgres::Republished;
use serviceradar_replay::republish;
use serviceradar_schemas::time::SystemClock;

use super::{super::Context, operation, views};
use crate::{
    log_store,
    output::{self, Format},
    progress::Progress,
};

/// Publishes all device changes again: every device as it is, and a tombstone for each that is no more
///
/// For consumers that lost theirs. The pipeline does it, after its next commit or when it is started.
#[derive(Debug, Args)]
pub(crate) struct Republish {
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Says what would be published again
    #[arg(long)]
    dry_run: bool,
}

impl Republish {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let tenant = &context.config.tenant;
        let (views, log) = (views(context).await?, log_store::reach(&context.config).await?);
        let intent = (!self.dry_run).then(|| operation("republish", Some(tenant), &self.reason));
        let mut progress = Progress::begin("device changes", "reading device changes");
        let told = |done, total| progress.at(done, total);
        let republished = republish::republish(&log, &views, tenant, intent, &SystemClock, told).await?;
        drop(progress);
        let Republished { epoch, devices, tombstones } = republished;
        let would = if self.dry_run { "would be" } else { "are" };
        match context.format {
            Format::Json => output::line(
                &json!({ "epoch": epoch, "devices": devices, "tombstones": tombstones }).to_string(),
            )?,
            Format::Table => output::line(&format!(
                "{devices} devices and {tombstones} tombstones {would} in the outbox, of epoch {epoch}: the pipeline publishes them after its next commit"
            ))?,
        }
        Ok(())
    }
}
