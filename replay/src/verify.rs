//! Verify: three at one frontier: rows as the database has them, their sums as the epochs kept them, and rows as the log
//! comes to when it is read anew. Where they differ somebody else wrote, the database lost something, or this program has
//! a defect.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;
use serde_json::Value;
use serviceradar_log::LogStore;
use serviceradar_materializers::{
    PostgresViews,
    postgres::{Contradictions, Stored},
    views::{Views, ViewsError},
};
use serviceradar_schemas::{Source, codec::WriterSchemas, time::Clock};
use serviceradar_streams::{
    changes::{Changes, Row},
    rows::EpochOutput,
    sums::{Sums, bucket_of},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    recompute::{Recompute, RecomputeError, Recomputed},
    topics::Partition,
    witness,
};

/// Rows that differ and are told, of each table.
pub const DIFFERENCES_MAX: usize = 100;
/// Buckets of a table in which such rows are looked for: of a table that differs everywhere, not all is held at a time.
const BUCKETS_LOOKED_AT: usize = 16;
/// Pieces of rows that wait to be summed.
const PIECES_WAITING: usize = 2;

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The views refused.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The log could not be recomputed.
    #[error(transparent)]
    Recompute(#[from] RecomputeError),
    /// Nothing was ever written.
    #[error("the views of tenant {0} are empty: nothing was committed yet")]
    Empty(String),
    /// Another program wrote the views.
    #[error(
        "the views were built by a program of another layout or other rules of identity (fingerprint {found}, this one has {wanted}): verify them with that program, or rebuild"
    )]
    Fingerprint {
        /// As the generation has it.
        found: String,
        /// This program's, for the rules of the generation.
        wanted: String,
    },
}

impl VerifyError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Views(error) => error.is_unavailable(),
            Self::Recompute(error) => error.is_unavailable(),
            _ => false,
        }
    }
}

/// What is verified, and with what.
pub struct Verify {
    /// Whose.
    pub tenant: String,
    /// Workers of the dataflow.
    pub workers: usize,
    /// The log.
    pub log: Arc<dyn LogStore>,
    /// Who knows the schemas that events were written by.
    pub writers: Arc<dyn WriterSchemas>,
    /// The machine's clock.
    pub clock: Arc<dyn Clock>,
}

/// How far a verification has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Events read of the log, of how many.
    Log(u64, u64),
    /// Rows read of the database.
    Database(u64),
}

/// A row that is not the same in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The table.
    pub table: &'static str,
    /// The row's key.
    pub key: String,
    /// As the database has it; none where it has no such row.
    pub stored: Option<Value>,
    /// As the log says it must be; none where there must be no such row.
    pub recomputed: Option<Value>,
}

/// One table, as the three see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// The table.
    pub table: &'static str,
    /// Rows in the database.
    pub rows: u64,
    /// Buckets in which rows and log differ; of a small table, rows.
    pub differing: u64,
    /// Buckets in which rows, and sums as the epochs kept them, differ; none where no sums are kept.
    pub unlike_kept: Option<u64>,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The generation.
    pub generation: i32,
    /// The last epoch that is in what was verified.
    pub epoch: u64,
    /// Events of the log.
    pub events: u64,
    /// Of them, those that were refused.
    pub refused: u64,
    /// Of those, what could be read now: a rebuild would take them in.
    pub readable: Vec<String>,
    /// Each table.
    pub tables: Vec<Compared>,
    /// The first rows that differ.
    pub differences: Vec<Difference>,
    /// Rows that contradict others of the database, besides those that are told.
    pub contradictions: u64,
}

impl Verdict {
    /// Whether the three are the same.
    pub fn is_clean(&self) -> bool {
        let is_clean = |of: &Compared| of.differing == 0 && of.unlike_kept.is_none_or(|unlike| unlike == 0);
        self.tables.iter().all(is_clean) && self.contradictions == 0
    }
}

/// What one side has: counts, sums and all small tables.
#[derive(Default)]
struct Side {
    rows: [u64; 3],
    sums: Sums,
    small: EpochOutput,
}

