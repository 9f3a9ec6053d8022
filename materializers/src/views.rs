//! The trait of a place that keeps views, and the types that cross it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serviceradar_streams::{
    rows::{DeviceRow, EpochOutput, State, Uid},
    rules::Rules,
};
use tokio::sync::mpsc;

/// How long a writer's beat must stand still, by the newcomer's monotonic clock, before it is taken for dead.
pub const BEAT_STANDS_STILL: Duration = Duration::from_secs(30);

/// The last record read from a log partition, by which a restart knows its log again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Its offset.
    pub offset: u64,
    /// Its append time, microseconds since the Unix epoch.
    pub append_time: i64,
    /// SHA-256 of its key and value, first 8 bytes.
    pub hash: i64,
}

/// How far a log partition is in the views (`pipeline_frontiers`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    /// `<tenant>.<stream>`.
    pub topic: String,
    /// The log partition.
    pub log_partition: u32,
    /// The next offset not yet in the views.
    pub next_offset: u64,
    /// Running maximum of append times below it: the intake clock of the log partition.
    pub intake_max: i64,
    /// The last record below it; absent before the first.
    pub witness: Option<Witness>,
}

impl Frontier {
    /// The offset behind the last event that was read: behind that there may be marks of transactions alone.
    pub fn events_end(&self) -> u64 {
        self.witness.as_ref().map_or(self.next_offset, |last| self.next_offset.min(last.offset + 1))
    }

    /// How far a log partition is by what is known of all; at its begin where nothing is.
    pub fn of(frontiers: &[Self], topic: &str, log_partition: u32) -> Self {
        let known = frontiers.iter().find(|f| f.topic == topic && f.log_partition == log_partition);
        known.cloned().unwrap_or_else(|| Self {
            topic: topic.to_owned(),
            log_partition,
            next_offset: 0,
            intake_max: i64::MIN,
            witness: None,
        })
    }
}

/// An event that could not be read: its bytes, unchanged, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stands.
    pub topic: String,
    /// Where it stands.
    pub log_partition: u32,
    /// Where it stands.
    pub offset: u64,
    /// As received.
    pub key: Option<Bytes>,
    /// As received.
    pub value: Option<Bytes>,
    /// As received.
    pub headers: Vec<(String, Bytes)>,
    /// Why it was refused, in words.
    pub reason: String,
}

/// A closed epoch of one tenant, ready to be committed.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Rises: by one where nothing of a higher number was ever published. The first is 1.
    pub number: u64,
    /// The one committed before it; 0 where there is none.
    pub follows: u64,
    /// When it was closed, microseconds since the Unix epoch.
    pub closed_at: i64,
    /// Events read for it.
    pub events: u64,
    /// Greatest intake time in it.
    pub intake_max: i64,
    /// All log partitions that it moved.
    pub frontiers: Vec<Frontier>,
    /// What it changes.
    pub output: EpochOutput,
    /// What it refused.
    pub dead_letters: Vec<DeadLetter>,
}

/// What the outbox holds for publishing after the commit.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxEntry {
    /// The epoch that wrote it.
    pub epoch: u64,
    /// Its place in that epoch.
    pub sequence: i64,
    /// `device-changes` or `dead-letters`: the stream it goes to.
    pub stream: String,
    /// Key of the event.
    pub key: Option<Bytes>,
    /// Value of the event, framed; absent is a tombstone.
    pub value: Option<Bytes>,
    /// Headers of the event.
    pub headers: Vec<(String, Bytes)>,
}

/// Where a tenant stands when a writer takes it over.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// Last committed epoch; 0 where there is none.
    pub epoch: u64,
    /// The generation written.
    pub generation: i32,
    /// How far each log partition is.
    pub frontiers: Vec<Frontier>,
    /// Whether the views lack what makes searching them fast, because they were empty: see `make_indexes`.
    pub is_bare: bool,
    /// Whether what its epochs change is told, in journals and to be published: where it is the active generation, and not
    /// untold.
    pub is_live: bool,
    /// Where the generation stopped that was told last, where this one took its place at once: not before it is there can the
    /// difference be told. None where it was.
    pub untold: Option<Vec<Frontier>>,
    /// The epoch that emptied the views last; 0 where none did. What was known before it holds no more.
    pub truncated: u64,
}

