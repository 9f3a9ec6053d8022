//! Inventory: what the views say of a tenant, read as its readers read it: by the isolating views, as
//! `serviceradar_reader`.

use std::collections::BTreeMap;

use serde_json::Value;
use serviceradar_schemas::Decision;

use crate::{
    postgres::{
        session::{Session, views_error},
        state::{self, DECISION_COLUMNS, Micros, decision_row},
    },
    views::{Resume, ViewsError},
};

/// A question about the inventory of a tenant, and the SQL that answers it.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// What is asked.
    pub title: &'static str,
    /// One statement over the views of schema `serviceradar`, without parameters.
    pub sql: &'static str,
}

/// What to know of an inventory that has just been made.
pub const FINDINGS: [Question; 9] = [
    Question {
        title: "Devices by type",
        sql: "SELECT value AS type, devices, available, unavailable, unknown
FROM device_counts WHERE dimension = 'type' ORDER BY devices DESC, value LIMIT 15",
    },
    Question {
        title: "Devices by vendor",
        sql: "SELECT value AS vendor, devices
FROM device_counts WHERE dimension = 'vendor_name' ORDER BY devices DESC, value LIMIT 15",
    },
    Question {
        title: "Records, and the devices that they became",
        sql: "SELECT source_kind || '/' || source_instance AS source, placement, count(*) AS records, count(DISTINCT uid) AS devices
FROM device_records GROUP BY 1, 2 ORDER BY 1, 2",
    },
    Question {
        title: "What was merged: devices by the sources that know them",
        sql: "SELECT array_to_string(discovery_sources, ' + ') AS sources, confidence, count(*) AS devices, sum(records) AS records
FROM devices GROUP BY 1, 2 ORDER BY devices DESC, sources, confidence",
    },
    Question {
        title: "Why: what each kind of claim does",
        sql: "SELECT namespace, state, count(*) AS claims, count(DISTINCT record_key) AS records
FROM device_evidence GROUP BY 1, 2 ORDER BY 1, 2",
    },
    Question {
        title: "For example: records that share a claim, and so are one device",
        sql: "WITH merged AS (
  SELECT uid FROM device_records WHERE placement = 'anchored'
  GROUP BY uid HAVING count(DISTINCT source_kind) > 1 ORDER BY count(*) DESC, uid LIMIT 3)
SELECT 'sr:' || uid AS device, d.name, i.namespace || ' ' || i.value AS claim,
       string_agg(i.record_key, ', ' ORDER BY i.record_key) AS records
FROM merged JOIN devices d USING (uid) JOIN device_identifiers i USING (uid) WHERE i.state = 'linking'
GROUP BY 1, 2, 3 HAVING count(*) > 1 ORDER BY 1, 3",
    },
    Question {
        title: "Conflicts: what the rules refused or flagged",
        sql: "SELECT kind, namespace, count(*) AS issues, min(value) AS example, min(detail) AS detail
FROM identity_issues GROUP BY 1, 2 ORDER BY 1, 2",
    },
    Question {
        title: "Conflicts: addresses that several devices hold",
        sql: "SELECT count(*) AS addresses, host(min(ip)) AS example FROM address_conflicts",
    },
    Question {
        title: "Unplaced: records that nothing says whose they are, and what became of their claims",
        sql: "SELECT source, states, count(*) AS records, min(record_key) AS example
FROM (
  SELECT r.source_kind || '/' || r.source_instance AS source, r.record_key,
         string_agg(DISTINCT e.namespace || ' ' || e.state, ', ' ORDER BY e.namespace || ' ' || e.state) AS states
  FROM device_records r LEFT JOIN device_evidence e USING (record_key)
  WHERE r.placement = 'unplaced' GROUP BY 1, 2) AS unplaced
GROUP BY 1, 2 ORDER BY records DESC, source, states",
    },
];

/// Queries worth running in `psql`.
pub const WORTH_RUNNING: [Question; 3] = [
    Question {
        title: "Why are these records one device? The one with the most records, claim by claim",
        sql: "SELECT d.name, i.record_key, i.namespace, i.value, i.state
FROM devices d JOIN device_identifiers i USING (uid)
WHERE d.uid = (SELECT uid FROM devices ORDER BY cardinality(discovery_sources) DESC, records DESC, uid LIMIT 1)
ORDER BY i.namespace, i.value, i.record_key",
    },
    Question {
        title: "Where was it? Every address that the device with the most of them ever had",
        sql: "SELECT d.name, a.ip, a.is_current, a.record_key, a.first_seen, a.last_seen
FROM devices d JOIN device_addresses a USING (uid)
WHERE d.uid = (SELECT uid FROM device_addresses GROUP BY uid ORDER BY count(DISTINCT ip) DESC, uid LIMIT 1)
ORDER BY a.last_seen DESC, a.ip, a.record_key",
    },
    Question {
        title: "What is most at risk, and where?",
        sql: "SELECT site, type, vendor_name, count(*) AS devices, max(risk_score) AS risk
FROM devices WHERE risk_level IN ('High', 'Critical')
GROUP BY site, type, vendor_name ORDER BY risk DESC, devices DESC, site, type, vendor_name LIMIT 20",
    },
];

/// What a question was answered with.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows, a value per column.
    pub rows: Vec<Vec<Value>>,
}

/// Most fetches that are told to be held.
const HELD_MAX: i64 = 100;

/// A fetch that ends nothing, because the guard or an operator held it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Held {
    /// The partition.
    pub partition: String,
    /// `kind/instance`.
    pub source: String,
    /// When it began.
    #[serde(with = "serviceradar_schemas::time::rfc3339")]
    pub begin: i64,
    /// Why, in words.
    pub why: String,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Devices.
    pub devices: i64,
    /// Devices that hold a record of the source kind asked for.
    pub devices_of_kind: i64,
    /// Records.
    pub records: i64,
}

