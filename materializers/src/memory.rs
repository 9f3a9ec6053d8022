//! Views in memory: what a test of a driver needs, and the second opinion on PostgreSQL.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serviceradar_schemas::topics::Stream;
use serviceradar_streams::changes::{Changes, Row, Seen};
use serviceradar_streams::rows::{
    CountRow, DecisionRow, DeviceRow, EpochOutput, EvidenceRow, EvidenceSpan, IssueRow, RecordRow,
    SnapshotMemberRow, SnapshotRow, State, Uid, WatermarkRow,
};
use serviceradar_streams::{
    rules::Rules,
    sources,
    sums::{Buckets, Sums},
};

use tokio::sync::mpsc;

use crate::{
    layout::LAYOUT,
    views::{
        BEAT_STANDS_STILL, Epoch, Frontier, OutboxEntry, Pieces, Resume, StopAsked, TenantOutbox,
        TenantWriter, Views, ViewsError,
    },
};

/// The rows of one tenant, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// `devices`, with their sources as they were last told.
    pub devices: BTreeMap<String, DeviceRow>,
    /// `device_records`.
    pub records: BTreeMap<Arc<str>, RecordRow>,
    /// `device_evidence`.
    pub evidence: BTreeMap<<EvidenceRow as Row>::Key, EvidenceRow>,
    /// `identity_issues`.
    pub issues: BTreeMap<<IssueRow as Row>::Key, IssueRow>,
    /// `device_counts`.
    pub counts: BTreeMap<<CountRow as Row>::Key, CountRow>,
    /// `decisions`.
    pub decisions: BTreeMap<String, DecisionRow>,
    /// `snapshots`.
    pub snapshots: BTreeMap<<SnapshotRow as Row>::Key, SnapshotRow>,
    /// `snapshot_members`.
    pub snapshot_members: BTreeMap<SnapshotMemberRow, SnapshotMemberRow>,
    /// `pipeline_watermarks`.
    pub watermarks: BTreeMap<Option<Arc<str>>, WatermarkRow>,
    /// `pipeline_hashes`.
    pub sums: Sums,
}

impl Tables {
    /// Applies what an epoch changes.
    ///
    /// # Errors
    /// Names the row where a change contradicts what is there: new and there already, changed or gone and not there.
    pub fn apply(&mut self, output: &EpochOutput) -> Result<(), String> {
        apply(&mut self.devices, &output.devices)?;
        apply(&mut self.records, &output.records)?;
        apply(&mut self.evidence, &output.evidence)?;
        apply(&mut self.issues, &output.issues)?;
        apply(&mut self.counts, &output.counts)?;
        apply(&mut self.decisions, &output.decisions)?;
        apply(&mut self.snapshots, &output.snapshots)?;
        apply(&mut self.snapshot_members, &output.snapshot_members)?;
        apply(&mut self.watermarks, &output.watermarks)?;
        self.sums.add(&output.sums);
        Ok(())
    }

    /// What the rows come to as they are.
    pub fn sums_of_rows(&self) -> Sums {
        Sums {
            devices: Buckets::of(self.devices.values()),
            records: Buckets::of(self.records.values()),
            evidence: Buckets::of(self.evidence.values()),
        }
    }

    /// What a restart reads back.
    pub fn state(&self) -> State {
        State {
            records: self.records.values().cloned().collect(),
            evidence: self.evidence.values().map(EvidenceSpan::from).collect(),
            decisions: self.decisions.values().cloned().collect(),
            snapshots: self.snapshots.values().cloned().collect(),
            snapshot_members: self.snapshot_members.values().cloned().collect(),
            watermarks: self.watermarks.values().cloned().collect(),
        }
    }
}

