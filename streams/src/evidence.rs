//! Evidence: what each claim of a record does, and its rows, to the views and back.

use std::sync::Arc;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serviceradar_schemas::Text;

use crate::{
    claim::Namespace,
    dictionary::Dictionary,
    facts::Facts,
    identity::Identity,
    record::{Asserted, Record},
    rows::{EvidenceRow, EvidenceState, Order},
    spans::{AddressSpan, ClaimSpan, Status, Times},
};

/// What a claim of a record does.
pub fn state_of(
    record: &Record,
    span: &ClaimSpan,
    identity: &Identity,
    facts: &Facts,
    dictionary: &Dictionary,
) -> EvidenceState {
    let entry = dictionary.class_of(span.claim);
    let (id, claim) = (record.id, span.claim);
    let verdict = identity.judge.verdict(claim);
    let is_mac = entry.kind == Namespace::Mac;
    let standing =
        if span.status.is_asserted() { EvidenceState::Corroborating } else { EvidenceState::Lapsed };
    if span.status == Status::Expired {
        return EvidenceState::Expired;
    }
    if entry.kind == Namespace::Other || (is_mac && entry.tier == 3 && !verdict.allowed) {
        return standing;
    }
    let detached = record.now().detached && entry.kind != Namespace::Detached;
    if detached || verdict.blocked {
        return EvidenceState::Blocked;
    }
    if !verdict.allowed && verdict.generic {
        return EvidenceState::Generic;
    }
    if !verdict.allowed && verdict.quarantined {
        return EvidenceState::Quarantined;
    }
    let Some(link) = identity.judge.link(id, claim) else {
        return EvidenceState::Bridging;
    };
    if is_mac && identity.macs.is_ambiguous(claim) {
        return EvidenceState::Ambiguous;
    }
    let place = identity.macs.place(id);
    let left_out = identity.macs.is_left_out(id) || identity.blocks.is_bridging(id);
    if is_mac && left_out && !verdict.allowed {
        return EvidenceState::Bridging;
    }
    if is_mac && identity.blocks.is_refused(place, claim) {
        return EvidenceState::Refused;
    }
    let joins = || identity.macs.survives(link, facts) && identity.blocks.joins(place, claim);
    match (span.status.is_asserted(), is_mac && !joins()) {
        (true, true) => EvidenceState::Refused,
        (true, false) => EvidenceState::Linking,
        (false, _) => EvidenceState::Lapsed,
    }
}

/// The row of a claim.
pub fn claim_row(
    (record_key, record): (&Arc<str>, &Record),
    span: &ClaimSpan,
    (state, leads): (EvidenceState, bool),
    dictionary: &Dictionary,
) -> EvidenceRow {
    let (namespace, value) = dictionary.claim_text(span.claim);
    let names = dictionary.class_of(span.claim).kind != Namespace::Other;
    let Times { first_seen, first_asserted, last } = record.times(span);
    EvidenceRow {
        record_key: record_key.clone(),
        namespace,
        value,
        claim_uid: names.then(|| dictionary.claim_uid(span.claim).0),
        ip: None,
        state,
        leads,
        first_seen,
        first_asserted,
        last,
    }
}

/// The row of an address.
pub fn address_row(
    (record_key, record): (&Arc<str>, &Record),
    span: &AddressSpan,
    (state, leads): (EvidenceState, bool),
    dictionary: &Dictionary,
) -> EvidenceRow {
    let scope = dictionary.source_entry(record.source).scope;
    let Times { first_seen, first_asserted, last } = record.times(span);
    EvidenceRow {
        record_key: record_key.clone(),
        namespace: "ip".into(),
        value: span.ip.to_string().into(),
        claim_uid: Some(dictionary.address_uid(scope, span.ip).0),
        ip: Some(span.ip),
        state,
        leads,
        first_seen,
        first_asserted,
        last,
    }
}

/// A record's attributes as the views keep them: see `RecordRow::attributes`. They are in the order of their
/// names.
pub fn attributes_json(record: &Record, dictionary: &Dictionary) -> Arc<str> {
    json_of(
        record
            .attributes()
            .map(|(attribute, last)| (&**dictionary.text_of(attribute.name), &*attribute.value, last)),
    )
}

/// The text that `attributes_json` made of attributes, whatever a database made of that.
pub fn canonical_attributes(json: &str) -> Option<Arc<str>> {
    let attributes = stored_attributes(json)?;
    Some(json_of(attributes.iter().map(|one| (&*one.name, &*one.value, one.last.as_deref().copied()))))
}

fn json_of<'a>(attributes: impl ExactSizeIterator<Item = (&'a str, &'a str, Option<Asserted>)>) -> Arc<str> {
    let mut json = String::with_capacity(64 * attributes.len() + 2);
    for (name, value, last) in attributes {
        json.push(if json.is_empty() { '{' } else { ',' });
        push_text(&mut json, name);
        json.push(':');
        match last {
            None => push_text(&mut json, value),
            Some((order, event_time)) => {
                json.push('[');
                push_text(&mut json, value);
                json.push_str(&format!(",{},\"{}\",{event_time}]", order.time, order.hash));
            }
        }
    }
    json.push_str(if json.is_empty() { "{}" } else { "}" });
    json.into()
}

fn push_text(json: &mut String, text: &str) {
    // A text has a form in JSON.
    json.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// An attribute as the views keep it.
pub struct StoredAttribute {
    /// Which.
    pub name: Text,
    /// The value.
    pub value: Text,
    /// Its last assertion; absent where that is the record's last FULL assert.
    pub last: Option<Box<Asserted>>,
}

/// Reads attributes back, in the order of their names.
pub fn stored_attributes(json: &str) -> Option<Vec<StoredAttribute>> {
    let mut attributes = serde_json::from_str::<StoredAttributes>(json).ok()?.0;
    attributes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Some(attributes)
}

struct StoredAttributes(Vec<StoredAttribute>);

impl<'de> Deserialize<'de> for StoredAttributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = StoredAttributes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of attributes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut attributes = Vec::new();
                while let Some((name, StoredValue(value, last))) = map.next_entry()? {
                    attributes.push(StoredAttribute { name, value, last });
                }
                Ok(StoredAttributes(attributes))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

struct StoredValue(Text, Option<Box<Asserted>>);

impl<'de> Deserialize<'de> for StoredValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl<'de> Visitor<'de> for Value {
            type Value = StoredValue;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value, or a value with the order and time of its last assertion")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(StoredValue(text.into(), None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let missing = || A::Error::custom("an attribute has four parts");
                let value: Text = parts.next_element()?.ok_or_else(missing)?;
                let time: i64 = parts.next_element()?.ok_or_else(missing)?;
                let hash: Text = parts.next_element()?.ok_or_else(missing)?;
                let event_time: i64 = parts.next_element()?.ok_or_else(missing)?;
                let hash = hash.parse().map_err(A::Error::custom)?;
                Ok(StoredValue(value, Some(Box::new((Order { time, hash }, event_time)))))
            }
        }
        deserializer.deserialize_any(Value)
    }
}
