//! Every metric of the program: name, kind, label, meaning. The reference in the docs goes by this list,
//! and nothing is measured under a name that is not in it.

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`row` says what each is")]
pub enum Metric {
    CaughtUp,
    CrawlRecords,
    CrawlSeconds,
    Crawls,
    Epoch,
    LagEvents,
    NextOffset,
    Refusals,
    Running,
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
    /// Its label; empty where it has none.
    pub label: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

impl Metric {
    /// All of them, in order of their names.
    pub const ALL: [Metric; 9] = [
        Metric::CaughtUp,
        Metric::CrawlRecords,
        Metric::CrawlSeconds,
        Metric::Crawls,
        Metric::Epoch,
        Metric::LagEvents,
        Metric::NextOffset,
        Metric::Refusals,
        Metric::Running,
    ];

    /// What is known of it.
    pub fn row(self) -> Row {
        let row = |name, kind, label, meaning| Row {
            name,
            kind,
            label,
            meaning,
        };
        match self {
            Metric::CaughtUp => row(
                "serviceradar_caught_up",
                Kind::Gauge,
                "",
                "1 while everything in the log is in the views, else 0.",
            ),
            Metric::CrawlRecords => row(
                "serviceradar_crawl_records_total",
                Kind::Counter,
                "",
                "Records published by crawls.",
            ),
            Metric::CrawlSeconds => row(
                "serviceradar_crawl_seconds",
                Kind::Histogram,
                "",
                "How long complete crawls took.",
            ),
            Metric::Crawls => row(
                "serviceradar_crawls_total",
                Kind::Counter,
                "result",
                "Crawls that ended: `complete` or `failed`.",
            ),
            Metric::Epoch => row(
                "serviceradar_epoch",
                Kind::Gauge,
                "",
                "The last committed epoch.",
            ),
            Metric::LagEvents => row(
                "serviceradar_lag_events",
                Kind::Gauge,
                "topic",
                "Events in the log that are not yet in the views.",
            ),
            Metric::NextOffset => row(
                "serviceradar_next_offset",
                Kind::Gauge,
                "topic",
                "The frontier: the sum, over the topic's log partitions, of the next offsets not yet in the views.",
            ),
            Metric::Refusals => row(
                "serviceradar_refusals_total",
                Kind::Counter,
                "",
                "Events that could not be read and became dead letters since the start.",
            ),
            Metric::Running => row(
                "serviceradar_running",
                Kind::Gauge,
                "",
                "1 while the pipeline writes views, 0 while it stands by.",
            ),
        }
    }

    /// Tells the recorder what it is.
    fn describe(self) {
        let row = self.row();
        match row.kind {
            Kind::Counter => describe_counter!(row.name, row.meaning),
            Kind::Gauge => describe_gauge!(row.name, row.meaning),
            Kind::Histogram => describe_histogram!(row.name, Unit::Seconds, row.meaning),
        }
    }

    /// Sets a gauge; `of` is the value of its label, where it has one.
    pub fn set(self, of: Option<&str>, value: f64) {
        match of {
            Some(of) => gauge!(self.row().name, self.row().label => of.to_owned()).set(value),
            None => gauge!(self.row().name).set(value),
        }
    }

    /// Raises a counter.
    pub fn add(self, of: Option<&str>, more: u64) {
        match of {
            Some(of) => {
                counter!(self.row().name, self.row().label => of.to_owned()).increment(more)
            }
            None => counter!(self.row().name).increment(more),
        }
    }

    /// Brings a counter to what it is counted to elsewhere.
    pub fn raise_to(self, total: u64) {
        counter!(self.row().name).absolute(total);
    }

    /// Takes a sample.
    pub fn sample(self, value: f64) {
        histogram!(self.row().name).record(value);
    }
}

/// Describes all metrics to the recorder.
pub fn describe() {
    for metric in Metric::ALL {
        metric.describe();
    }
}
