//! Where a tenant stands, read back from its views at one moment.

use std::{collections::HashMap, error::Error, net::IpAddr, pin::pin, sync::Arc};

use cidr::IpInet;
use futures_util::TryStreamExt;
use serviceradar_schemas::{Collector, Decision, Source, Target};
use serviceradar_streams::rows::{
    DecisionRow, EvidenceRow, EvidenceSpan, EvidenceState, Order, Placement, RecordRow, SnapshotMemberRow,
    SnapshotRow, State, Uid, WatermarkRow,
};
use tokio::sync::mpsc;
use tokio_postgres::{
    Row,
    types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked},
};
use uuid::Uuid;

use super::{
    copy::POSTGRES_EPOCH,
    session::{Session, views_error},
};
use crate::views::{Frontier, Resume, ViewsError, Witness};

/// An instant of the database: microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Micros(pub(crate) i64);

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?).saturating_add(POSTGRES_EPOCH)))
    }

    accepts!(TIMESTAMPTZ);
}

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0.saturating_sub(POSTGRES_EPOCH).to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

/// Rows of records in a piece of the state, and of evidence: a megabyte or two.
const RECORDS_IN_PIECE: usize = 2_000;
const EVIDENCE_IN_PIECE: usize = 10_000;

/// Reads where a tenant stands.
pub(crate) async fn resume(
    session: &mut Session,
    tenant: &str,
    generation: i32,
) -> Result<Resume, ViewsError> {
    let last = "SELECT coalesce(max(epoch), 0) FROM pipeline_epochs WHERE tenant = $1 AND generation = $2";
    let epoch: i64 = session.query_one(last, &[&tenant, &generation]).await?.get(0);
    let frontiers = Reader { tenant, generation, whole: "" }.frontiers(session).await?;
    Ok(Resume { epoch: epoch.cast_unsigned(), generation, frontiers, is_live: true, ..Resume::default() })
}

/// Reads the state of the dataflow, piece by piece: none but the writer that asks could change it meanwhile.
pub(crate) async fn read(
    session: &mut Session,
    tenant: &str,
    generation: i32,
    put: &mpsc::Sender<State>,
) -> Result<(), ViewsError> {
    let reader = Reader { tenant, generation, whole: "" };
    reader.records(session, put).await?;
    reader.evidence(session, put).await?;
    reader.rest(session, put).await
}

/// The same, but for evidence, and for records that have lost their attributes.
pub(crate) async fn read_but_evidence(
    session: &mut Session,
    tenant: &str,
    generation: i32,
    put: &mpsc::Sender<State>,
) -> Result<(), ViewsError> {
    let reader = Reader { tenant, generation, whole: "AND attributes IS NOT NULL" };
    reader.records(session, put).await?;
    reader.rest(session, put).await
}
/// A row, whose key begins with its first column, that no epoch wrote.
fn unreadable(row: &Row, error: &tokio_postgres::Error) -> ViewsError {
    let key: &str = row.try_get(0).unwrap_or_default();
    ViewsError::Refused(format!("the row of {key:?} cannot be read: {error}"))
}

struct Reader<'a> {
    tenant: &'a str,
    generation: i32,
    /// Which records are read, as SQL; empty for all.
    whole: &'static str,
}

