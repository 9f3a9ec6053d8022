//! Stored: what the tables of a tenant hold at one moment, whoever wrote it, so that it can be held against what they
//! should.

use std::{collections::BTreeSet, pin::pin};

use futures_util::TryStreamExt;
use serde_json::{Value, json};
use serviceradar_streams::{
    evidence::canonical_attributes,
    rows::{CountRow, DeviceRow, EpochOutput, IssueRow, State},
    rules::Rules,
    sums::Sums,
};
use tokio::sync::mpsc;
use tokio_postgres::Row;

use super::{
    PostgresViews, devices,
    difference::MUCH_MEMORY,
    session::{Session, views_error},
    state::{self, address},
    sums,
    tables::{SearchRow, TableRow, addresses_of, words_of},
};
use crate::{
    migrations,
    views::{Resume, ViewsError},
};

/// Devices, and evidence, in a piece.
const DEVICES_IN_PIECE: usize = 2_000;
const EVIDENCE_IN_PIECE: usize = 10_000;
/// Pieces of the state that wait between the database and whoever takes them.
const PIECES_WAITING: usize = 2;
/// Columns that are empty all or none, of a table.
const TOGETHER: [(&str, &[&[&str]]); 2] = [
    (
        "record_summaries",
        &[
            &["place", "place_time", "place_hash"],
            &["assert_time", "assert_hash", "assert_event_time"],
            &["full_time", "full_hash", "full_event_time"],
            &["end_time", "end_hash"],
            &["probe_up", "probe_at"],
            &["collector_agent", "collector_gateway", "collector_address"],
        ],
    ),
    ("device_evidence", &[&["last_time", "last_hash", "last_seen"]]),
];
/// Places of the columns behind those of a device: periods of `last_seen`, and what searches go by (its tenant and uid before).
const PERIODS_AT: usize = 32;
const SEARCH_AT: usize = 36;
/// Contradictions that are told; of more, how many there are.
const CONTRADICTIONS_MAX: usize = 1_000;

/// What the tables of a tenant in one generation hold, at one moment: what is written meanwhile is not seen.
pub struct Stored {
    session: Session,
    tenant: String,
    generation: i32,
}

/// A row that repeats what another says, and says it otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Contradiction {
    /// The table.
    pub table: &'static str,
    /// The row's key.
    pub key: String,
    /// As it is.
    pub stored: Value,
    /// As it must be.
    pub expected: Value,
}

/// Contradictions between rows of a tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contradictions {
    /// The first of them.
    pub told: Vec<Contradiction>,
    /// How many there are.
    pub count: u64,
}

impl Contradictions {
    fn note(&mut self, table: &'static str, key: String, stored: Value, expected: Value) {
        if stored != expected {
            self.count += 1;
            if self.told.len() < CONTRADICTIONS_MAX {
                self.told.push(Contradiction { table, key, stored, expected });
            }
        }
    }
}

impl PostgresViews {
    /// What the tables of a tenant hold now.
    pub async fn stored(&self, tenant: &str) -> Result<Stored, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        migrations::check(session.client()).await?;
        session.become_writer().await?;
        session.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        session.begin(MUCH_MEMORY).await?;
        // Whoever compares it with the log reads that first, however long it is.
        session.begin("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        let generation = super::use_target(&mut session, self.target).await?;
        Ok(Stored { session, tenant: tenant.to_owned(), generation })
    }
}

impl Stored {
    /// Where the tenant stands.
    pub async fn resume(&mut self) -> Result<Resume, ViewsError> {
        state::resume(&mut self.session, &self.tenant, self.generation).await
    }

    /// The rules that the generation was built with; none before its first writer.
    pub async fn rules(&mut self) -> Result<Option<Rules>, ViewsError> {
        let select = format!(
            "SELECT rules FROM serviceradar_base.pipeline_generations WHERE id = {}",
            self.generation
        );
        super::rules_of(&mut self.session, &select).await
    }

