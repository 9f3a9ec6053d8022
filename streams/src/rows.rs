//! The rows that an epoch changes: plain types, the contract between the dataflow and the views.
//!
//! `device_records`, `device_evidence`, `decisions`, `snapshots` and watermarks are also what a
//! restart reads back: together they are the whole state of the dataflow.
//! Times are microseconds since the Unix epoch.

use std::{convert::Infallible, net::IpAddr, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};
pub use serviceradar_schemas::DeviceChange as DeviceRow;
use serviceradar_schemas::{Collector, Source, Text};
use uuid::Uuid;

use crate::{
    changes::{Changes, Row, Seen},
    sums::Sums,
};

/// The public id of a device or of a claim; shown as `sr:<uuid>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(pub Uuid);

impl std::fmt::Display for Uid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sr:{}", self.0)
    }
}

impl Serialize for Uid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is no `sr:<uuid>`.
#[derive(Debug, thiserror::Error)]
#[error("a uid is sr:<uuid>, as the inventory shows it; this is {0:?}")]
pub struct NoUid(String);

impl FromStr for Uid {
    type Err = NoUid;

    fn from_str(text: &str) -> Result<Self, NoUid> {
        let uuid = text.strip_prefix("sr:").and_then(|uuid| uuid.parse().ok());
        uuid.map(Self).ok_or_else(|| NoUid(text.to_owned()))
    }
}

/// The order of a record's events: (max(event time, snapshot begin), first 8 bytes of the SHA-256 of the id).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Order {
    /// Microseconds since the Unix epoch.
    pub time: i64,
    /// Breaks ties, the same way on every replay.
    pub hash: u64,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// In a cluster: it makes its device.
    Anchored,
    /// With the device that has its address.
    Attached,
    /// An address is all there is of its device.
    Provisional,
    /// Open, with nothing to go by.
    Unplaced,
    /// Not open, and in no cluster.
    Closed,
}

impl Placement {
    /// The word in the views.
    pub fn as_str(self) -> &'static str {
        match self {
            Placement::Anchored => "anchored",
            Placement::Attached => "attached",
            Placement::Provisional => "provisional",
            Placement::Unplaced => "unplaced",
            Placement::Closed => "closed",
        }
    }
}

/// What a claim of a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceState {
    /// It links its record.
    Linking,
    /// It never links (tier 3, addresses), and is current.
    Corroborating,
    /// A MAC that devices share which cannot be one.
    Ambiguous,
    /// Claimed by records that name too many others.
    Quarantined,
    /// Claimed by too many records.
    Generic,
    /// Its record names too many of its kind, or bridges two devices.
    Bridging,
    /// An operator said so.
    Blocked,
    /// It would have joined what must not be joined.
    Refused,
    /// No longer asserted; still links where nothing current speaks against it.
    Lapsed,
    /// No longer asserted for longer than `evidence_ttl`, or over at once.
    Expired,
}

impl EvidenceState {
    const ALL: [Self; 10] = [
        EvidenceState::Linking,
        EvidenceState::Corroborating,
        EvidenceState::Ambiguous,
        EvidenceState::Quarantined,
        EvidenceState::Generic,
        EvidenceState::Bridging,
        EvidenceState::Blocked,
        EvidenceState::Refused,
        EvidenceState::Lapsed,
        EvidenceState::Expired,
    ];

    /// That which has this word in the views.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The word in the views.
    pub fn as_str(self) -> &'static str {
        match self {
            EvidenceState::Linking => "linking",
            EvidenceState::Corroborating => "corroborating",
            EvidenceState::Ambiguous => "ambiguous",
            EvidenceState::Quarantined => "quarantined",
            EvidenceState::Generic => "generic",
            EvidenceState::Bridging => "bridging",
            EvidenceState::Blocked => "blocked",
            EvidenceState::Refused => "refused",
            EvidenceState::Lapsed => "lapsed",
            EvidenceState::Expired => "expired",
        }
    }
}

