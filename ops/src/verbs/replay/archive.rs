//! `replay archive`: what the log holds, as files.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;
use serviceradar_log::LogStore;
use serviceradar_replay::archive::{
    self, Archived, FILE_BYTES_MAX, Place, Wanted,
    manifest::{ArchivedFile, Manifest},
};
use serviceradar_schemas::{
    codec::{NoRegistry, WriterSchemas},
    time,
};

use super::super::Context;
use crate::{exit::Interrupted, log_store, output, progress::Progress, registry, shutdown};

/// Archives what the log holds to a folder or to a store that speaks as S3 does
///
/// Observations, decisions and the operations, as Avro container files of at most 1 GiB with a manifest. To a place that
/// has an archive of the tenant, what it does not have yet; it can be stopped, and goes on.
#[derive(Debug, Args)]
pub(crate) struct Archive {
    /// A folder, or s3://BUCKET/PREFIX with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for a store
    /// other than Amazon's, AWS_ENDPOINT_URL
    #[arg(long, value_name = "PLACE")]
    to: String,
    /// Another topic of the tenant besides; may be repeated
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
}

impl Archive {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let place = Place::at(&self.to)?;
        let log = log_store::reach(&context.config).await?;
        let shutdown = shutdown::on_signal()?;
        let archived = tokio::select! {
            archived = archive(context, &context.config.tenant, &*log, &place, self.topic) => archived?,
            () = shutdown.cancelled() => return Err(Interrupted.into()),
        };
        rows(context, &archived.manifest)
    }
}

/// Archives what the log of a tenant holds, and says so.
pub(in crate::verbs) async fn archive(
    context: &Context,
    tenant: &str,
    log: &dyn LogStore,
    place: &Place,
    topics: Vec<String>,
) -> anyhow::Result<Archived> {
    let wanted = Wanted { tenant: tenant.to_owned(), topics, file_bytes_max: FILE_BYTES_MAX };
    let mut progress = Progress::begin("archive", "archiving");
    let told = |done, total| progress.at(done, total);
    let archived = archive::archive(log, &*writers(context)?, place, &wanted, told).await?;
    let result = format!(
        "archived {} events to {}, {} bytes in {} files",
        archived.records,
        place.name(),
        archived.bytes,
        archived.files
    );
    progress.end(archived.records, &result);
    for (topic, log_partition, from, to) in archived.manifest.gaps() {
        tracing::warn!("{topic}/{log_partition}:{from}-{to} was lost before it was archived");
    }
    Ok(archived)
}

/// Who knows the schemas of the events in the log.
pub(super) fn writers(context: &Context) -> anyhow::Result<Arc<dyn WriterSchemas>> {
    Ok(match registry::client(&context.config)? {
        Some(registry) => Arc::new(registry),
        None => Arc::new(NoRegistry),
    })
}

/// What an archive has of each log partition.
fn rows(context: &Context, manifest: &Manifest) -> anyhow::Result<()> {
    let row = |(topic, log_partition): (&str, u32)| {
        let files = || manifest.files_of(topic, log_partition);
        let sum = |of: fn(&ArchivedFile) -> u64| Value::from(files().map(of).sum::<u64>());
        let from = files().map(|file| file.intake.from).min().map(time::format);
        let to = files().map(|file| file.intake.to).max().map(time::format);
        vec![
            topic.into(),
            log_partition.into(),
            files().count().into(),
            sum(|file| file.records),
            sum(|file| file.bytes),
            files().next().map(|file| file.first_offset).into(),
            files().last().map(|file| file.last_offset).into(),
            from.into(),
            to.into(),
        ]
    };
    let rows: Vec<_> = manifest.partitions().map(row).collect();
    let columns = [
        "topic",
        "log partition",
        "files",
        "events",
        "bytes",
        "first offset",
        "last offset",
        "intake from",
        "intake to",
    ];
    Ok(output::rows(context.format, &columns, &rows)?)
}