/// A session that reads one tenant.
pub struct Inventory {
    pub(crate) session: Session,
    tenant: String,
}

impl Inventory {
    /// Reads a tenant's views in the database at `postgresql://…`. The role of the URL must be allowed to
    /// become `serviceradar_reader`.
    pub async fn connect(url: &str, tenant: &str) -> Result<Self, ViewsError> {
        let mut session = Session::connect(url).await?;
        let settings = "SET ROLE serviceradar_reader;
            SET default_transaction_read_only = on;
            SET search_path = serviceradar";
        session.client().batch_execute(settings).await.map_err(views_error)?;
        session.execute("SELECT set_config('serviceradar.tenant', $1, false)", &[&tenant]).await?;
        Ok(Self { session, tenant: tenant.to_owned() })
    }

    /// Where the tenant stands in the active generation.
    pub async fn standing(&mut self) -> Result<Resume, ViewsError> {
        let select = "SELECT id FROM pipeline_generations WHERE state = 'active'";
        let generation = self.session.query_one(select, &[]).await?.get(0);
        state::resume(&mut self.session, &self.tenant, generation).await
    }

    /// Asks a question.
    pub async fn ask(&mut self, question: Question) -> Result<Answer, ViewsError> {
        let statement = self.session.client().prepare(question.sql).await.map_err(views_error)?;
        let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
        // json, not jsonb: it keeps the order of the columns.
        let as_json = format!(
            "SELECT (SELECT json_agg(value) FROM json_each(row_to_json(asked))) FROM ({}) AS asked",
            question.sql
        );
        let rows = self.session.query(&as_json, &[]).await?;
        let rows = rows.iter().map(|row| match row.get(0) {
            Value::Array(values) => values,
            other => vec![other],
        });
        Ok(Answer { columns, rows: rows.collect() })
    }

    /// How many there are; `kind` is the kind of source that is counted apart.
    pub async fn totals(&mut self, kind: &str) -> Result<Totals, ViewsError> {
        let select = "SELECT (SELECT count(*) FROM devices),
            (SELECT count(*) FROM devices d WHERE EXISTS
              (SELECT FROM device_records r WHERE r.uid = d.uid AND r.source_kind = $1)),
            (SELECT count(*) FROM device_records)";
        let row = self.session.query_one(select, &[&kind]).await?;
        Ok(Totals { devices: row.get(0), devices_of_kind: row.get(1), records: row.get(2) })
    }

    /// Per partition, in their order: how many devices there are, and how many of them are retired.
    pub async fn devices(&mut self) -> Result<Vec<(String, u64, u64)>, ViewsError> {
        let select = "SELECT partition, sum(devices) FILTER (WHERE dimension = 'all')::bigint,
                coalesce(sum(devices) FILTER (WHERE dimension = 'state'), 0)::bigint
            FROM device_counts WHERE dimension = 'all' OR (dimension = 'state' AND value = 'retired')
            GROUP BY partition ORDER BY partition";
        let rows = self.session.query(select, &[]).await?;
        let count = |row: &tokio_postgres::Row, at: usize| row.get::<_, Option<i64>>(at).unwrap_or_default();
        let read = |row: &tokio_postgres::Row| {
            (row.get(0), count(row, 1).unsigned_abs(), count(row, 2).unsigned_abs())
        };
        Ok(rows.iter().map(read).collect())
    }

    /// The fetches that were held, and that no later one of their source was accepted over: they end nothing.
    pub async fn held(&mut self) -> Result<Vec<Held>, ViewsError> {
        let select = "SELECT h.partition, h.source_kind || '/' || h.source_instance, h.begin, h.detail
            FROM snapshots h WHERE h.verdict = 'held' AND NOT EXISTS (
                SELECT FROM snapshots a WHERE a.partition = h.partition AND a.source_kind = h.source_kind
                    AND a.source_instance = h.source_instance AND a.verdict = 'accepted' AND a.begin > h.begin)
            ORDER BY h.partition, 2, h.begin DESC LIMIT $1";
        let rows = self.session.query(select, &[&HELD_MAX]).await?;
        let read = |row: &tokio_postgres::Row| Held {
            partition: row.get(0),
            source: row.get(1),
            begin: row.get::<_, Micros>(2).0,
            why: row.get(3),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// All decisions, in force or not, as they stand in the log but for their times: they are clamped.
    pub async fn decisions(&mut self) -> Result<Vec<Decision>, ViewsError> {
        let select = format!("SELECT {DECISION_COLUMNS} FROM decisions ORDER BY at, id");
        let rows = self.session.query(&select, &[]).await?;
        rows.iter().map(|row| decision_row(row).map(|row| row.decision)).collect()
    }

    /// The names of devices, of those that are there and have one.
    pub async fn names(&mut self, uids: &[uuid::Uuid]) -> Result<Vec<(uuid::Uuid, String)>, ViewsError> {
        let select = "SELECT uid, name FROM devices WHERE uid = ANY ($1) AND name IS NOT NULL";
        let rows = self.session.query(select, &[&uids]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Bytes that the database's server has written to its journal, ever.
    pub async fn journal_bytes(&mut self) -> Result<i64, ViewsError> {
        let select = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
        Ok(self.session.query_one(select, &[]).await?.get(0))
    }

    /// Per record of a kind of source, by its key: the uid of its device, if it has one.
    pub async fn uids(&mut self, kind: &str) -> Result<BTreeMap<String, Option<uuid::Uuid>>, ViewsError> {
        let select = "SELECT record_key, uid FROM device_records WHERE source_kind = $1";
        let rows = self.session.query(select, &[&kind]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}