    /// The generation's fingerprint; empty before its first writer.
    pub async fn fingerprint(&mut self) -> Result<String, ViewsError> {
        let select =
            "SELECT coalesce(fingerprint, '') FROM serviceradar_base.pipeline_generations WHERE id = $1";
        Ok(self.session.query_one(select, &[&self.generation]).await?.get(0))
    }

    /// The sums of tables as the epochs kept them.
    pub async fn kept_sums(&mut self) -> Result<Sums, ViewsError> {
        sums::read(&mut self.session, &self.tenant, self.generation).await
    }

    /// Topic, log partition and offset of the events that epochs refused.
    pub async fn refusals(&mut self) -> Result<BTreeSet<(String, u32, u64)>, ViewsError> {
        let select = "SELECT topic, log_partition, log_offset FROM pipeline_refusals
                      WHERE tenant = $1 AND generation = $2";
        let rows = self.session.query(select, &[&self.tenant, &self.generation]).await?;
        let place = |row: &Row| {
            (row.get(0), row.get::<_, i32>(1).cast_unsigned(), row.get::<_, i64>(2).cast_unsigned())
        };
        Ok(rows.iter().map(place).collect())
    }

    /// All rows, in pieces, as new ones, until whoever takes them has gone. Devices come without their sources, which
    /// follow from records. Returns where rows contradict each other.
    pub async fn rows(&mut self, put: &mpsc::Sender<EpochOutput>) -> Result<Contradictions, ViewsError> {
        let mut found = Contradictions::default();
        let devices = self.devices(put, &mut found).await?;
        self.halves(["device_summaries", "device_details"], "'sr:' || uid", devices, &mut found).await?;
        self.together(&mut found).await?;
        self.parts_of_keys(&mut found).await?;
        self.evidence(put).await?;
        let mut rest = EpochOutput::default();
        rest.issues.new = self.issues().await?;
        rest.counts.new = self.counts().await?;
        let (give, mut take) = mpsc::channel::<State>(PIECES_WAITING);
        let mut records = 0;
        let passing = async {
            while let Some(mut piece) = take.recv().await {
                records += piece.records.len();
                let mut output = EpochOutput::default();
                for row in &mut piece.records {
                    if let Some(canonical) = canonical_attributes(&row.attributes) {
                        row.attributes = canonical;
                    }
                }
                output.records.new = piece.records;
                output.decisions.new = piece.decisions;
                output.snapshots.new = piece.snapshots;
                output.snapshot_members.new = piece.snapshot_members;
                output.watermarks.new = piece.watermarks;
                if put.send(output).await.is_err() {
                    return;
                }
            }
        };
        let read = async {
            let (session, tenant) = (&mut self.session, &self.tenant);
            let read = state::read_but_evidence(session, tenant, self.generation, &give).await;
            drop(give);
            read
        };
        let (read, ()) = tokio::join!(read, passing);
        read?;
        self.halves(["record_summaries", "record_attributes"], "record_key", records, &mut found).await?;
        // Whoever has gone needs none.
        let _ = put.send(rest).await;
        Ok(found)
    }

