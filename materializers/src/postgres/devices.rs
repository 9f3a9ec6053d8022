//! Rows of `devices`, read back whole.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serviceradar_streams::rows::{DeviceRow, Uid};
use tokio_postgres::{Row, types::Json};
use uuid::Uuid;

use super::{
    session::Session,
    state::{address, micros},
};
use crate::views::ViewsError;

/// What [`device`] reads of `devices`.
pub(crate) const DEVICE_COLUMNS: &str = "uid, partition, name, hostname, ip, mac, type, type_id, vendor_name, model, os,
        hw_info, risk_score, risk_level, risk_level_id, is_available, availability_at, discovery_sources, sources,
        confidence, state, first_seen, last_seen, agent_id, gateway_id, network_interfaces, site, tags, metadata,
        records, flags, epoch";

/// The devices after a uid, in the order of their uids, each with the epoch that wrote it last.
pub(crate) async fn read(
    session: &mut Session,
    tenant: &str,
    after: Option<Uid>,
    limit: usize,
) -> Result<Vec<(DeviceRow, u64)>, ViewsError> {
    let after = after.map_or(Uuid::nil(), |uid| uid.0);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let select =
        format!("SELECT {DEVICE_COLUMNS} FROM devices WHERE tenant = $1 AND uid > $2 ORDER BY uid LIMIT $3");
    let rows = session.query(&select, &[&tenant, &after, &limit]).await?;
    rows.iter().map(device).collect()
}

/// Some devices, by their uids, of the tables of a schema.
pub(crate) async fn some(
    session: &mut Session,
    schema: &str,
    tenant: &str,
    uids: &[Uuid],
) -> Result<BTreeMap<Uuid, DeviceRow>, ViewsError> {
    let select =
        format!("SELECT {DEVICE_COLUMNS} FROM {schema}.devices WHERE tenant = $1 AND uid = ANY ($2)");
    let rows = session.query(&select, &[&tenant, &uids]).await?;
    rows.iter().map(|row| Ok((row.get(0), device(row)?.0))).collect()
}

type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// Reads a device, and the epoch that wrote it last.
pub(crate) fn device(row: &Row) -> Result<(DeviceRow, u64), ViewsError> {
    read_device(row).map_err(|error| {
        let uid = row.try_get(0).map_or_else(|_| "of no uid".to_owned(), |uid| Uid(uid).to_string());
        ViewsError::Refused(format!("the row of devices {uid} cannot be read: {error}"))
    })
}

fn read_device(row: &Row) -> Result<(DeviceRow, u64), Unreadable> {
    fn json<T: DeserializeOwned>(row: &Row, at: usize) -> Result<T, Unreadable> {
        Ok(row.try_get::<_, Json<T>>(at)?.0)
    }
    let strings = |at| json::<BTreeMap<String, String>>(row, at);
    let device = DeviceRow {
        uid: Uid(row.try_get(0)?).to_string(),
        partition: row.try_get(1)?,
        name: row.try_get(2)?,
        hostname: row.try_get(3)?,
        ip: address(row, 4)?.map(|ip| ip.to_string()),
        mac: row.try_get(5)?,
        r#type: row.try_get(6)?,
        type_id: row.try_get(7)?,
        vendor_name: row.try_get(8)?,
        model: row.try_get(9)?,
        os: row.try_get::<_, Option<Json<_>>>(10)?.map(|Json(os)| os),
        hw_info: strings(11)?,
        risk_score: row.try_get(12)?,
        risk_level: row.try_get(13)?,
        risk_level_id: row.try_get(14)?,
        is_available: row.try_get(15)?,
        availability_at: micros(row, 16)?,
        discovery_sources: row.try_get(17)?,
        sources: json(row, 18)?,
        confidence: row.try_get(19)?,
        state: row.try_get(20)?,
        first_seen: micros(row, 21)?.unwrap_or_default(),
        last_seen: micros(row, 22)?.unwrap_or_default(),
        agent_id: row.try_get(23)?,
        gateway_id: row.try_get(24)?,
        network_interfaces: json(row, 25)?,
        site: row.try_get(26)?,
        tags: strings(27)?,
        metadata: strings(28)?,
        records: row.try_get(29)?,
        flags: row.try_get(30)?,
    };
    Ok((device, row.try_get::<_, i64>(31)?.cast_unsigned()))
}