/// A source record, as last asserted (`device_records`).
#[derive(Clone, Debug, PartialEq, Hash, Serialize)]
pub struct RecordRow {
    /// `partition/kind/instance/native key`.
    pub record_key: Arc<str>,
    /// Its device.
    pub uid: Option<Uid>,
    /// How it belongs there.
    pub placement: Placement,
    /// Whether it is open.
    pub open: bool,
    /// Earliest event time it was asserted at; absent where only an END is known.
    pub first_seen: Option<i64>,
    /// Latest event time it was asserted at.
    pub last_seen: Option<i64>,
    /// Earliest intake time it was asserted at.
    pub first_asserted: Option<i64>,
    /// Its attributes as a JSON object: `{name: value}`, or `{name: [value, order time, order hash (a
    /// decimal string), event time]}` where the value is not of the last FULL assert.
    pub attributes: Arc<str>,
    /// The latest verdict on reachability, and its event time.
    pub probe: Option<(bool, i64)>,
    /// Collector of the latest assert.
    pub collector: Option<Arc<Collector>>,
    /// Begin of the first snapshot that listed it; absent where it was ever listed outside of one.
    pub first_snapshot_begin: Option<i64>,
    /// Begin of the last snapshot that listed it; absent where none ever did.
    pub last_snapshot_begin: Option<i64>,
    /// The address it was last seen with, and the order of that.
    pub place: Option<(IpAddr, Order)>,
    /// Order and event time of its last assert.
    pub last_assert: Option<(Order, i64)>,
    /// Order and event time of its last FULL assert.
    pub last_full: Option<(Order, i64)>,
    /// Order of its own last END.
    pub last_end: Option<Order>,
}

impl RecordRow {
    /// Partition, source and native key of a record key.
    pub fn split(record_key: &str) -> Option<(&str, Source, &str)> {
        let mut parts = record_key.splitn(4, '/');
        let partition = parts.next()?;
        let source = Source { kind: parts.next()?.to_owned(), instance: parts.next()?.to_owned() };
        Some((partition, source, parts.next()?))
    }
}

/// A claim, or an address (namespace `ip`), that a record ever had (`device_evidence`).
#[derive(Clone, Debug, PartialEq, Hash, Serialize)]
pub struct EvidenceRow {
    /// The record.
    pub record_key: Arc<str>,
    /// E.g. `mac`, `armis/hq`, `ip`.
    pub namespace: Arc<str>,
    /// Normalised.
    pub value: Arc<str>,
    /// uid(claim); absent for tier 3, which names nothing.
    pub claim_uid: Option<Uuid>,
    /// The address itself, where it is one.
    pub ip: Option<IpAddr>,
    /// What it does.
    pub state: EvidenceState,
    /// Its record's device is where `claim_uid` redirects to: one row per claim at most.
    pub leads: bool,
    /// Earliest event time.
    pub first_seen: i64,
    /// Earliest intake time.
    pub first_asserted: i64,
    /// Order and event time of its last assertion; absent where they are those of the record's last FULL assert.
    pub last: Option<(Order, i64)>,
}

/// What the rules refused or flagged (`identity_issues`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct IssueRow {
    /// The partition.
    pub partition: Arc<str>,
    /// `ambiguous`, `bridging`, `conflict`, `generic`, `quarantined`, `oversized`, `quality`.
    pub kind: &'static str,
    /// Of the claim; `record` where the issue is of a record.
    pub namespace: Arc<str>,
    /// Of the claim; the record key where the issue is of a record.
    pub value: Arc<str>,
    /// Devices concerned, sorted.
    pub uids: Vec<Uid>,
    /// In words.
    pub detail: String,
}

impl IssueRow {
    /// What an issue may be.
    pub const KINDS: [&str; 7] =
        ["ambiguous", "bridging", "conflict", "generic", "oversized", "quality", "quarantined"];
}

/// How many devices have a value of a dimension (`device_counts`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct CountRow {
    /// The partition.
    pub partition: Arc<str>,
    /// `all`, `type`, `vendor_name`, `state`, `confidence`, `discovery_source`, `risk_level`, `site`.
    pub dimension: &'static str,
    /// The value; empty for `all` and for absent values.
    pub value: Arc<str>,
    /// Devices.
    pub devices: i64,
    /// Of them, those that answered.
    pub available: i64,
    /// Those that did not.
    pub unavailable: i64,
    /// Those nobody looked at lately.
    pub unknown: i64,
}

impl CountRow {
    /// The dimensions by which devices are counted.
    pub const DIMENSIONS: [&str; 8] =
        ["all", "confidence", "discovery_source", "risk_level", "site", "state", "type", "vendor_name"];
}

/// A decision, in force or not (`decisions`).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DecisionRow {
    /// As it stands in the log, but for its times: they are clamped.
    pub decision: serviceradar_schemas::Decision,
    /// Its time.
    pub at: i64,
    /// Whether another outweighs it.
    pub in_force: bool,
}

/// A fetch of a source (`snapshots`).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SnapshotRow {
    /// The partition.
    pub partition: Arc<str>,
    /// The source.
    pub source: Source,
    /// When it began.
    pub begin: i64,
    /// The producer's id of it.
    pub id: String,
    /// How many records its SNAPSHOT_END says it has.
    pub counted: Option<i64>,
    /// How many distinct ones came, while undecided; absent once there was a verdict.
    pub members: Option<i64>,
    /// When its SNAPSHOT_END was taken in (intake time).
    pub ended_at: Option<i64>,
    /// `accepted`, `held`; absent while undecided.
    pub verdict: Option<&'static str>,
    /// In words, of the decision.
    pub detail: String,
}

