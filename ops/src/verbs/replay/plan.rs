//! `replay plan`: what a rebuild would read, and what it could not.

use clap::Args;
use serde_json::Value;
use serviceradar_log::LogStore;
use serviceradar_materializers::PostgresViews;
use serviceradar_replay::{operations::Operations, topics::read_by};

use super::super::Context;
use crate::{exit::Wanting, log_store, output};

/// Says what a rebuild would read, and what is missing
///
/// A line for each log partition of each tenant that the views have: where it starts and ends, how many events it holds, and
/// which are gone that nobody said are lost. Ends with 4 where there are such: a rebuild stops there.
#[derive(Debug, Args)]
pub(crate) struct Plan {}

impl Plan {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let views = super::views(context).await?;
        let log = log_store::reach(&context.config).await?;
        let planned = plan(&*log, &views).await?;
        planned.print(context)?;
        match planned.gaps {
            0 => Ok(()),
            gaps => Err(Wanting(format!(
                "{gaps} ranges of events are gone: restore them (`serviceradar replay restore`), or say that they are lost: `serviceradar replay accept-gap`"
            ))
            .into()),
        }
    }
}

/// What a rebuild would read.
pub(super) struct Planned {
    /// Events of all log partitions.
    pub(super) events: u64,
    /// Ranges that are missing, and that no operation explains.
    pub(super) gaps: usize,
    rows: Vec<Vec<Value>>,
}

impl Planned {
    pub(super) fn print(&self, context: &Context) -> anyhow::Result<()> {
        let columns = ["tenant", "log partition", "start", "end", "events", "known to be gone", "missing"];
        Ok(output::rows(context.format, &columns, &self.rows)?)
    }
}

/// What a rebuild of all tenants of the active generation would read.
pub(super) async fn plan(log: &dyn LogStore, views: &PostgresViews) -> anyhow::Result<Planned> {
    let operations = Operations::read(log).await?;
    let mut planned = Planned { events: 0, gaps: 0, rows: Vec::new() };
    for tenant in views.tenants().await? {
        for partition in read_by(log, &tenant).await? {
            let offsets = log.offsets(&partition.topic, partition.log_partition).await?;
            let missing = operations.unexplained(&partition, 0..offsets.start);
            let lost: u64 = missing.iter().map(|range| range.end - range.start).sum();
            planned.events += offsets.end - offsets.start;
            planned.gaps += missing.len();
            let missing: Vec<String> =
                missing.iter().map(|range| format!("{}-{}", range.start, range.end)).collect();
            planned.rows.push(vec![
                tenant.as_str().into(),
                partition.to_string().into(),
                offsets.start.into(),
                offsets.end.into(),
                (offsets.end - offsets.start).into(),
                (offsets.start - lost).into(),
                missing.join(", ").into(),
            ]);
        }
    }
    Ok(planned)
}