impl Reader<'_> {
    /// All rows of a query whose one parameter is the tenant.
    async fn rows<T>(
        &self,
        session: &mut Session,
        sql: &str,
        read: impl FnMut(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Vec<T>, ViewsError> {
        let rows = session.query(sql, &[&self.tenant]).await?;
        rows.iter().map(read).collect::<Result<_, _>>().map_err(views_error)
    }

    /// The same, as they come, in pieces of the state.
    async fn pieces<T>(
        &self,
        session: &mut Session,
        sql: &str,
        mut read: impl FnMut(&Row) -> Result<T, tokio_postgres::Error>,
        (in_piece, state): (usize, fn(Vec<T>) -> State),
        put: &mpsc::Sender<State>,
    ) -> Result<(), ViewsError> {
        let rows = session.client().query_raw(sql, [self.tenant]).await.map_err(views_error)?;
        let mut rows = pin!(rows);
        let mut piece = Vec::with_capacity(in_piece);
        while let Some(row) = rows.try_next().await.map_err(views_error)? {
            piece.push(read(&row).map_err(|error| unreadable(&row, &error))?);
            if piece.len() == in_piece {
                let piece = std::mem::replace(&mut piece, Vec::with_capacity(in_piece));
                // Whoever has gone needs none.
                if put.send(state(piece)).await.is_err() {
                    return Ok(());
                }
            }
        }
        let _ = put.send(state(piece)).await;
        Ok(())
    }

    async fn records(&self, session: &mut Session, put: &mpsc::Sender<State>) -> Result<(), ViewsError> {
        let select = format!("SELECT {RECORD_COLUMNS} FROM device_records WHERE tenant = $1 {}", self.whole);
        let mut collectors = Collectors::new();
        let read = |row: &Row| record_row(row, &mut collectors);
        let state = |records| State { records, ..State::default() };
        self.pieces(session, &select, read, (RECORDS_IN_PIECE, state), put).await
    }

    async fn evidence(&self, session: &mut Session, put: &mpsc::Sender<State>) -> Result<(), ViewsError> {
        let select =
            "SELECT record_key, namespace, value, first_seen, first_asserted, last_time, last_hash, last_seen
            FROM device_evidence WHERE tenant = $1";
        // Rows of one record mostly follow each other, and namespaces are few.
        let mut key: Arc<str> = "".into();
        let mut namespaces: HashMap<String, Arc<str>> = HashMap::new();
        let read = |row: &Row| {
            let record_key: &str = row.try_get(0)?;
            if *key != *record_key {
                key = record_key.into();
            }
            let namespace: &str = row.try_get(1)?;
            if !namespaces.contains_key(namespace) {
                namespaces.insert(namespace.to_owned(), namespace.into());
            }
            Ok(EvidenceSpan {
                record_key: key.clone(),
                namespace: namespaces[namespace].clone(),
                value: row.try_get::<_, &str>(2)?.into(),
                first_seen: row.try_get::<_, Micros>(3)?.0,
                first_asserted: row.try_get::<_, Micros>(4)?.0,
                last: order(row, 5)?.zip(micros(row, 7)?).map(Box::new),
            })
        };
        let state = |evidence| State { evidence, ..State::default() };
        self.pieces(session, select, read, (EVIDENCE_IN_PIECE, state), put).await
    }

    /// All but records and evidence.
    async fn rest(&self, session: &mut Session, put: &mpsc::Sender<State>) -> Result<(), ViewsError> {
        let rest = State {
            decisions: self.decisions(session).await?,
            snapshots: self.snapshots(session).await?,
            snapshot_members: self.snapshot_members(session).await?,
            watermarks: self.watermarks(session).await?,
            ..State::default()
        };
        // Whoever has gone needs none.
        let _ = put.send(rest).await;
        Ok(())
    }

    async fn decisions(&self, session: &mut Session) -> Result<Vec<DecisionRow>, ViewsError> {
        let select = format!("SELECT {DECISION_COLUMNS} FROM decisions WHERE tenant = $1 ORDER BY id");
        let rows = session.query(&select, &[&self.tenant]).await?;
        rows.iter().map(decision_row).collect()
    }

    async fn snapshots(&self, session: &mut Session) -> Result<Vec<SnapshotRow>, ViewsError> {
        let select = "SELECT partition, source_kind, source_instance, begin, id, counted, members, ended_at,
                verdict, detail
            FROM snapshots WHERE tenant = $1";
        self.rows(session, select, |row| {
            Ok(SnapshotRow {
                partition: row.try_get::<_, &str>(0)?.into(),
                source: source(row, 1)?,
                begin: row.try_get::<_, Micros>(3)?.0,
                id: row.try_get(4)?,
                counted: row.try_get(5)?,
                members: row.try_get(6)?,
                ended_at: micros(row, 7)?,
                verdict: row.try_get::<_, Option<&str>>(8)?.map(|verdict| match verdict {
                    "accepted" => "accepted",
                    _ => "held",
                }),
                detail: row.try_get(9)?,
            })
        })
        .await
    }

    async fn snapshot_members(&self, session: &mut Session) -> Result<Vec<SnapshotMemberRow>, ViewsError> {
        let select = "SELECT partition, source_kind, source_instance, begin, record_key
            FROM snapshot_members WHERE tenant = $1";
        let mut partitions: HashMap<String, Arc<str>> = HashMap::new();
        self.rows(session, select, |row| {
            let partition: String = row.try_get(0)?;
            let partition = partitions.entry(partition).or_insert_with_key(|name| name.as_str().into());
            Ok(SnapshotMemberRow {
                partition: partition.clone(),
                source: source(row, 1)?,
                begin: row.try_get::<_, Micros>(3)?.0,
                record_key: row.try_get::<_, &str>(4)?.into(),
            })
        })
        .await
    }

    async fn watermarks(&self, session: &mut Session) -> Result<Vec<WatermarkRow>, ViewsError> {
        let select = "SELECT partition, at FROM pipeline_watermarks WHERE tenant = $1 AND generation = $2";
        let rows = session.query(select, &[&self.tenant, &self.generation]).await?;
        let read = |row: &Row| {
            let partition: &str = row.get(0);
            WatermarkRow {
                partition: (!partition.is_empty()).then(|| partition.into()),
                at: row.get::<_, Micros>(1).0,
            }
        };
        Ok(rows.iter().map(read).collect())
    }

    async fn frontiers(&self, session: &mut Session) -> Result<Vec<Frontier>, ViewsError> {
        let select =
            "SELECT topic, log_partition, next_offset, intake_max, witness_offset, witness_time, witness_hash
            FROM pipeline_frontiers WHERE tenant = $1 AND generation = $2 ORDER BY topic, log_partition";
        let rows = session.query(select, &[&self.tenant, &self.generation]).await?;
        let read = |row: &Row| {
            let witness = || {
                Some(Witness {
                    offset: row.get::<_, Option<i64>>(4)?.cast_unsigned(),
                    append_time: row.get::<_, Option<Micros>>(5)?.0,
                    hash: row.get::<_, Option<i64>>(6)?,
                })
            };
            Frontier {
                topic: row.get(0),
                log_partition: row.get::<_, i32>(1).cast_unsigned(),
                next_offset: row.get::<_, i64>(2).cast_unsigned(),
                intake_max: row.get::<_, Option<Micros>>(3).map_or(i64::MIN, |at| at.0),
                witness: witness(),
            }
        };
        Ok(rows.iter().map(read).collect())
    }
}

/// What [`record_row`] reads of `device_records`.
pub(crate) const RECORD_COLUMNS: &str =
    "record_key, uid, placement, open, first_seen, last_seen, first_asserted,
    attributes::text, probe_up, probe_at, collector_agent, collector_gateway, collector_address,
    first_snapshot_begin, place, place_time, place_hash, assert_time, assert_hash, assert_event_time,
    full_time, full_hash, full_event_time, end_time, end_hash, last_snapshot_begin";

/// Collectors by agent, gateway and address: few.
pub(crate) type Collectors = HashMap<(String, String, String), Arc<Collector>>;

/// Reads a record.
pub(crate) fn record_row(row: &Row, collectors: &mut Collectors) -> Result<RecordRow, tokio_postgres::Error> {
    Ok(RecordRow {
        record_key: row.try_get::<_, &str>(0)?.into(),
        uid: row.try_get::<_, Option<Uuid>>(1)?.map(Uid),
        placement: placement(row.try_get(2)?),
        open: row.try_get(3)?,
        first_seen: micros(row, 4)?,
        last_seen: micros(row, 5)?,
        first_asserted: micros(row, 6)?,
        attributes: row.try_get::<_, &str>(7)?.into(),
        probe: row.try_get::<_, Option<bool>>(8)?.zip(micros(row, 9)?),
        collector: collector(row, collectors)?,
        first_snapshot_begin: micros(row, 13)?,
        place: address(row, 14)?.zip(order(row, 15)?),
        last_assert: order(row, 17)?.zip(micros(row, 19)?),
        last_full: order(row, 20)?.zip(micros(row, 22)?),
        last_end: order(row, 23)?,
        last_snapshot_begin: micros(row, 25)?,
    })
}

fn collector(row: &Row, known: &mut Collectors) -> Result<Option<Arc<Collector>>, tokio_postgres::Error> {
    let Some(agent) = row.try_get::<_, Option<String>>(10)? else {
        return Ok(None);
    };
    let key = (agent, row.try_get(11)?, row.try_get(12)?);
    let collector = known.entry(key).or_insert_with_key(|(agent, gateway, address)| {
        Arc::new(Collector { agent: agent.clone(), gateway: gateway.clone(), address: address.clone() })
    });
    Ok(Some(collector.clone()))
}

/// What [`evidence_row`] reads of `device_evidence`.
pub(crate) const EVIDENCE_COLUMNS: &str =
    "record_key, namespace, value, claim_uid, ip, state, leads, first_seen,
    first_asserted, last_time, last_hash, last_seen";

/// Reads a row of evidence, whole.
pub(crate) fn evidence_row(row: &Row) -> Result<EvidenceRow, ViewsError> {
    let word: &str = row.try_get(5).map_err(views_error)?;
    let state = EvidenceState::of_word(word)
        .ok_or_else(|| ViewsError::Refused(format!("evidence has the state {word:?}, which is none")))?;
    let read = || {
        Ok(EvidenceRow {
            record_key: row.try_get::<_, &str>(0)?.into(),
            namespace: row.try_get::<_, &str>(1)?.into(),
            value: row.try_get::<_, &str>(2)?.into(),
            claim_uid: row.try_get(3)?,
            ip: address(row, 4)?,
            state,
            leads: row.try_get(6)?,
            first_seen: row.try_get::<_, Micros>(7)?.0,
            first_asserted: row.try_get::<_, Micros>(8)?.0,
            last: order(row, 9)?.zip(micros(row, 11)?),
        })
    };
    read().map_err(|error| unreadable(row, &error))
}

/// What [`decision_row`] reads of `decisions`.
pub(crate) const DECISION_COLUMNS: &str =
    "id, partition, action, target, value, revokes, in_force, actor, reason, at";

/// Reads a decision.
pub(crate) fn decision_row(row: &Row) -> Result<DecisionRow, ViewsError> {
    let read = || {
        let target: serde_json::Value = row.try_get(3)?;
        let at = row.try_get::<_, Micros>(9)?.0;
        let decision = Decision {
            id: row.try_get(0)?,
            event_time: at,
            partition: row.try_get(1)?,
            action: row.try_get(2)?,
            target: Target::default(),
            value: row.try_get(4)?,
            revokes: row.try_get(5)?,
            actor: row.try_get(7)?,
            reason: row.try_get(8)?,
        };
        Ok((target, DecisionRow { decision, at, in_force: row.try_get(6)? }))
    };
    let (target, mut decided) = read().map_err(views_error)?;
    decided.decision.target = serde_json::from_value(target).map_err(|error| {
        ViewsError::Refused(format!("decision {:?} has an unreadable target: {error}", decided.decision.id))
    })?;
    Ok(decided)
}

pub(crate) fn micros(row: &Row, at: usize) -> Result<Option<i64>, tokio_postgres::Error> {
    Ok(row.try_get::<_, Option<Micros>>(at)?.map(|at| at.0))
}

pub(crate) fn address(row: &Row, at: usize) -> Result<Option<IpAddr>, tokio_postgres::Error> {
    Ok(row.try_get::<_, Option<IpInet>>(at)?.map(|ip| ip.address()))
}

pub(crate) fn order(row: &Row, at: usize) -> Result<Option<Order>, tokio_postgres::Error> {
    let Some(time) = micros(row, at)? else {
        return Ok(None);
    };
    let hash: i64 = row.try_get(at + 1)?;
    Ok(Some(Order { time, hash: hash.cast_unsigned() }))
}

pub(crate) fn source(row: &Row, at: usize) -> Result<Source, tokio_postgres::Error> {
    Ok(Source { kind: row.try_get(at)?, instance: row.try_get(at + 1)? })
}

fn placement(word: &str) -> Placement {
    use Placement::{Anchored, Attached, Closed, Provisional, Unplaced};
    [Anchored, Attached, Provisional, Closed].into_iter().find(|p| p.as_str() == word).unwrap_or(Unplaced)
}
