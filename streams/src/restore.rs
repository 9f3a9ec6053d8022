//! Restore: the records of the fold, read back from the rows of the views, piece by piece.
use hashbrown::HashMap;

use crate::{
    dictionary::{Dictionary, RecordId},
    evidence::{StoredAttribute, stored_attributes},
    marks::Marks,
    normalise::{ClaimKey, mac},
    record::{Attribute, Record},
    recurring::Recurring,
    rows::{EvidenceSpan, RecordRow, State},
    spans::{AddressSpan, ClaimSpan, Status, Times},
};

/// A piece of the state whose attributes are read: what one thread does while another takes in the piece before.
pub struct Piece {
    /// The rest; its records' attributes are of no use any more.
    pub state: State,
    /// Of each record.
    attributes: Vec<Vec<StoredAttribute>>,
}

impl Piece {
    /// Reads the attributes of a piece. An error names the row.
    pub fn read(state: State) -> Result<Self, String> {
        let read = |row: &RecordRow| {
            stored_attributes(&row.attributes)
                .ok_or_else(|| format!("device_records {:?}: unreadable attributes", row.record_key))
        };
        let attributes = state.records.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { state, attributes })
    }
}

/// Records on their way back.
#[derive(Default)]
pub struct Restoring {
    records: Vec<Record>,
    index: HashMap<RecordId, usize>,
    claims: Vec<Vec<ClaimSpan>>,
    addresses: Vec<Vec<AddressSpan>>,
}

impl Restoring {
    /// Takes in the records and the evidence of a piece. An error names the row.
    pub fn take(
        &mut self,
        piece: Piece,
        dictionary: &mut Dictionary,
        values: &mut Recurring<str>,
    ) -> Result<(), String> {
        for (row, attributes) in piece.state.records.into_iter().zip(piece.attributes) {
            self.record(row, attributes, dictionary, values)?;
        }
        self.claims.resize_with(self.records.len(), Vec::new);
        self.addresses.resize_with(self.records.len(), Vec::new);
        piece.state.evidence.into_iter().try_for_each(|row| self.evidence(row, dictionary))
    }

    fn record(
        &mut self,
        row: RecordRow,
        attributes: Vec<StoredAttribute>,
        dictionary: &mut Dictionary,
        values: &mut Recurring<str>,
    ) -> Result<(), String> {
        let key = &row.record_key;
        let Some((partition, source, _)) = RecordRow::split(key) else {
            return Err(format!("device_records: {key:?} is no record key"));
        };
        let scope = dictionary.scope(partition);
        let id = dictionary.record(scope, &source, key);
        let attributes = attributes.into_iter().map(|StoredAttribute { name, value, last }| {
            let attribute = Attribute { name: dictionary.text(&name), value: values.share(&value) };
            (attribute, last.map(|last| *last))
        });
        let attributes = attributes.collect();
        self.index.insert(id, self.records.len());
        let mut record = Record {
            first_seen: row.first_seen.unwrap_or(i64::MAX),
            last_seen: row.last_seen.unwrap_or(i64::MIN),
            first_asserted: row.first_asserted.unwrap_or(i64::MAX),
            collector: row.collector,
            ..Record::new(id, dictionary.source_id(id))
        };
        record.set_attributes(attributes);
        record.set_marks(Marks {
            last_assert: row.last_assert,
            last_full: row.last_full,
            last_end: row.last_end,
            first_fetch: row.first_snapshot_begin,
            seen_outside: row.first_snapshot_begin.is_none() && row.first_seen.is_some(),
            last_fetch: row.last_snapshot_begin,
            probe: row.probe.map(|(up, at)| (at, up)),
            place: row.place.map(|(ip, order)| (order, ip)),
            ..Marks::default()
        });
        self.records.push(record);
        Ok(())
    }

    fn evidence(&mut self, row: EvidenceSpan, dictionary: &mut Dictionary) -> Result<(), String> {
        let known = dictionary.find_record(&row.record_key).and_then(|id| Some((id, *self.index.get(&id)?)));
        let Some((id, at)) = known else {
            return Err(format!("device_evidence: record {:?} is not there", row.record_key));
        };
        let EvidenceSpan { first_seen, first_asserted, last, .. } = row;
        let last = last.map(|last| *last);
        let times = self.records[at].kept_times(Times { first_seen, first_asserted, last });
        let key = match &*row.namespace {
            "ip" => {
                let ip =
                    row.value.parse().map_err(|_| format!("device_evidence: address {:?}", row.value))?;
                let span = AddressSpan { ip, current: false, times };
                self.addresses[at].push(span);
                return Ok(());
            }
            // A private claim follows from its decision.
            "detached" => return Ok(()),
            "mac" => ClaimKey::Mac(mac(&row.value).map_err(|reason| format!("device_evidence: {reason}"))?),
            namespace => ClaimKey::Text(namespace.into(), row.value),
        };
        let scope = dictionary.source_of(id).scope;
        let claim = dictionary.claim(scope, &key);
        let span = ClaimSpan { claim, status: Status::Expired, times };
        self.claims[at].push(span);
        Ok(())
    }

    /// The records, once all pieces are taken in.
    pub fn records(self) -> impl Iterator<Item = Record> {
        let spans = self.claims.into_iter().zip(self.addresses);
        self.records.into_iter().zip(spans).map(|(record, (mut claims, mut addresses))| {
            claims.sort_unstable_by_key(|span| span.claim);
            addresses.sort_unstable_by_key(|span| span.ip);
            Record { claims: claims.into(), addresses: addresses.into(), ..record }
        })
    }
}
