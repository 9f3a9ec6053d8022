//! The world: 2 records a device, 3 claims a record, of which records of one device share one or two.

use std::{
    fs::File,
    io::{BufWriter, Write},
};

use serviceradar_schemas::{Action, Address, Claim, Coverage, Observation, Source};

use crate::Result;

/// Records of 500,000 devices.
pub(crate) const RECORDS: usize = 1_000_000;
/// Records of a batch.
pub(crate) const BATCH: usize = 10_000;
/// 2026-03-01, microseconds.
pub(crate) const BEGINNING: i64 = 1_772_323_200_000_000;
/// Prime, and so a way through all records that leaves none out and does not go by neighbours.
const STRIDE: usize = 611_953;

/// An edge between nodes, as the operator takes it.
pub(crate) type Edge = (u32, u32);

/// The claims of a record, as nodes. Of a record that changed, its third is that of a neighbouring device.
pub(crate) fn claims(record: usize, changed: bool) -> [u32; 3] {
    let (device, which) = (record / 2, record % 2);
    let third = if changed { device ^ 1 } else { device };
    [device * 4, device * 4 + 1, third * 4 + 2 + which].map(|claim| (claim as u32) << 1 | 1)
}

/// The edges of a record.
pub(crate) fn edges(record: usize, changed: bool) -> impl Iterator<Item = Edge> {
    claims(record, changed).into_iter().map(move |claim| ((record as u32) << 1, claim))
}

/// The edges of all records.
pub(crate) fn all_edges(records: usize) -> Vec<(Edge, isize)> {
    (0..records).flat_map(|record| edges(record, false)).map(|edge| (edge, 1)).collect()
}

/// The record that comes or changes at a place in the order.
pub(crate) fn nth_changed(at: usize) -> usize {
    at.wrapping_mul(STRIDE) % RECORDS
}

/// What a record says. One that changed has another address, and of NetBox another third claim: a network card was
/// replaced.
pub(crate) fn observation(record: usize, changes: usize) -> Observation {
    let device = record / 2;
    let mac = |vendor: usize| Claim {
        namespace: "mac".into(),
        value: format!("{:012x}", (vendor << 32 | device) + (changes << 24)).into(),
    };
    let shared =
        Claim { namespace: "mac".into(), value: format!("{:012x}", 0x001b_usize << 32 | device).into() };
    let serial = Claim { namespace: "serial".into(), value: format!("acme:s-{device}").into() };
    let (kind, instance, key, claims) = match (record % 2, device % 2) {
        (0, _) => ("armis", "hq", 100_000 + device, vec![serial, shared]),
        (_, 1) if changes == 0 => ("netbox", "dc", 200_000 + device, vec![serial, shared]),
        _ => ("netbox", "dc", 200_000 + device, vec![mac(0x0050), shared]),
    };
    let [a, b, c] = [device >> 16, device >> 8, device].map(|part| part & 255);
    Observation {
        id: format!("{kind}-{record}-{changes}"),
        event_time: BEGINNING + (record as i64 % 3_600) * 1_000_000 + changes as i64 * 60_000_000,
        partition: "default".to_owned(),
        source: Source { kind: kind.to_owned(), instance: instance.to_owned() },
        native_key: key.to_string(),
        action: Action::Assert,
        coverage: Coverage::Full,
        claims,
        addresses: vec![Address { ip: format!("{}.{a}.{b}.{c}", 10 + changes % 100), ..Address::default() }],
        hostname: Some(format!("host-{device}")),
        vendor: Some("Acme".to_owned()),
        os_name: Some("Linux".to_owned()),
        site: Some(format!("site-{}", device % 50)),
        ..Observation::default()
    }
}

/// Writes the observations as JSON lines, in no order of devices.
pub(crate) fn write(file: &str) -> Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    for at in 0..RECORDS {
        serde_json::to_writer(&mut out, &observation(nth_changed(at), 0))?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
