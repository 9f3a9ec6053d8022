//! Status: what the pipeline of a tenant is doing, for whoever asks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use serviceradar_materializers::views::Frontier;
use serviceradar_schemas::{Source, time::SECOND};
use serviceradar_streams::dataflow::ScopeGauges;
use tokio::sync::watch;

use crate::{
    clocks::{CLOCKS_MAX, ClockOff, THIS_MACHINE, TOLD_FOR},
    lag::Pending,
    topics::Partition,
};

/// What the pipeline is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has not begun.
    #[default]
    Starting,
    /// Another writer holds the tenant.
    StandBy,
    /// It reads the views back.
    Restoring,
    /// It fills empty views with what the log holds; their indexes come after.
    Loading,
    /// It writes.
    Running,
    /// It waits while a generation is promoted.
    Holding,
    /// It was told to stop.
    Stopped,
    /// It cannot go on; in words.
    Failed(String),
}

/// How far a log partition is in the views.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// Next offset not yet in the views.
    pub next_offset: u64,
    /// Next offset of the log, as last seen.
    pub end: u64,
    /// Intake clock, microseconds since the Unix epoch.
    pub intake_max: i64,
    /// Why it is not being read, in words.
    pub stalled: Option<String>,
    /// What was read and is not in the views.
    #[serde(skip)]
    pub(crate) pending: Pending,
}

impl PartitionStatus {
    /// Events of the log that are not in the views, as last seen; marks of transactions that lie between are counted.
    pub fn lag_events(&self) -> u64 {
        self.end.saturating_sub(self.next_offset)
    }

    /// How old the oldest event is that is not in the views, by its append time, seconds: 0 where there is none, and
    /// none where there is one that was not read yet. `now` is in microseconds since the Unix epoch.
    pub fn lag_seconds(&self, now: i64) -> Option<f64> {
        if self.lag_events() == 0 {
            return Some(0.0);
        }
        let age = now.saturating_sub(self.pending.since()?).max(0);
        Some(age as f64 / SECOND as f64)
    }

    /// Events were read up to an offset, the first of them taken in at `since`.
    pub(crate) fn read(&mut self, since: i64, next_offset: u64) {
        self.pending.add(since, next_offset);
    }

    /// What is before a frontier is in the views.
    pub(crate) fn reach(&mut self, frontier: &Frontier) {
        self.next_offset = frontier.next_offset;
        self.end = self.end.max(frontier.next_offset);
        self.intake_max = frontier.intake_max;
        self.pending.pass(frontier.next_offset);
    }
}

/// A fetch that waits for a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// `partition/kind/instance`.
    pub source: String,
    /// When it began, microseconds since the Unix epoch.
    pub begin: i64,
    /// How many records it says it has.
    pub counted: Option<i64>,
    /// How many came.
    pub members: u64,
}

/// What is counted of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeStatus {
    /// Devices that are not retired.
    pub devices: u64,
    /// Devices that are.
    pub retired: u64,
    /// Claims of exclusive namespaces that some record asserts now; none where only the pipeline would know.
    pub exclusive_claims: Option<u64>,
    /// Of each exclusive namespace, the devices that hold a claim of it now: their sum.
    pub exclusive_holders: Option<u64>,
}

impl ScopeStatus {
    /// As the dataflow tells it.
    pub(crate) fn of(gauges: &ScopeGauges) -> Self {
        let ScopeGauges { devices, retired, exclusive } = gauges;
        Self {
            devices: devices.saturating_sub(*retired),
            retired: *retired,
            exclusive_claims: Some(exclusive.claims),
            exclusive_holders: Some(exclusive.holders),
        }
    }
}

