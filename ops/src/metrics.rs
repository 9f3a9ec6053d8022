//! Every metric of the program: name, kind, label, meaning. The reference in the docs goes by this list,
//! and nothing is measured under a name that is not in it.

use metrics::{Label, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`row` says what each is")]
pub enum Metric {
    BiggestBlock,
    BlocksDecided,
    CaughtUp,
    Changes,
    ClocksOff,
    CrawlRecords,
    CrawlSeconds,
    Crawls,
    Devices,
    DevicesExpected,
    DriftAlarm,
    Epoch,
    EpochMilliseconds,
    Events,
    ExclusiveClaims,
    ExclusiveRatio,
    LagEvents,
    LagSeconds,
    NextOffset,
    QueriesRunning,
    Queries,
    QueryBytes,
    QueryRows,
    QuerySeconds,
    Records,
    Refusals,
    Running,
    SettingProblems,
    Stalled,
    StepDone,
    StepPerSecond,
    StepSeconds,
    StepSize,
    VerbFailed,
    VerbLastSuccess,
    VerbRunning,
    VerbSeconds,
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What is known of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub meaning: &'static str,
}

const fn row(name: &'static str, kind: Kind, labels: &'static [&'static str], meaning: &'static str) -> Row {
    Row { name, kind, labels, meaning }
}

/// A metric of one log partition; its label is `topic/log partition`.
const OF: &[&str] = &["log_partition"];
/// A metric of a partition.
const PARTITION: &[&str] = &["partition"];
/// A metric of queries: where they are asked.
const ROUTE: &[&str] = &["route"];
/// A metric of a verb that ends.
const VERB: &[&str] = &["tenant", "verb"];
/// A metric of a step of such a verb.
const STEP: &[&str] = &["tenant", "verb", "step"];

#[rustfmt::skip]
const ROWS: [(Metric, Row); 37] = [
    (Metric::BiggestBlock, row("serviceradar_biggest_block", Kind::Gauge, &[], "Nodes of the biggest block: what identity must decide at once.")),
    (Metric::BlocksDecided, row("serviceradar_blocks_decided_total", Kind::Counter, &[], "Blocks decided since the start.")),
    (Metric::CaughtUp, row("serviceradar_caught_up", Kind::Gauge, &[], "1 while everything in the log is in the views, else 0.")),
    (Metric::Changes, row("serviceradar_changes_total", Kind::Counter, &[], "Rows of the views changed since the start.")),
    (Metric::ClocksOff, row("serviceradar_clocks_off", Kind::Gauge, &[], "Clocks that are too far from the log's; `status` says whose.")),
    (Metric::CrawlRecords, row("serviceradar_crawl_records_total", Kind::Counter, &[], "Records published by complete crawls.")),
    (Metric::CrawlSeconds, row("serviceradar_crawl_seconds", Kind::Histogram, &[], "How long complete crawls took.")),
    (Metric::Crawls, row("serviceradar_crawls_total", Kind::Counter, &["result"], "Crawls that ended: `complete` or `failed`.")),
    (Metric::Devices, row("serviceradar_devices", Kind::Gauge, PARTITION, "Devices that are not retired.")),
    (Metric::DevicesExpected, row("serviceradar_devices_expected", Kind::Gauge, PARTITION, "Devices that there should be, by `expect.devices`.")),
    (Metric::DriftAlarm, row("serviceradar_drift_alarm", Kind::Gauge, &["partition", "of"], "-1 while there is too little, 1 while there is too much, else 0: of `devices`, by what is expected, or of the `ratio` of devices to exclusive claims.")),
    (Metric::Epoch, row("serviceradar_epoch", Kind::Gauge, &[], "The last committed epoch.")),
    (Metric::EpochMilliseconds, row("serviceradar_epoch_milliseconds", Kind::Gauge, &[], "The last epoch, from its close to its commit.")),
    (Metric::Events, row("serviceradar_events_total", Kind::Counter, &[], "Events taken in since the start.")),
    (Metric::ExclusiveClaims, row("serviceradar_exclusive_claims", Kind::Gauge, PARTITION, "Claims of exclusive namespaces that some record asserts now.")),
    (Metric::ExclusiveRatio, row("serviceradar_exclusive_ratio", Kind::Gauge, PARTITION, "Devices for each exclusive claim, namespace by namespace; NaN where there are no such claims.")),
    (Metric::LagEvents, row("serviceradar_lag_events", Kind::Gauge, OF, "Events in the log that are not yet in the views.")),
    (Metric::LagSeconds, row("serviceradar_lag_seconds", Kind::Gauge, OF, "Age of the oldest event that is not in the views, by its append time; 0 where there is none, NaN before it was read.")),
    (Metric::NextOffset, row("serviceradar_next_offset", Kind::Gauge, OF, "The frontier: the next offset not yet in the views.")),
    (Metric::QueriesRunning, row("serviceradar_queries_running", Kind::Gauge, ROUTE, "Queries under way.")),
    (Metric::Queries, row("serviceradar_queries_total", Kind::Counter, &["route", "outcome"], "Queries that ended, by where they were asked (`query`, `stream`, `explain`, `grpc_run`, `grpc_explain`): `ok`; the code of what was wrong; `busy`, `cut` (over the limit of bytes), `not_collected`; or `given_up` by who asked.")),
    (Metric::QueryBytes, row("serviceradar_query_bytes_total", Kind::Counter, ROUTE, "Bytes of answers.")),
    (Metric::QueryRows, row("serviceradar_query_rows_total", Kind::Counter, ROUTE, "Rows of answers.")),
    (Metric::QuerySeconds, row("serviceradar_query_seconds", Kind::Histogram, ROUTE, "How long queries took, from the question to the last byte.")),
    (Metric::Records, row("serviceradar_records", Kind::Gauge, &[], "Records ever seen.")),
    (Metric::Refusals, row("serviceradar_refusals_total", Kind::Counter, &[], "Events that could not be read and became dead letters, since the start.")),
    (Metric::Running, row("serviceradar_running", Kind::Gauge, &[], "1 while the pipeline writes views, else 0.")),
    (Metric::SettingProblems, row("serviceradar_setting_problems", Kind::Gauge, &[], "Settings of the log that contradict what its streams need; `status` says which, and what mends them.")),
    (Metric::Stalled, row("serviceradar_stalled", Kind::Gauge, OF, "1 while the log partition cannot be read, else 0; `status` says why.")),
    (Metric::StepDone, row("serviceradar_step_done", Kind::Gauge, STEP, "How far the step has come: events, rows or bytes, as the step goes by.")),
    (Metric::StepPerSecond, row("serviceradar_step_per_second", Kind::Gauge, STEP, "The same for each second since the step began.")),
    (Metric::StepSeconds, row("serviceradar_step_seconds", Kind::Gauge, STEP, "Seconds that the step takes, or took.")),
    (Metric::StepSize, row("serviceradar_step_size", Kind::Gauge, STEP, "How far the step is to come.")),
    (Metric::VerbFailed, row("serviceradar_verb_failed", Kind::Gauge, VERB, "1 if the last run that ended did so with an exit code other than 0, else 0.")),
    (Metric::VerbLastSuccess, row("serviceradar_verb_last_success_timestamp_seconds", Kind::Gauge, VERB, "When a run ended with exit code 0 last, seconds since the Unix epoch; 0 if none did.")),
    (Metric::VerbRunning, row("serviceradar_verb_running", Kind::Gauge, VERB, "1 from the first step of a run until it ends, else 0.")),
    (Metric::VerbSeconds, row("serviceradar_verb_seconds", Kind::Gauge, VERB, "Seconds that the run takes, or took.")),
];

impl Metric {
    /// All of them, in order of their names.
    pub fn all() -> impl Iterator<Item = Metric> {
        ROWS.iter().map(|(metric, _)| *metric)
    }

    /// What is known of it.
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize].1
    }

    /// Sets a gauge; `of` are the values of its labels.
    pub fn set<'a>(self, of: impl IntoIterator<Item = &'a str>, value: f64) {
        gauge!(self.row().name, self.labels(of)).set(value);
    }

    /// Raises a gauge, or lowers it.
    pub fn shift<'a>(self, of: impl IntoIterator<Item = &'a str>, by: f64) {
        gauge!(self.row().name, self.labels(of)).increment(by);
    }

    /// Raises a counter.
    pub fn add<'a>(self, of: impl IntoIterator<Item = &'a str>, more: u64) {
        counter!(self.row().name, self.labels(of)).increment(more);
    }

    /// Brings a counter to what is counted elsewhere.
    pub fn raise_to(self, total: u64) {
        counter!(self.row().name).absolute(total);
    }

    /// Takes a sample.
    pub fn sample<'a>(self, of: impl IntoIterator<Item = &'a str>, value: f64) {
        histogram!(self.row().name, self.labels(of)).record(value);
    }

    fn labels<'a>(self, of: impl IntoIterator<Item = &'a str>) -> Vec<Label> {
        self.row().labels.iter().zip(of).map(|(name, of)| Label::new(*name, of.to_owned())).collect()
    }
}

/// Describes all metrics to the recorder.
pub fn describe() {
    for (_, row) in &ROWS {
        match row.kind {
            Kind::Counter => describe_counter!(row.name, row.meaning),
            Kind::Gauge => describe_gauge!(row.name, row.meaning),
            Kind::Histogram => describe_histogram!(row.name, row.meaning),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_finds_its_own_row() {
        for (index, (metric, _)) in ROWS.iter().enumerate() {
            assert_eq!(*metric as usize, index);
        }
    }
}
