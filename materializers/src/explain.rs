//! Reading what an explanation needs: a device by whatever somebody knows it by, all that its rows say, and its past; what
//! there is of a claim; and of what an inventory is made up.

mod count;
mod missing;

use std::net::IpAddr;

pub use count::{Cause, Counted, EpochAt, Line, Placed, REASONS, Since, Told, sum};
pub use missing::{NotWanted, Over, Standing, TRACES_MAX, Trace, Wanted};
use serde::Serialize;
use serde_json::Value;
use serviceradar_schemas::time;
use serviceradar_streams::{
    explain::Known,
    rows::{DeviceRow, IssueRow, RecordRow, Uid, WatermarkRow},
    rules::Rules,
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    inventory::Inventory,
    postgres::{
        devices::{DEVICE_COLUMNS, device},
        rules_of,
        session::{Parameter, views_error},
        state::{
            Collectors, DECISION_COLUMNS, EVIDENCE_COLUMNS, Micros, RECORD_COLUMNS, decision_row,
            evidence_row, record_row, source,
        },
    },
    views::ViewsError,
};

/// Devices that are told where a name is not one device's alone.
const FOUND_MAX: i64 = 20;

/// Something that a description means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The device; absent where a record has none.
    pub uid: Option<Uid>,
    /// The record meant, or one that fits the description; absent where the device itself is meant.
    pub record_key: Option<String>,
    /// Of a record without a device: `unplaced` or `closed`.
    pub placement: String,
}

/// Something that became of a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Happened {
    /// When the epoch was closed.
    #[serde(with = "time::rfc3339")]
    pub at: i64,
    /// The epoch.
    pub epoch: i64,
    /// A word of `device_history.change`.
    pub change: String,
    /// In words: the claim or the records that caused it.
    pub cause: String,
    /// The fields that changed, as they were.
    pub before: Option<Value>,
    /// The fields that changed, as they became.
    pub after: Option<Value>,
    /// Records that came from another device, or went to one, with its uid and the claim.
    pub moved: Vec<Moved>,
}

/// Records that went from one uid to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// `merge` or `split`.
    pub kind: String,
    /// The uid that they had.
    pub from_uid: String,
    /// The uid that they have since.
    pub to_uid: String,
    /// A claim by which they hang together.
    pub claim: Option<String>,
    /// A word of `device_merges.rule`.
    pub rule: String,
    /// The records, at most 100.
    pub records: Vec<String>,
}