/// The status of a tenant's pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DriverStatus {
    /// What it is doing.
    pub phase: Phase,
    /// The generation that it writes.
    pub generation: i32,
    /// Whether that is the active one, and what its epochs change is told.
    pub is_live: bool,
    /// Last committed epoch.
    pub epoch: u64,
    /// Events taken in since the start.
    pub events: u64,
    /// Events taken in to fill empty views, and not yet written.
    pub loading: u64,
    /// Dead letters since the start.
    pub dead_letters: u64,
    /// Rows changed since the start.
    pub changes: u64,
    /// Rows of evidence written since the start.
    pub evidence_changes: u64,
    /// Wall time of the last epoch, from its close to its commit, milliseconds.
    pub epoch_ms: u64,
    /// Of it, in the dataflow.
    pub dataflow_ms: u64,
    /// Records ever seen.
    pub records: u64,
    /// What is counted of each partition.
    pub scopes: BTreeMap<String, ScopeStatus>,
    /// Blocks decided since the start.
    pub blocks_decided: u64,
    /// Nodes of the biggest core or block.
    pub biggest_block: u64,
    /// Fetches that wait for a verdict.
    pub undecided: Vec<Waiting>,
    /// The last epoch of which all is published.
    pub published: u64,
    /// Settings of the log that contradict what its streams need, each with what mends it.
    pub setting_problems: Vec<String>,
    /// Why the database is waited for, in words, where it says so itself.
    pub database: Option<String>,
    /// Clocks that are off, by the source of the events that tell; `this machine` by its TICKs. As long as events are read
    /// as they come, and for ten minutes.
    pub clocks_off: BTreeMap<String, ClockOff>,
    /// Log partitions, by `topic/log partition`.
    pub partitions: BTreeMap<String, PartitionStatus>,
}

impl DriverStatus {
    /// Events of the log that are not yet in the views.
    pub fn lag_events(&self) -> u64 {
        self.partitions.values().map(PartitionStatus::lag_events).sum()
    }

    /// Whether there may be more to publish of what is committed.
    pub fn is_publishing(&self) -> bool {
        self.published < self.epoch
    }
}

/// Where the parts of a driver write its status.
#[derive(Clone)]
pub struct StatusBoard {
    /// The source of this machine's TICKs.
    own: Source,
    status: Arc<Mutex<DriverStatus>>,
    told: watch::Sender<DriverStatus>,
}

impl StatusBoard {
    /// A board, and who reads it. `own` is the source of this machine's TICKs.
    pub fn new(own: Source) -> (Self, watch::Receiver<DriverStatus>) {
        let (told, heard) = watch::channel(DriverStatus::default());
        (Self { own, status: Arc::default(), told }, heard)
    }

    /// The generation that is written, and its last committed epoch.
    pub(crate) fn written(&self) -> (i32, u64) {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        (status.generation, status.epoch)
    }

    /// Whether the views are being filled.
    pub(crate) fn is_loading(&self) -> bool {
        self.told.borrow().phase == Phase::Loading
    }

    /// Changes the status.
    pub fn update(&self, change: impl FnOnce(&mut DriverStatus)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut status);
        status.clocks_off.retain(|_, off| off.read_at.elapsed() < TOLD_FOR);
        self.told.send_replace(status.clone());
    }

    /// Says that a log partition is not being read, or that it is again.
    pub fn stall(&self, partition: &Partition, why: Option<String>) {
        let name = partition.to_string();
        {
            let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            if status.partitions.get(&name).and_then(|p| p.stalled.as_ref()) == why.as_ref() {
                return;
            }
        }
        if let Some(why) = &why {
            tracing::warn!(%partition, why, "a log partition is not being read");
        }
        self.update(|status| status.partitions.entry(name).or_default().stalled = why);
    }

    /// Says that events of a log partition were read up to an offset, the first of them taken in at `since`.
    pub fn read(&self, partition: &Partition, since: i64, next_offset: u64) {
        let name = partition.to_string();
        self.update(|status| status.partitions.entry(name).or_default().read(since, next_offset));
    }

    /// Says why the database is waited for, or that it no longer is.
    pub(crate) fn database(&self, why: Option<&str>) {
        if let Some(why) = why {
            tracing::warn!(why, "waiting for the database");
        }
        self.update(|status| status.database = why.map(str::to_owned));
    }

    /// Says whose clocks are off, and how far they are ahead, microseconds.
    pub(crate) fn clocks(&self, off: &BTreeMap<Source, i64>) {
        if off.is_empty() {
            return;
        }
        self.update(|status| {
            let clocks = &mut status.clocks_off;
            for (source, ahead) in off {
                let name = if *source == self.own { THIS_MACHINE.to_owned() } else { source.to_string() };
                if clocks.len() < CLOCKS_MAX || clocks.contains_key(&name) {
                    let off = ClockOff::by_seconds(ahead / SECOND);
                    if clocks.get(&name).is_none() {
                        tracing::warn!("the clock of {name} is {off}");
                    }
                    clocks.insert(name, off);
                }
            }
        });
    }

    /// Says where a log partition ends.
    pub fn end(&self, partition: &Partition, end: u64) {
        self.update(|status| status.partitions.entry(partition.to_string()).or_default().end = end);
    }
}