/// A member of a fetch that is still undecided, and not the last that listed it (`snapshot_members`): the others
/// are told by `RecordRow::last_snapshot_begin`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SnapshotMemberRow {
    /// The partition.
    pub partition: Arc<str>,
    /// The source.
    pub source: Source,
    /// When the fetch began.
    pub begin: i64,
    /// The record.
    pub record_key: Arc<str>,
}

/// A watermark (`pipeline_watermarks`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct WatermarkRow {
    /// The partition; absent for the tenant's last TICK.
    pub partition: Option<Arc<str>>,
    /// Greatest event time, not rounded.
    pub at: i64,
}

/// A change of a device worth telling (`device_history`); before and after are the rows themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HistoryRow {
    /// The device.
    pub uid: Uid,
    /// `created`, `merged`, `split`, `changed`, `retired`, `forgotten`.
    pub change: &'static str,
    /// In words: the claim or records that caused it.
    pub cause: String,
}

/// A merge or a split (`device_merges`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MergeRow {
    /// The uid that records had before.
    pub from_uid: Uid,
    /// The uid that they have now.
    pub to_uid: Uid,
    /// `merge` or `split`.
    pub kind: &'static str,
    /// A claim by which they hang together, `namespace:value`, where there is one.
    pub claim: Option<String>,
    /// The rule: `claim`, `mac`, `link`, `attach`, or why they came apart.
    pub rule: &'static str,
    /// The records that moved, sorted; at most 100.
    pub records: Vec<Arc<str>>,
}

/// What a sighting alone changes of a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceSeen {
    /// The device.
    pub uid: Uid,
    /// Latest sighting.
    pub last_seen: i64,
    /// When it was found whether it answers.
    pub availability_at: Option<i64>,
    /// Agent of the latest sighting.
    pub agent_id: Option<String>,
    /// Gateway of the latest sighting.
    pub gateway_id: Option<String>,
}

impl Seen<DeviceRow> for DeviceSeen {
    fn key(&self) -> String {
        self.uid.to_string()
    }
    fn write(self, row: &mut DeviceRow) {
        let Self { uid: _, last_seen, availability_at, agent_id, gateway_id } = self;
        (row.last_seen, row.availability_at) = (last_seen, availability_at);
        (row.agent_id, row.gateway_id) = (agent_id, gateway_id);
    }
}

/// What a sighting alone changes of a record.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct RecordSeen {
    /// The record.
    pub record_key: Arc<str>,
    /// Latest event time it was asserted at.
    pub last_seen: Option<i64>,
    /// Event time of the latest verdict on reachability.
    pub probe_at: Option<i64>,
    /// Begin of the last fetch that listed it.
    pub last_snapshot_begin: Option<i64>,
    /// Order of the address it was last seen with.
    pub place: Option<Order>,
    /// Order and event time of its last assert.
    pub last_assert: Option<(Order, i64)>,
    /// Order and event time of its last FULL assert.
    pub last_full: Option<(Order, i64)>,
}

impl Seen<RecordRow> for RecordSeen {
    fn key(&self) -> Arc<str> {
        self.record_key.clone()
    }
    fn write(self, row: &mut RecordRow) {
        row.last_seen = self.last_seen;
        row.last_snapshot_begin = self.last_snapshot_begin;
        row.probe = row.probe.zip(self.probe_at).map(|((up, _), at)| (up, at));
        row.place = row.place.zip(self.place).map(|((ip, _), order)| (ip, order));
        (row.last_assert, row.last_full) = (self.last_assert, self.last_full);
    }
}

impl Row for DeviceRow {
    type Key = String;
    type Seen = DeviceSeen;
    fn key(&self) -> String {
        self.uid.clone()
    }
}

impl Row for RecordRow {
    type Key = Arc<str>;
    type Seen = RecordSeen;
    fn key(&self) -> Arc<str> {
        self.record_key.clone()
    }
}

impl Row for EvidenceRow {
    type Key = (Arc<str>, Arc<str>, Arc<str>);
    type Seen = Infallible;
    fn key(&self) -> Self::Key {
        (self.record_key.clone(), self.namespace.clone(), self.value.clone())
    }
}