impl Resume {
    /// Whether the views have nothing of the tenant: no epoch yet, or none since they were emptied.
    pub fn is_empty(&self) -> bool {
        self.epoch == self.truncated
    }
}

/// Where a writer is asked to stop, so that another generation takes the place of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopAsked {
    /// Next offsets by topic and log partition, which it must have passed: the other generation is there already.
    pub wanted: BTreeMap<(String, u32), u64>,
    /// The epoch at which it said that it stopped; none until then.
    pub epoch: Option<u64>,
}

/// Why the views refused.
#[derive(Debug, thiserror::Error)]
pub enum ViewsError {
    /// Another writer has taken the tenant: this one must stop.
    #[error("another writer has taken tenant {tenant}: this one stops")]
    Fenced {
        /// The tenant.
        tenant: String,
    },
    /// Another writer holds the tenant and its beat goes on: stand by and try again.
    #[error("tenant {tenant} is written by {writer}, which is alive: standing by")]
    Held {
        /// The tenant.
        tenant: String,
        /// Who holds it.
        writer: String,
    },
    /// The active generation was built by other rules or another layout.
    #[error(
        "the views were built with fingerprint {found}, this program and its rules have {wanted}: use the program and rules that built them (without `rules` a pipeline goes on with theirs), or an empty database (a demo: another --dir)"
    )]
    Fingerprint {
        /// As the active generation has it.
        found: String,
        /// As wanted.
        wanted: String,
    },
    /// The schema is missing or not the one this program knows.
    #[error("the database does not fit this program: {0}")]
    Schema(String),
    /// Cannot be reached for now, or out of space: the same call may succeed later.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database refused a statement that should be right.
    #[error("the database refused: {0}")]
    Refused(String),
}

impl ViewsError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Rows on their way to the views, piece by piece.
pub struct Pieces(mpsc::Receiver<Option<EpochOutput>>);

impl Pieces {
    /// Pieces, and where they are put in: each, and at the end nothing. As many wait as given.
    pub fn new(waiting: usize) -> (mpsc::Sender<Option<EpochOutput>>, Self) {
        let (put, take) = mpsc::channel(waiting);
        (put, Self(take))
    }

    /// The next piece; none at the end. Where no end was put in, what came is not all.
    pub(crate) async fn next(&mut self) -> Result<Option<EpochOutput>, ViewsError> {
        let broken = || ViewsError::Refused("the rows of the epoch broke off".to_owned());
        self.0.recv().await.ok_or_else(broken)
    }
}

/// A place that keeps the views of a deployment.
#[async_trait::async_trait]
pub trait Views: Send + Sync + 'static {
    /// The version of the layout that is written: part of the fingerprint.
    fn layout_version(&self) -> u32;

    /// Takes the tenant for writing: raises its token, so that every earlier writer is fenced, and says
    /// where it stands. `Held` while another writer's beat goes on (see `beat`); a writer of the same
    /// name is the same one, started again, and need not wait for itself.
    /// `fingerprint` must be that of the active generation, which is made with it where there is none.
    async fn take(
        &self,
        tenant: &str,
        writer: &str,
        fingerprint: &str,
        rules: &serde_json::Value,
    ) -> Result<(Box<dyn TenantWriter>, Resume), ViewsError>;

    /// Where a tenant of the active generation stands; with it, into `state`, the state of the dataflow there, as
    /// [`TenantWriter::state`] tells it. For a newcomer that stands by: takes nothing, and holds nobody up.
    async fn standing(&self, tenant: &str, state: Option<mpsc::Sender<State>>) -> Result<Resume, ViewsError>;

    /// The rules that the generation was built with; none before its first writer.
    async fn rules(&self) -> Result<Option<Rules>, ViewsError>;

    /// Notes that somebody stands by for the tenant's writer, and has followed it to an epoch.
    async fn stand_by(&self, tenant: &str, writer: &str, epoch: u64) -> Result<(), ViewsError>;

    /// Makes what bare views of a generation lack, once they hold what the log holds. Commits wait meanwhile.
    /// Where nothing is missing nothing is done.
    async fn make_indexes(&self, generation: i32) -> Result<(), ViewsError>;

    /// Forgets what all tenants' journals tell of the time before `before`, microseconds since the Unix epoch. Where the
    /// database keeps them in pieces by time: the pieces that lie wholly before it.
    async fn forget_journals(&self, before: i64) -> Result<(), ViewsError>;
}