impl Side {
    fn add(&mut self, mut piece: EpochOutput, sums: &Sums) {
        self.sums.add(sums);
        let counts = [piece.devices.new.len(), piece.records.new.len(), piece.evidence.new.len()];
        for (rows, count) in self.rows.iter_mut().zip(counts) {
            *rows += count as u64;
        }
        (piece.devices, piece.records, piece.evidence) = Default::default();
        piece.sums = Sums::default();
        self.small.then(piece);
    }
}

/// Rows in buckets that are looked into.
#[derive(Default)]
struct Inside {
    devices: BTreeSet<usize>,
    records: BTreeSet<usize>,
    evidence: BTreeSet<usize>,
}

impl Inside {
    fn keep(&self, piece: &mut EpochOutput) {
        piece.devices.new.retain(|row| self.devices.contains(&bucket_of(&row.key())));
        piece.records.new.retain(|row| self.records.contains(&bucket_of(&row.key())));
        piece.evidence.new.retain(|row| self.evidence.contains(&bucket_of(&row.key())));
    }
}

impl Verify {
    /// Verifies what the views hold now. What is committed meanwhile is not looked at.
    pub async fn run(
        self,
        views: &PostgresViews,
        told: impl Fn(Step) + Clone + Send + 'static,
    ) -> Result<Verdict, VerifyError> {
        let mut stored = views.stored(&self.tenant).await?;
        let resume = stored.resume().await?;
        if resume.epoch == 0 {
            return Err(VerifyError::Empty(self.tenant));
        }
        let rules = stored.rules().await?.unwrap_or_default();
        let (found, wanted) = (stored.fingerprint().await?, rules.fingerprint(views.layout_version()));
        if found != wanted {
            return Err(VerifyError::Fingerprint { found, wanted });
        }
        for frontier in &resume.frontiers {
            let partition =
                Partition { topic: frontier.topic.clone(), log_partition: frontier.log_partition };
            let checked = witness::check(&*self.log, &partition, frontier).await;
            checked.map_err(RecomputeError::from)?.map_err(RecomputeError::from)?;
        }
        let ends = resume.frontiers.iter().map(|frontier| {
            let partition =
                Partition { topic: frontier.topic.clone(), log_partition: frontier.log_partition };
            (partition, frontier.events_end())
        });
        let recompute = Recompute {
            tenant: self.tenant.clone(),
            rules,
            workers: self.workers,
            log: self.log.clone(),
            writers: self.writers.clone(),
            clock: self.clock.clone(),
            ends: ends.collect(),
            known_until: None,
            refusals: stored.refusals().await?,
        };
        let events = recompute.events().await?;
        let (of_log, of_database) = (told.clone(), told);
        // To read the log takes both cores of a small machine; what follows takes one, beside which the database is read.
        let (reading_log, is_log_read) = oneshot::channel::<()>();
        let recomputing = async {
            let told = move |done| {
                let _until_dropped = &reading_log;
                of_log(Step::Log(done, events));
            };
            let recomputed = recompute.run(Some, |_| true, None, told).await?;
            Ok::<_, VerifyError>(side_of(recomputed).await?)
        };
        let reading = async {
            // It is dropped, and never sends.
            let _ = is_log_read.await;
            let mut side = Side::default();
            let mut rows = 0;
            let found = each_piece(&mut stored, |piece| {
                rows += piece.rows() as u64;
                of_database(Step::Database(rows));
                let sums = Sums::of(&piece);
                side.add(piece, &sums);
            });
            Ok::<_, VerifyError>((found.await?, side))
        };
        let ((recomputed, log), (found, database)) = tokio::try_join!(recomputing, reading)?;
        let kept = stored.kept_sums().await?;
        let mut verdict = Verdict {
            generation: resume.generation,
            epoch: resume.epoch,
            events: recomputed.events,
            refused: recomputed.refused,
            readable: recomputed
                .readable
                .iter()
                .map(|(topic, of, at)| format!("{topic}/{of}/{at}"))
                .collect(),
            tables: Vec::new(),
            differences: Vec::new(),
            contradictions: 0,
        };
        let mut inside = Inside::default();
        let wide = [&mut inside.devices, &mut inside.records, &mut inside.evidence];
        let tables = database.sums.tables().into_iter().zip(log.sums.tables()).zip(kept.tables());
        for ((((table, of_rows), (_, of_log)), (_, kept)), (looked_at, rows)) in
            tables.zip(wide.into_iter().zip(database.rows))
        {
            let differing = of_rows.difference(of_log);
            let unlike_kept = Some(of_rows.difference(kept).len() as u64);
            looked_at.extend(differing.iter().take(BUCKETS_LOOKED_AT));
            verdict.tables.push(Compared { table, rows, differing: differing.len() as u64, unlike_kept });
        }
        small_tables(&database.small, &log.small, &mut verdict);
        if !(inside.devices.is_empty() && inside.records.is_empty() && inside.evidence.is_empty()) {
            look_inside(&mut stored, recomputed, inside, &mut verdict).await?;
        }
        contradictions(found, &mut verdict);
        Ok(verdict)
    }
}