    /// Notes where of columns that are empty all or none some are.
    async fn together(&mut self, found: &mut Contradictions) -> Result<(), ViewsError> {
        for (table, groups) in TOGETHER {
            let empty: Vec<String> =
                groups.iter().map(|columns| format!("num_nulls({})", columns.join(", "))).collect();
            let is_part =
                |(empty, columns): (&String, &&[&str])| format!("{empty} NOT IN (0, {})", columns.len());
            let are_part: Vec<String> = empty.iter().zip(groups).map(is_part).collect();
            let select = format!(
                "SELECT record_key, {} FROM {table} WHERE tenant = $1 AND ({})",
                empty.join(", "),
                are_part.join(" OR ")
            );
            for row in self.session.query(&select, &[&self.tenant]).await? {
                for (at, columns) in groups.iter().enumerate() {
                    let empty: i32 = row.get(at + 1);
                    if empty != 0 && usize::try_from(empty) != Ok(columns.len()) {
                        let stored = json!(format!("{empty} of {} are empty", columns.join(", ")));
                        found.note(table, row.get(0), stored, json!("all of them, or none"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes of two tables that are one row by row where a row has no other half, if not all have one: that many rows were
    /// read of both together.
    async fn halves(
        &mut self,
        [one, other]: [&'static str; 2],
        key: &str,
        whole: usize,
        found: &mut Contradictions,
    ) -> Result<(), ViewsError> {
        let count = |table| format!("(SELECT count(*) FROM {table} WHERE tenant = $1)");
        let counts = format!("SELECT {}, {}", count(one), count(other));
        let counts = self.session.query_one(&counts, &[&self.tenant]).await?;
        if (0..2).all(|at| counts.get::<_, i64>(at) == whole as i64) {
            return Ok(());
        }
        for (table, without) in [(one, other), (other, one)] {
            let column = key.rsplit(' ').next().unwrap_or(key);
            let select = format!(
                "SELECT {key} FROM {table} t WHERE tenant = $1 AND NOT EXISTS
                 (SELECT FROM {without} w WHERE w.tenant = t.tenant AND w.{column} = t.{column})"
            );
            for row in self.session.query(&select, &[&self.tenant]).await? {
                found.note(without, row.get(0), Value::Null, json!(format!("a row: {table} has one")));
            }
        }
        Ok(())
    }

    /// Reads the devices; returns how many there are.
    async fn devices(
        &mut self,
        put: &mpsc::Sender<EpochOutput>,
        found: &mut Contradictions,
    ) -> Result<usize, ViewsError> {
        let columns = devices::DEVICE_COLUMNS.replace(" sources,", " '[]'::jsonb AS sources,");
        let searched: Vec<String> =
            SearchRow::REST.iter().map(|column| format!("{column} AS search_{column}")).collect();
        let select = format!(
            "SELECT {columns}, last_seen_period, date_bin('10 seconds', last_seen, '1970-01-01Z'), searched.*
            FROM devices FULL JOIN (SELECT tenant, uid, {} FROM device_search WHERE tenant = $1) AS searched
                USING (tenant, uid)
            WHERE tenant = $1 AND (partition IS NULL OR hw_info IS NOT NULL)",
            searched.join(", ")
        );
        let rows = self.session.client().query_raw(&select, [&self.tenant]).await.map_err(views_error)?;
        let mut rows = pin!(rows);
        let mut piece = EpochOutput::default();
        let mut count = 0;
        while let Some(row) = rows.try_next().await.map_err(views_error)? {
            if row.get::<_, Option<&str>>(1).is_none() {
                let key = serviceradar_streams::rows::Uid(row.get(0)).to_string();
                found.note("device_search", key, json!("a row"), json!("none: there is no such device"));
                continue;
            }
            let (device, _) = devices::device(&row)?;
            is_searched(&row, &device, found).map_err(views_error)?;
            let period = |at| state::micros(&row, PERIODS_AT + at).map_err(views_error);
            let (stored, expected) = (period(0)?, period(1)?);
            if stored != expected {
                let table = "device_summaries (last_seen_period)";
                found.note(table, device.uid.clone(), json!(stored), json!(expected));
            }
            piece.devices.new.push(device);
            count += 1;
            if piece.devices.new.len() == DEVICES_IN_PIECE
                && put.send(std::mem::take(&mut piece)).await.is_err()
            {
                return Ok(count);
            }
        }
        let _ = put.send(piece).await;
        Ok(count)
    }

    /// Records repeat the parts of their keys in columns of their own.
    async fn parts_of_keys(&mut self, found: &mut Contradictions) -> Result<(), ViewsError> {
        let select = "SELECT record_key, concat_ws('/', partition, source_kind, source_instance, native_key)
            FROM record_summaries WHERE tenant = $1
            AND record_key <> concat_ws('/', partition, source_kind, source_instance, native_key)";
        for row in self.session.query(select, &[&self.tenant]).await? {
            let (key, parts): (String, String) = (row.get(0), row.get(1));
            found.note("record_summaries (parts of the key)", key.clone(), json!(parts), json!(key));
        }
        Ok(())
    }

    async fn evidence(&mut self, put: &mpsc::Sender<EpochOutput>) -> Result<(), ViewsError> {
        let select = format!("SELECT {} FROM device_evidence WHERE tenant = $1", state::EVIDENCE_COLUMNS);
        let rows = self.session.client().query_raw(&select, [&self.tenant]).await.map_err(views_error)?;
        let mut rows = pin!(rows);
        let mut piece = EpochOutput::default();
        while let Some(row) = rows.try_next().await.map_err(views_error)? {
            piece.evidence.new.push(state::evidence_row(&row)?);
            if piece.evidence.new.len() == EVIDENCE_IN_PIECE
                && put.send(std::mem::take(&mut piece)).await.is_err()
            {
                return Ok(());
            }
        }
        let _ = put.send(piece).await;
        Ok(())
    }

    async fn issues(&mut self) -> Result<Vec<IssueRow>, ViewsError> {
        let select =
            "SELECT partition, kind, namespace, value, uids, detail FROM identity_issues WHERE tenant = $1";
        let read = |row: &Row| {
            let kind: &str = row.get(1);
            let known = IssueRow::KINDS.into_iter().find(|known| *known == kind);
            Ok(IssueRow {
                partition: row.get::<_, &str>(0).into(),
                kind: known.ok_or_else(|| no_such("identity_issues", "kind", kind))?,
                namespace: row.get::<_, &str>(2).into(),
                value: row.get::<_, &str>(3).into(),
                uids: row
                    .get::<_, Vec<uuid::Uuid>>(4)
                    .into_iter()
                    .map(serviceradar_streams::rows::Uid)
                    .collect(),
                detail: row.get(5),
            })
        };
        self.session.query(select, &[&self.tenant]).await?.iter().map(read).collect()
    }

    async fn counts(&mut self) -> Result<Vec<CountRow>, ViewsError> {
        let select = "SELECT partition, dimension, value, devices, available, unavailable, unknown
            FROM device_counts WHERE tenant = $1";
        let read = |row: &Row| {
            let dimension: &str = row.get(1);
            let known = CountRow::DIMENSIONS.into_iter().find(|known| *known == dimension);
            Ok(CountRow {
                partition: row.get::<_, &str>(0).into(),
                dimension: known.ok_or_else(|| no_such("device_counts", "dimension", dimension))?,
                value: row.get::<_, &str>(2).into(),
                devices: row.get(3),
                available: row.get(4),
                unavailable: row.get(5),
                unknown: row.get(6),
            })
        };
        self.session.query(select, &[&self.tenant]).await?.iter().map(read).collect()
    }
}

/// Notes where what searches of a device go by is not what the device says.
fn is_searched(
    row: &Row,
    device: &DeviceRow,
    found: &mut Contradictions,
) -> Result<(), tokio_postgres::Error> {
    let text = |at| row.try_get::<_, Option<&str>>(SEARCH_AT + at);
    let (words, addresses) = (words_of(device), addresses_of(device));
    let ip = address(row, SEARCH_AT + 4)?.map(|ip| ip.to_string());
    let stored = (
        (text(0)?, text(1)?, text(2)?, text(3)?, ip.as_deref(), text(5)?, text(6)?, text(7)?, text(8)?),
        row.try_get::<_, Option<Vec<&str>>>(SEARCH_AT + 9)?,
    );
    let expected = (
        (
            Some(&*words),
            Some(&*addresses),
            device.name.as_deref(),
            device.hostname.as_deref(),
            device.ip.as_deref(),
            Some(&*device.r#type),
            device.vendor_name.as_deref(),
            device.site.as_deref(),
            Some(&*device.state),
        ),
        Some(device.discovery_sources.iter().map(String::as_str).collect::<Vec<_>>()),
    );
    if stored != expected {
        let stored = if stored.0.0.is_some() { json!(stored) } else { Value::Null };
        found.note(SearchRow::TABLE, device.uid.clone(), stored, json!(expected));
    }
    Ok(())
}

fn no_such(table: &str, column: &str, found: &str) -> ViewsError {
    ViewsError::Refused(format!("{table} has the {column} {found:?}, which is none"))
}