/// The one writer of a tenant's views.
#[async_trait::async_trait]
pub trait TenantWriter: Send + 'static {
    /// Reads back the state of the dataflow at the last committed epoch, piece by piece, until whoever takes them has
    /// gone. Where it fails, what came is not all.
    async fn state(&mut self, put: mpsc::Sender<State>) -> Result<(), ViewsError>;

    /// Commits an epoch: rows, frontiers, outbox and journals in one transaction that begins with the fence.
    /// After `Unavailable` (a lost connection, a deadlock, a full disk) the same epoch is committed again,
    /// without loss or doubling: one that was committed although the answer was lost changes nothing more.
    async fn commit(&mut self, epoch: &Epoch) -> Result<(), ViewsError>;

    /// Commits the first epoch of a tenant, whose rows come in pieces, those in the epoch itself left out; else
    /// like `commit`, but that the outbox has one entry for all devices. The pieces must be sent again with each call.
    async fn load(&mut self, epoch: &Epoch, pieces: Pieces) -> Result<(), ViewsError>;

    /// Says that this writer is alive; called every few seconds between epochs.
    async fn beat(&mut self) -> Result<(), ViewsError>;

    /// Where it is asked to stop, if it is.
    async fn stop_asked(&mut self) -> Result<Option<StopAsked>, ViewsError>;

    /// Says that it stopped as asked, at its last epoch.
    async fn stopped(&mut self, epoch: u64) -> Result<(), ViewsError>;

    /// Goes on although it was asked to stop: whoever asked has gone. Refused as `Fenced` where it was not, and another
    /// generation took the place.
    async fn go_on(&mut self) -> Result<(), ViewsError>;

    /// Tells the difference between the generation that was told last and this one, which took its place at once, as one
    /// epoch, above `published`, at `at`, microseconds since the Unix epoch: from then on its epochs are told. Returns that
    /// epoch; the last where nothing is untold (any more). After `Unavailable` it is called again before any commit.
    async fn tell_difference(&mut self, published: u64, at: i64) -> Result<u64, ViewsError>;

    /// How far somebody who stands by for it, and said so lately, has followed.
    async fn followed_to(&mut self) -> Result<Option<u64>, ViewsError>;

    /// The outbox that its commits fill, for whoever empties it meanwhile.
    fn outbox(&self) -> Box<dyn TenantOutbox>;

    /// Leaves the tenant, so that a newcomer need not wait.
    async fn leave(&mut self) -> Result<(), ViewsError>;
}

/// What a writer's commits left to be published. Waits for none of them, and holds none up.
#[async_trait::async_trait]
pub trait TenantOutbox: Send + 'static {
    /// The oldest entries, in order: as many as given at most, and no more than that many bytes of values, but one.
    async fn oldest(&mut self, entries: usize, bytes: u64) -> Result<Vec<OutboxEntry>, ViewsError>;

    /// Forgets the entries up to and including this one: they are in the log. Where another has taken the tenant
    /// it forgets nothing.
    async fn published(&mut self, epoch: u64, sequence: i64) -> Result<(), ViewsError>;

    /// Refuses where another has taken the tenant.
    async fn check(&mut self) -> Result<(), ViewsError>;

    /// The devices after a uid, in the order of their uids, each with the epoch that wrote it last.
    async fn devices(
        &mut self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(DeviceRow, u64)>, ViewsError>;
}