/// Reads all that the database has.
pub(crate) async fn each_piece(
    stored: &mut Stored,
    mut take: impl FnMut(EpochOutput),
) -> Result<Contradictions, ViewsError> {
    let (put, mut pieces) = mpsc::channel(PIECES_WAITING);
    let reading = async {
        let found = stored.rows(&put).await;
        drop(put);
        found
    };
    let taking = async {
        while let Some(piece) = pieces.recv().await {
            take(piece);
        }
    };
    tokio::join!(reading, taking).0
}

/// What the log has, piece by piece.
async fn side_of(mut recomputed: Recomputed) -> Result<(Recomputed, Side), RecomputeError> {
    let told = tokio::task::spawn_blocking(move || {
        let mut side = Side::default();
        let told = recomputed.rows(&mut |mut piece| {
            // As the dataflow sums what it tells.
            let sums = std::mem::take(&mut piece.sums);
            side.add(piece, &sums);
            true
        });
        told.map(|()| (recomputed, side))
    });
    Ok(told.await.map_err(|error| RecomputeError::Task(error.to_string()))??)
}

/// Finds the rows that differ in some buckets.
async fn look_inside(
    stored: &mut Stored,
    mut recomputed: Recomputed,
    inside: Inside,
    verdict: &mut Verdict,
) -> Result<(), VerifyError> {
    let mut of_database = EpochOutput::default();
    each_piece(stored, |mut piece| {
        inside.keep(&mut piece);
        add_wide(&mut of_database, piece);
    })
    .await?;
    let told = tokio::task::spawn_blocking(move || {
        let mut of_log = EpochOutput::default();
        let told = recomputed.engine.rows(&mut |mut piece| {
            inside.keep(&mut piece);
            add_wide(&mut of_log, piece);
            true
        });
        told.map(|()| of_log)
    });
    let of_log =
        told.await.map_err(|error| RecomputeError::Task(error.to_string()))?.map_err(RecomputeError::from)?;
    // Sources follow from records, and are read without.
    let without_sources = |mut changes: Changes<serviceradar_streams::rows::DeviceRow>| {
        changes.new.iter_mut().for_each(|row| row.sources = Vec::new());
        changes
    };
    let (stored, log) = (without_sources(of_database.devices), without_sources(of_log.devices));
    let differences = &mut verdict.differences;
    compare("devices", &stored, &log, |uid| uid.clone(), differences);
    compare("device_records", &of_database.records, &of_log.records, |key| key.to_string(), differences);
    let evidence_key =
        |(record, namespace, value): &(Arc<str>, Arc<str>, Arc<str>)| format!("{record} {namespace}:{value}");
    compare("device_evidence", &of_database.evidence, &of_log.evidence, evidence_key, differences);
    Ok(())
}

fn add_wide(to: &mut EpochOutput, piece: EpochOutput) {
    to.devices.new.extend(piece.devices.new);
    to.records.new.extend(piece.records.new);
    to.evidence.new.extend(piece.evidence.new);
}