impl Inventory {
    /// From here on the session sees the views as they are now.
    pub async fn hold_still(&mut self) -> Result<(), ViewsError> {
        self.session.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    /// The rules that the active generation was built with; none before its first writer.
    pub async fn rules(&mut self) -> Result<Option<Rules>, ViewsError> {
        rules_of(&mut self.session, "SELECT rules FROM pipeline_generations WHERE state = 'active'").await
    }

    /// What a description may mean: a uid, old ones included; a record key; an address; a MAC; a claim,
    /// `namespace:value`; a name or host name. The first of these that fits anything counts.
    pub async fn find(&mut self, what: &str) -> Result<Vec<Found>, ViewsError> {
        if let Ok(uid) = what.parse::<Uid>() {
            let select = "SELECT uid, NULL::text, '' FROM devices WHERE uid = $1
                UNION SELECT uid, NULL, '' FROM device_redirects WHERE claim_uid = $1";
            return self.found(select, &[&uid.0]).await;
        }
        let record = "SELECT uid, record_key, placement FROM device_records WHERE record_key = $1";
        let found = self.found(record, &[&what]).await?;
        if !found.is_empty() {
            return Ok(found);
        }
        if let Ok(ip) = what.parse::<IpAddr>() {
            let select = "SELECT uid, min(record_key), '' FROM device_addresses
                WHERE ip = $1 AND is_current AND uid IS NOT NULL GROUP BY uid ORDER BY uid LIMIT $2";
            let found = self.found(select, &[&cidr::IpInet::new_host(ip), &FOUND_MAX]).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        if let Ok(Wanted { namespace, value }) = Wanted::read(what) {
            // Where it links it means one device; where it does not, all that ever made it.
            let select = "SELECT uid, min(record_key), '' FROM device_identifiers
                WHERE namespace = $1 AND value = $2 AND uid IS NOT NULL
                GROUP BY uid ORDER BY bool_or(state = 'linking') DESC, uid LIMIT $3";
            let found = self.found(select, &[&namespace, &value, &FOUND_MAX]).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let named = "SELECT d.uid, NULL::text, '' FROM device_search s JOIN devices d USING (uid)
            WHERE s.words LIKE '%' || $1 || '%' AND (lower(d.name) = $2 OR d.hostname = $2)
            ORDER BY d.uid LIMIT $3";
        let name = what.to_lowercase();
        let pattern = name.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        self.found(named, &[&pattern, &name, &FOUND_MAX]).await
    }

    async fn found(&mut self, select: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Found>, ViewsError> {
        let rows = self.session.query(select, parameters).await?;
        let read = |row: &Row| Found {
            uid: row.get::<_, Option<Uuid>>(0).map(Uid),
            record_key: row.get(1),
            placement: row.get(2),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// What the views hold of a device; nothing where there is none of that uid.
    pub async fn known(&mut self, uid: Uid) -> Result<Option<Known>, ViewsError> {
        let select = format!("SELECT {DEVICE_COLUMNS} FROM devices WHERE uid = $1");
        let rows = self.session.query(&select, &[&uid.0]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let (device, _): (DeviceRow, u64) = device(row)?;
        let select =
            format!("SELECT {RECORD_COLUMNS} FROM device_records WHERE uid = $1 ORDER BY record_key");
        let rows = self.session.query(&select, &[&uid.0]).await?;
        let mut collectors = Collectors::new();
        let records: Vec<RecordRow> = rows
            .iter()
            .map(|row| record_row(row, &mut collectors))
            .collect::<Result<_, _>>()
            .map_err(views_error)?;
        let keys: Vec<&str> = records.iter().map(|record| &*record.record_key).collect();
        let select = format!(
            "SELECT {EVIDENCE_COLUMNS} FROM device_evidence WHERE record_key = ANY ($1)
             ORDER BY record_key, namespace, value"
        );
        let rows = self.session.query(&select, &[&keys]).await?;
        let evidence = rows.iter().map(evidence_row).collect::<Result<Vec<_>, _>>()?;
        // Of fetches there are many decisions, and none is of a device.
        let select = format!(
            "SELECT {DECISION_COLUMNS} FROM decisions
             WHERE partition = $1 AND in_force AND action NOT IN ('accept_snapshot', 'hold_snapshot') ORDER BY id"
        );
        let rows = self.session.query(&select, &[&device.partition]).await?;
        let decisions = rows.iter().map(decision_row).collect::<Result<_, _>>()?;
        let claims = evidence.iter().map(|row| (&*row.namespace, &*row.value));
        let (namespaces, values): (Vec<&str>, Vec<&str>) =
            claims.chain(keys.iter().map(|key| ("record", *key))).unzip();
        let issues = self.issues_of(&device.partition, &namespaces, &values).await?;
        let accepted = "SELECT source_kind, source_instance, max(begin) FROM snapshots
            WHERE partition = $1 AND verdict = 'accepted'
              AND (source_kind, source_instance) IN (SELECT * FROM unnest($2::text[], $3::text[]))
            GROUP BY 1, 2";
        let sources = records.iter().filter_map(|record| RecordRow::split(&record.record_key));
        let (kinds, instances): (Vec<String>, Vec<String>) =
            sources.map(|(_, source, _)| (source.kind, source.instance)).unzip();
        let rows = self.session.query(accepted, &[&device.partition, &kinds, &instances]).await?;
        let read = |row: &Row| Ok((source(row, 0)?, row.try_get::<_, Micros>(2)?.0));
        let accepted = rows.iter().map(read).collect::<Result<_, _>>().map_err(views_error)?;
        let watermarks = "SELECT w.partition, w.at FROM pipeline_watermarks w
            JOIN pipeline_generations g ON g.id = w.generation AND g.state = 'active'
            WHERE w.partition IN ($1, '')";
        let rows = self.session.query(watermarks, &[&device.partition]).await?;
        let read = |row: &Row| {
            let partition: &str = row.get(0);
            let at = row.get::<_, Micros>(1).0;
            WatermarkRow { partition: (!partition.is_empty()).then(|| partition.into()), at }
        };
        let watermarks = rows.iter().map(read).collect();
        Ok(Some(Known { device, records, evidence, decisions, issues, accepted, watermarks }))
    }

    /// The issues of a partition that are of these claims, or, by the namespace `record`, of these records.
    async fn issues_of(
        &mut self,
        partition: &str,
        namespaces: &[&str],
        values: &[&str],
    ) -> Result<Vec<IssueRow>, ViewsError> {
        let select = "SELECT i.partition, i.kind, i.namespace, i.value, i.uids, i.detail
            FROM (SELECT DISTINCT * FROM unnest($2::text[], $3::text[]) AS u (namespace, value)) AS u
            JOIN identity_issues i USING (namespace, value)
            WHERE i.partition = $1 AND i.kind = ANY ($4) ORDER BY i.kind, i.namespace, i.value";
        let kinds = IssueRow::KINDS;
        let rows = self.session.query(select, &[&partition, &namespaces, &values, &&kinds[..]]).await?;
        Ok(rows.iter().filter_map(issue).collect())
    }

    /// What became of a device, the latest first: as many as given at most.
    pub async fn timeline(&mut self, uid: Uid, limit: u32) -> Result<Vec<Happened>, ViewsError> {
        let select = "SELECT h.at, h.epoch, h.change, h.cause, h.before, h.after,
                (SELECT jsonb_agg(jsonb_build_object('kind', m.kind, 'from_uid', 'sr:' || m.from_uid,
                        'to_uid', 'sr:' || m.to_uid, 'claim', m.claim, 'rule', m.rule, 'records', m.records)
                        ORDER BY m.from_uid, m.to_uid)
                 FROM device_merges m WHERE (m.from_uid = h.uid OR m.to_uid = h.uid) AND m.at = h.at
                    AND m.generation = h.generation AND m.epoch = h.epoch)
            FROM device_history h WHERE h.uid = $1 ORDER BY h.at DESC, h.epoch DESC LIMIT $2";
        let rows = self.session.query(select, &[&uid.0, &i64::from(limit)]).await?;
        let read = |row: &Row| {
            Ok(Happened {
                at: row.try_get::<_, Micros>(0)?.0,
                epoch: row.try_get(1)?,
                change: row.try_get(2)?,
                cause: row.try_get(3)?,
                before: row.try_get(4)?,
                after: row.try_get(5)?,
                moved: moved(row.try_get(6)?),
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(views_error)
    }
}

fn moved(found: Option<Value>) -> Vec<Moved> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let read = |of: &Value| Moved {
        kind: text(&of["kind"]),
        from_uid: text(&of["from_uid"]),
        to_uid: text(&of["to_uid"]),
        claim: of["claim"].as_str().map(str::to_owned),
        rule: text(&of["rule"]),
        records: of["records"].as_array().into_iter().flatten().map(text).collect(),
    };
    found.as_ref().and_then(Value::as_array).into_iter().flatten().map(read).collect()
}

/// Reads an issue; none of a kind that this program does not know.
fn issue(row: &Row) -> Option<IssueRow> {
    let kind: &str = row.get(1);
    Some(IssueRow {
        partition: row.get::<_, &str>(0).into(),
        kind: IssueRow::KINDS.into_iter().find(|known| *known == kind)?,
        namespace: row.get::<_, &str>(2).into(),
        value: row.get::<_, &str>(3).into(),
        uids: row.get::<_, Vec<Uuid>>(4).into_iter().map(Uid).collect(),
        detail: row.get(5),
    })
}