fn apply<R: Row>(rows: &mut BTreeMap<R::Key, R>, changes: &Changes<R>) -> Result<(), String> {
    let wrong = |what: &str, key: &dyn Debug| Err(format!("{what}: {key:?}"));
    for key in &changes.gone {
        if rows.remove(key).is_none() {
            return wrong("gone, and was not there", key);
        }
    }
    for changed in &changes.changed {
        if rows.insert(changed.key(), changed.clone()).is_none() {
            return wrong("changed, and was not there", &changed.key());
        }
    }
    for seen in &changes.seen {
        match rows.get_mut(&seen.key()) {
            Some(row) => seen.clone().write(row),
            None => return wrong("seen, and was not there", &seen.key()),
        }
    }
    for row in &changes.new {
        if rows.insert(row.key(), row.clone()).is_some() {
            return wrong("new, and was there", &row.key());
        }
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Tenant {
    tables: Tables,
    frontiers: BTreeMap<(String, u32), Frontier>,
    outbox: BTreeMap<(u64, i64), OutboxEntry>,
    epoch: u64,
    token: u64,
    writer: Option<(String, Instant)>,
    /// How far somebody who stands by has followed.
    followed: Option<u64>,
}

impl Tenant {
    fn resume(&self) -> Resume {
        Resume {
            epoch: self.epoch,
            generation: GENERATION,
            frontiers: self.frontiers.values().cloned().collect(),
            is_live: true,
            ..Resume::default()
        }
    }
}

#[derive(Debug, Default)]
struct Kept {
    fingerprint: Option<String>,
    rules: Option<serde_json::Value>,
    tenants: BTreeMap<String, Tenant>,
}

/// Views in memory, shared by its clones.
#[derive(Clone, Debug, Default)]
pub struct MemoryViews(Arc<Mutex<Kept>>);

impl MemoryViews {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tenant's rows as they are.
    pub fn tables(&self, tenant: &str) -> Tables {
        self.kept().tenants.get(tenant).map(|tenant| tenant.tables.clone()).unwrap_or_default()
    }
}

/// The only generation there is.
const GENERATION: i32 = 1;

#[async_trait::async_trait]
impl Views for MemoryViews {
    fn layout_version(&self) -> u32 {
        LAYOUT.version
    }

    async fn take(
        &self,
        tenant: &str,
        writer: &str,
        fingerprint: &str,
        rules: &serde_json::Value,
    ) -> Result<(Box<dyn TenantWriter>, Resume), ViewsError> {
        let mut kept = self.kept();
        let found = kept.fingerprint.get_or_insert_with(|| fingerprint.to_owned()).clone();
        if found != fingerprint {
            return Err(ViewsError::Fingerprint { found, wanted: fingerprint.to_owned() });
        }
        kept.rules.get_or_insert_with(|| rules.clone());
        let of = kept.tenants.entry(tenant.to_owned()).or_default();
        if let Some((holder, beat)) = &of.writer
            && holder != writer
            && beat.elapsed() < BEAT_STANDS_STILL
        {
            return Err(ViewsError::Held { tenant: tenant.to_owned(), writer: holder.clone() });
        }
        of.token += 1;
        of.writer = Some((writer.to_owned(), Instant::now()));
        let resume = of.resume();
        let writer = MemoryWriter { views: self.clone(), tenant: tenant.to_owned(), token: of.token };
        Ok((Box::new(writer), resume))
    }

    async fn standing(&self, tenant: &str, put: Option<mpsc::Sender<State>>) -> Result<Resume, ViewsError> {
        let (resume, state) = {
            let mut kept = self.kept();
            let of = kept.tenants.entry(tenant.to_owned()).or_default();
            (of.resume(), of.tables.state())
        };
        if let Some(put) = put {
            // Whoever has gone needs none.
            let _ = put.send(state).await;
        }
        Ok(resume)
    }

    async fn rules(&self) -> Result<Option<Rules>, ViewsError> {
        let unreadable = |error: serde_json::Error| ViewsError::Refused(error.to_string());
        self.kept().rules.clone().map(serde_json::from_value).transpose().map_err(unreadable)
    }

    async fn stand_by(&self, tenant: &str, _writer: &str, epoch: u64) -> Result<(), ViewsError> {
        self.kept().tenants.entry(tenant.to_owned()).or_default().followed = Some(epoch);
        Ok(())
    }

    async fn make_indexes(&self, _generation: i32) -> Result<(), ViewsError> {
        Ok(())
    }

    /// It keeps none.
    async fn forget_journals(&self, _before: i64) -> Result<(), ViewsError> {
        Ok(())
    }
}

#[derive(Clone)]
struct MemoryWriter {
    views: MemoryViews,
    tenant: String,
    token: u64,
}

impl MemoryWriter {
    fn with<T>(&self, work: impl FnOnce(&mut Tenant) -> Result<T, ViewsError>) -> Result<T, ViewsError> {
        let mut kept = self.views.kept();
        let tenant = kept.tenants.entry(self.tenant.clone()).or_default();
        if tenant.token != self.token {
            return Err(ViewsError::Fenced { tenant: self.tenant.clone() });
        }
        if let Some((_, beat)) = &mut tenant.writer {
            *beat = Instant::now();
        }
        work(tenant)
    }
}

#[async_trait::async_trait]
impl TenantWriter for MemoryWriter {
    async fn state(&mut self, put: mpsc::Sender<State>) -> Result<(), ViewsError> {
        let state = self.with(|tenant| Ok(tenant.tables.state()))?;
        // Whoever has gone needs none.
        let _ = put.send(state).await;
        Ok(())
    }

    async fn commit(&mut self, epoch: &Epoch) -> Result<(), ViewsError> {
        self.with(|tenant| {
            if epoch.number == tenant.epoch {
                return Ok(());
            }
            if epoch.follows != tenant.epoch || epoch.number < tenant.epoch {
                let (number, last) = (epoch.number, tenant.epoch);
                return Err(ViewsError::Refused(format!("epoch {number} cannot follow epoch {last}")));
            }
            let mut tables = tenant.tables.clone();
            tables.apply(&epoch.output).map_err(ViewsError::Refused)?;
            tenant.tables = tables;
            tenant.epoch = epoch.number;
            for frontier in &epoch.frontiers {
                tenant.frontiers.insert((frontier.topic.clone(), frontier.log_partition), frontier.clone());
            }
            let changes = crate::outbox::device_changes(GENERATION, epoch.number, &epoch.output);
            for (entry, sequence) in changes.chain(crate::outbox::dead_letters(epoch)).zip(0..) {
                let entry = entry.numbered(epoch.number, sequence);
                tenant.outbox.insert((epoch.number, sequence), entry);
            }
            Ok(())
        })
    }

    async fn load(&mut self, epoch: &Epoch, mut pieces: Pieces) -> Result<(), ViewsError> {
        let mut whole = Epoch { output: EpochOutput::default(), ..epoch.clone() };
        while let Some(piece) = pieces.next().await? {
            whole.output.then(piece);
        }
        self.commit(&whole).await?;
        self.with(|tenant| {
            let is_device = |entry: &OutboxEntry| entry.stream == Stream::DeviceChanges.name();
            tenant.outbox.retain(|(number, _), entry| *number != epoch.number || !is_device(entry));
            let entry = crate::outbox::all_devices().numbered(epoch.number, -1);
            tenant.outbox.insert((epoch.number, -1), entry);
            Ok(())
        })
    }

    async fn beat(&mut self) -> Result<(), ViewsError> {
        self.with(|_| Ok(()))
    }

    /// Nobody asks: there is one generation.
    async fn stop_asked(&mut self) -> Result<Option<StopAsked>, ViewsError> {
        self.with(|_| Ok(None))
    }

    async fn stopped(&mut self, _epoch: u64) -> Result<(), ViewsError> {
        self.with(|_| Ok(()))
    }

    async fn go_on(&mut self) -> Result<(), ViewsError> {
        self.with(|_| Ok(()))
    }

    /// Nothing is untold: there is one generation.
    async fn tell_difference(&mut self, _published: u64, _at: i64) -> Result<u64, ViewsError> {
        self.with(|tenant| Ok(tenant.epoch))
    }

    async fn followed_to(&mut self) -> Result<Option<u64>, ViewsError> {
        self.with(|tenant| Ok(tenant.followed))
    }

    fn outbox(&self) -> Box<dyn TenantOutbox> {
        Box::new(self.clone())
    }

    async fn leave(&mut self) -> Result<(), ViewsError> {
        self.with(|tenant| {
            tenant.writer = None;
            Ok(())
        })
    }
}

#[async_trait::async_trait]
impl TenantOutbox for MemoryWriter {
    async fn oldest(&mut self, entries: usize, bytes: u64) -> Result<Vec<OutboxEntry>, ViewsError> {
        self.with(|tenant| {
            let mut before = 0;
            let fits = |entry: &&OutboxEntry| {
                let size = entry.value.as_ref().map_or(0, |value| value.len() as u64);
                before += size;
                before <= bytes || before == size
            };
            Ok(tenant.outbox.values().take(entries).take_while(fits).cloned().collect())
        })
    }

    async fn published(&mut self, epoch: u64, sequence: i64) -> Result<(), ViewsError> {
        self.with(|tenant| {
            tenant.outbox.retain(|key, _| *key > (epoch, sequence));
            Ok(())
        })
    }

    async fn check(&mut self) -> Result<(), ViewsError> {
        self.with(|_| Ok(()))
    }

    async fn devices(
        &mut self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(DeviceRow, u64)>, ViewsError> {
        self.with(|tenant| {
            let after = after.map(|uid| uid.to_string()).unwrap_or_default();
            let rows = tenant.tables.devices.range::<String, _>((Bound::Excluded(after), Bound::Unbounded));
            let whole = |(uid, row): (&String, &DeviceRow)| {
                let records = tenant.tables.records.values();
                let of_device = records.filter(|record| record.uid.is_some_and(|of| of.to_string() == *uid));
                (DeviceRow { sources: sources::of_rows(of_device), ..row.clone() }, tenant.epoch)
            };
            Ok(rows.take(limit).map(whole).collect())
        })
    }
}