/// Compares the tables that have no sums, row by row.
fn small_tables(database: &EpochOutput, log: &EpochOutput, verdict: &mut Verdict) {
    let joined = |parts: &[&str]| parts.join(" ");
    let fetch =
        |(partition, source, begin): &(Arc<str>, Source, i64)| format!("{partition} {source} {begin}");
    let differences = &mut verdict.differences;
    let mut note = |table, rows: usize, differing| {
        verdict.tables.push(Compared { table, rows: rows as u64, differing, unlike_kept: None });
    };
    let issue = |(partition, kind, namespace, value): &(Arc<str>, &'static str, Arc<str>, Arc<str>)| {
        joined(&[partition, kind, namespace, value])
    };
    let differing = compare("identity_issues", &database.issues, &log.issues, issue, differences);
    note("identity_issues", database.issues.new.len(), differing);
    let count = |(partition, dimension, value): &(Arc<str>, &'static str, Arc<str>)| {
        joined(&[partition, dimension, value])
    };
    let differing = compare("device_counts", &database.counts, &log.counts, count, differences);
    note("device_counts", database.counts.new.len(), differing);
    let differing = compare("decisions", &database.decisions, &log.decisions, String::clone, differences);
    note("decisions", database.decisions.new.len(), differing);
    let differing = compare("snapshots", &database.snapshots, &log.snapshots, fetch, differences);
    note("snapshots", database.snapshots.new.len(), differing);
    let (of_database, of_log) = (&database.snapshot_members, &log.snapshot_members);
    let differing = compare("snapshot_members", of_database, of_log, |row| format!("{row:?}"), differences);
    note("snapshot_members", of_database.new.len(), differing);
    let (of_database, of_log) = (&database.watermarks, &log.watermarks);
    let watermark = |partition: &Option<Arc<str>>| partition.as_deref().unwrap_or("TICK").to_owned();
    let differing = compare("pipeline_watermarks", of_database, of_log, watermark, differences);
    note("pipeline_watermarks", of_database.new.len(), differing);
}

/// Notes the rows that differ, as many as are told; returns how many there are.
fn compare<R: Row + PartialEq + Serialize>(
    table: &'static str,
    database: &Changes<R>,
    log: &Changes<R>,
    text: impl Fn(&R::Key) -> String,
    differences: &mut Vec<Difference>,
) -> u64 {
    let by_key =
        |of: &Changes<R>| of.new.iter().map(|row| (row.key(), row.clone())).collect::<BTreeMap<_, _>>();
    let (database, log) = (by_key(database), by_key(log));
    let keys: BTreeSet<&R::Key> = database.keys().chain(log.keys()).collect();
    let mut count = 0;
    let mut told = 0;
    for key in keys {
        let (stored, recomputed) = (database.get(key), log.get(key));
        if stored == recomputed {
            continue;
        }
        count += 1;
        if told < DIFFERENCES_MAX {
            told += 1;
            // Rows are strings, numbers and lists of them: nothing that JSON cannot say.
            let value = |row: &R| serde_json::to_value(row).unwrap_or_default();
            let (stored, recomputed) = (stored.map(value), recomputed.map(value));
            differences.push(Difference { table, key: text(key), stored, recomputed });
        }
    }
    count
}

/// Notes the rows of the database that contradict others of it.
fn contradictions(found: Contradictions, verdict: &mut Verdict) {
    verdict.contradictions = found.count;
    let told = found.told.into_iter().take(DIFFERENCES_MAX).map(|of| Difference {
        table: of.table,
        key: of.key,
        stored: (!of.stored.is_null()).then_some(of.stored),
        recomputed: Some(of.expected),
    });
    verdict.differences.extend(told);
}

/// Of two JSON objects, the fields that differ: name, and both values.
pub fn fields<'a>(stored: &'a Value, recomputed: &'a Value) -> Vec<(&'a str, &'a Value, &'a Value)> {
    let (Value::Object(stored), Value::Object(recomputed)) = (stored, recomputed) else {
        return if stored == recomputed { Vec::new() } else { vec![("", stored, recomputed)] };
    };
    let names: BTreeSet<&str> = stored.keys().chain(recomputed.keys()).map(String::as_str).collect();
    let of = |object: &'a serde_json::Map<String, Value>, name| object.get(name).unwrap_or(&Value::Null);
    names
        .into_iter()
        .map(|name| (name, of(stored, name), of(recomputed, name)))
        .filter(|(_, stored, recomputed)| stored != recomputed)
        .collect()
}