impl Row for IssueRow {
    type Key = (Arc<str>, &'static str, Arc<str>, Arc<str>);
    type Seen = Infallible;
    fn key(&self) -> Self::Key {
        (self.partition.clone(), self.kind, self.namespace.clone(), self.value.clone())
    }
}

impl Row for CountRow {
    type Key = (Arc<str>, &'static str, Arc<str>);
    type Seen = Infallible;
    fn key(&self) -> Self::Key {
        (self.partition.clone(), self.dimension, self.value.clone())
    }
}

impl Row for DecisionRow {
    type Key = String;
    type Seen = Infallible;
    fn key(&self) -> String {
        self.decision.id.clone()
    }
}

impl Row for SnapshotRow {
    type Key = (Arc<str>, Source, i64);
    type Seen = Infallible;
    fn key(&self) -> Self::Key {
        (self.partition.clone(), self.source.clone(), self.begin)
    }
}

impl Row for SnapshotMemberRow {
    type Key = SnapshotMemberRow;
    type Seen = Infallible;
    fn key(&self) -> Self::Key {
        self.clone()
    }
}

impl Row for WatermarkRow {
    type Key = Option<Arc<str>>;
    type Seen = Infallible;
    fn key(&self) -> Self::Key {
        self.partition.clone()
    }
}

/// Everything that an epoch changes in the views of one tenant. Rows are in no particular order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EpochOutput {
    /// `devices`.
    pub devices: Changes<DeviceRow>,
    /// `device_records`.
    pub records: Changes<RecordRow>,
    /// `device_evidence`.
    pub evidence: Changes<EvidenceRow>,
    /// `identity_issues`.
    pub issues: Changes<IssueRow>,
    /// `device_counts`.
    pub counts: Changes<CountRow>,
    /// `decisions`.
    pub decisions: Changes<DecisionRow>,
    /// `snapshots`.
    pub snapshots: Changes<SnapshotRow>,
    /// `snapshot_members`.
    pub snapshot_members: Changes<SnapshotMemberRow>,
    /// `pipeline_watermarks`.
    pub watermarks: Changes<WatermarkRow>,
    /// `device_history`, for the devices in `devices`.
    pub history: Vec<HistoryRow>,
    /// `device_merges`.
    pub merges: Vec<MergeRow>,
    /// What it adds to the sums of tables.
    pub sums: Sums,
}

/// What a restart needs of a row of `device_evidence`: the rest follows.
#[derive(Clone, Debug, PartialEq)]
pub struct EvidenceSpan {
    /// The record.
    pub record_key: Arc<str>,
    /// E.g. `mac`, `armis/hq`, `ip`.
    pub namespace: Arc<str>,
    /// Normalised.
    pub value: Text,
    /// Earliest event time.
    pub first_seen: i64,
    /// Earliest intake time.
    pub first_asserted: i64,
    /// Order and event time of its last assertion; absent where they are those of the record's last FULL assert.
    pub last: Option<Box<(Order, i64)>>,
}

impl From<&EvidenceRow> for EvidenceSpan {
    fn from(row: &EvidenceRow) -> Self {
        Self {
            record_key: row.record_key.clone(),
            namespace: row.namespace.clone(),
            value: (&*row.value).into(),
            first_seen: row.first_seen,
            first_asserted: row.first_asserted,
            last: row.last.map(Box::new),
        }
    }
}

/// What a restart reads back from the views, or a piece of it: records come before their evidence, and both before
/// all else.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// `device_records`.
    pub records: Vec<RecordRow>,
    /// `device_evidence`.
    pub evidence: Vec<EvidenceSpan>,
    /// `decisions`.
    pub decisions: Vec<DecisionRow>,
    /// `snapshots`.
    pub snapshots: Vec<SnapshotRow>,
    /// `snapshot_members`.
    pub snapshot_members: Vec<SnapshotMemberRow>,
    /// `pipeline_watermarks`.
    pub watermarks: Vec<WatermarkRow>,
}

impl EpochOutput {
    /// Adds what changed after this: the two are then one epoch.
    pub fn then(&mut self, later: Self) {
        self.devices.then(later.devices);
        self.records.then(later.records);
        self.evidence.then(later.evidence);
        self.issues.then(later.issues);
        self.counts.then(later.counts);
        self.decisions.then(later.decisions);
        self.snapshots.then(later.snapshots);
        self.snapshot_members.then(later.snapshot_members);
        self.watermarks.then(later.watermarks);
        self.history.extend(later.history);
        self.merges.extend(later.merges);
        self.sums.add(&later.sums);
    }

    /// How many rows it changes; journals are none of them.
    pub fn rows(&self) -> usize {
        self.devices.len()
            + self.records.len()
            + self.evidence.len()
            + self.issues.len()
            + self.counts.len()
            + self.decisions.len()
            + self.snapshots.len()
            + self.snapshot_members.len()
            + self.watermarks.len()
    }
}
