//! What each source contributes to a device. Every sighting changes it: so the views keep it nowhere, and make it of
//! the records when they are asked; a device change carries it as it is then.

use std::collections::BTreeMap;

use serviceradar_schemas::SourceSummary;

use crate::rows::{Placement, RecordRow};

/// One record of a device.
pub struct OfRecord {
    /// Its source, `kind/instance`.
    pub source: String,
    /// Its first sighting.
    pub first_seen: i64,
    /// Its last one.
    pub last_seen: i64,
    /// Whether it is open.
    pub open: bool,
}

/// The sources of a device, sorted, of its records.
pub fn summaries(records: impl Iterator<Item = OfRecord>) -> Vec<SourceSummary> {
    let mut sources: BTreeMap<String, SourceSummary> = BTreeMap::new();
    for OfRecord { source, first_seen, last_seen, open } in records {
        let summary = sources.entry(source).or_insert_with_key(|source| {
            let source = source.clone();
            SourceSummary { source, first_seen, last_seen, records: 0, open: 0 }
        });
        summary.first_seen = summary.first_seen.min(first_seen);
        summary.last_seen = summary.last_seen.max(last_seen);
        summary.records += 1;
        summary.open += i32::from(open);
    }
    sources.into_values().collect()
}

/// The same, of the rows of its records. Those that are history alone do not count.
pub fn of_rows<'a>(rows: impl Iterator<Item = &'a RecordRow>) -> Vec<SourceSummary> {
    summaries(rows.filter(|row| row.placement != Placement::Closed).filter_map(|row| {
        let (_, source, _) = RecordRow::split(&row.record_key)?;
        let (first_seen, last_seen) = (row.first_seen?, row.last_seen?);
        Some(OfRecord { source: source.to_string(), first_seen, last_seen, open: row.open })
    }))
}
