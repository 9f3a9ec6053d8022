//! Restore: the state of the fold, read back from the rows of the views.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use hashbrown::HashMap;

use crate::{
    dictionary::{Dictionary, RecordId, Values},
    evidence::attributes_of,
    normalise::{ClaimKey, mac},
    record::{AddressSpan, ClaimSpan, Record, Status},
    rows::{EvidenceRow, RecordRow},
};

/// The records that rows of `device_records` and `device_evidence` tell. An error names the row.
pub fn records(
    records: Vec<RecordRow>,
    evidence: Vec<EvidenceRow>,
    dictionary: &Rc<RefCell<Dictionary>>,
    values: &mut Values,
) -> Result<Vec<Record>, String> {
    let mut dictionary = dictionary.borrow_mut();
    let mut restored: Vec<Record> = Vec::with_capacity(records.len());
    let mut index: HashMap<RecordId, usize> = HashMap::with_capacity(records.len());
    for row in records {
        let key = &row.record_key;
        let Some((partition, source, _)) = RecordRow::split(key) else {
            return Err(format!("device_records: {key:?} is no record key"));
        };
        let scope = dictionary.scope(partition);
        let id = dictionary.record(scope, &source, key);
        let attributes = attributes_of(&row.attributes, &mut dictionary, values)
            .ok_or_else(|| format!("device_records {key:?}: unreadable attributes"))?;
        index.insert(id, restored.len());
        restored.push(Record {
            first_seen: row.first_seen.unwrap_or(i64::MAX),
            last_seen: row.last_seen.unwrap_or(i64::MIN),
            first_asserted: row.first_asserted.unwrap_or(i64::MAX),
            last_assert: row.last_assert,
            last_full: row.last_full,
            last_end: row.last_end,
            first_fetch: row.first_snapshot_begin,
            last_fetch: row.last_snapshot_begin,
            seen_outside: row.first_snapshot_begin.is_none() && row.first_seen.is_some(),
            probe: row.probe.map(|(up, at)| (at, up)),
            collector: row.collector,
            place: row.place.map(|(ip, order)| (order, ip)),
            attributes: attributes.into(),
            ..Record::new(id, dictionary.record_entry(id).source)
        });
    }
    let mut claims: Vec<Vec<ClaimSpan>> = vec![Vec::new(); restored.len()];
    let mut addresses: Vec<Vec<AddressSpan>> = vec![Vec::new(); restored.len()];
    for row in evidence {
        let known = dictionary.find_record(&row.record_key).and_then(|id| Some((id, *index.get(&id)?)));
        let Some((id, at)) = known else {
            return Err(format!("device_evidence: record {:?} is not there", row.record_key));
        };
        let last = row.last.map(Box::new);
        if let Some(ip) = row.ip {
            addresses[at].push(AddressSpan {
                ip,
                current: false,
                first_seen: row.first_seen,
                first_asserted: row.first_asserted,
                last,
            });
            continue;
        }
        // A private claim follows from its decision.
        if &*row.namespace == "detached" {
            continue;
        }
        let key = match &*row.namespace {
            "mac" => ClaimKey::Mac(mac(&row.value).map_err(|reason| format!("device_evidence: {reason}"))?),
            namespace => ClaimKey::Text(namespace.into(), (&*row.value).into()),
        };
        let scope = dictionary.source_of(id).scope;
        claims[at].push(ClaimSpan {
            claim: dictionary.claim(scope, &key),
            status: Status::Expired,
            first_seen: row.first_seen,
            first_asserted: row.first_asserted,
            last,
        });
    }
    for ((record, mut claims), mut addresses) in restored.iter_mut().zip(claims).zip(addresses) {
        claims.sort_unstable_by_key(|span| span.claim);
        addresses.sort_unstable_by_key(|span| span.ip);
        record.claims = Arc::from(claims);
        record.addresses = Arc::from(addresses);
    }
    Ok(restored)
}
