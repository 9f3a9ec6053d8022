//! Sums of tables: what their rows come to, kept by each epoch that changes them, so that a table can be checked for
//! rows that no epoch wrote.
//!
//! Each row has a hash; a bucket, chosen by the key, has the sum of the hashes of its rows. Small tables have none: they
//! are compared row by row.

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

use crate::{
    changes::Row,
    rows::{DeviceRow, EpochOutput, EvidenceRow, Order, RecordRow, RecordSeen, Uid},
};

/// Buckets of a table.
pub const BUCKETS: usize = 1_024;

/// A row that is summed.
///
/// Its hash is the sum of two where sightings are something special: of what they leave as it is, and of what they
/// change, so that a sighting need not know the rest. What follows from other tables (`DeviceRow::sources`) is in neither.
pub trait Summed: Row {
    /// The hash of the whole row.
    fn sum(&self) -> u64;
}

/// Hashes as the sums have them: the same on every run. How std feeds a type to a hasher is part of it: the test below
/// fails where that changes, and the layout version must then rise.
pub fn hash(of: &impl Hash) -> u64 {
    let mut hasher = SipHasher13::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl Summed for DeviceRow {
    fn sum(&self) -> u64 {
        let Self { uid, partition, name, hostname, ip, mac, r#type, type_id, .. } = self;
        let Self { vendor_name, model, os, hw_info, risk_score, risk_level, risk_level_id, .. } = self;
        let Self { is_available, availability_at, discovery_sources, sources: _, confidence, .. } = self;
        let Self { state, first_seen, last_seen, agent_id, gateway_id, network_interfaces, .. } = self;
        let Self { site, tags, metadata, records, flags, .. } = self;
        // As the whole row is hashed, field by field, without those that sightings change.
        let mut shown = SipHasher13::new();
        (uid, partition, name, hostname, ip, mac, r#type, type_id).hash(&mut shown);
        (vendor_name, model, os, hw_info, risk_score, risk_level, risk_level_id).hash(&mut shown);
        (is_available, None::<i64>, discovery_sources, [(); 0].as_slice(), confidence).hash(&mut shown);
        (state, first_seen, 0_i64, None::<String>, None::<String>, network_interfaces).hash(&mut shown);
        (site, tags, metadata, records, flags).hash(&mut shown);
        // And those, as `DeviceSeen` has them; what is not a uid came from no epoch.
        let uid: Uid = uid.parse().unwrap_or_default();
        let seen = hash(&(uid, last_seen, availability_at, agent_id, gateway_id));
        shown.finish().wrapping_add(seen)
    }
}

impl Summed for RecordRow {
    fn sum(&self) -> u64 {
        let seen = RecordSeen {
            record_key: self.record_key.clone(),
            last_seen: self.last_seen,
            probe_at: self.probe.map(|(_, at)| at),
            last_snapshot_begin: self.last_snapshot_begin,
            place: self.place.map(|(_, order)| order),
            last_assert: self.last_assert,
            last_full: self.last_full,
        };
        let shown = Self {
            last_seen: None,
            probe: self.probe.map(|(up, _)| (up, 0)),
            last_snapshot_begin: None,
            place: self.place.map(|(ip, _)| (ip, Order::default())),
            last_assert: None,
            last_full: None,
            ..self.clone()
        };
        hash(&shown).wrapping_add(hash(&seen))
    }
}

impl Summed for EvidenceRow {
    fn sum(&self) -> u64 {
        hash(self)
    }
}

/// The bucket of a key.
pub fn bucket_of(key: &impl Hash) -> usize {
    (hash(key) % BUCKETS as u64) as usize
}

/// The sums of one table, or what an epoch adds to them.
#[derive(Clone, Debug, Default)]
pub struct Buckets(Vec<u64>);

impl PartialEq for Buckets {
    fn eq(&self, other: &Self) -> bool {
        let sums =
            |of: &Self| (0..BUCKETS).map(|at| of.0.get(at).copied().unwrap_or_default()).collect::<Vec<_>>();
        sums(self) == sums(other)
    }
}

impl Buckets {
    /// Of rows.
    pub fn of<'a, R: Summed + 'a>(rows: impl IntoIterator<Item = &'a R>) -> Self
    where
        R::Key: Hash,
    {
        let mut buckets = Self::default();
        for row in rows {
            buckets.change(&row.key(), 0, row.sum());
        }
        buckets
    }

    /// A row, or the part of it that changed, had one hash and has another; 0 where it was, or is, not there.
    pub fn change(&mut self, key: &impl Hash, before: u64, after: u64) {
        self.0.resize(BUCKETS, 0);
        let sum = &mut self.0[bucket_of(key)];
        *sum = sum.wrapping_sub(before).wrapping_add(after);
    }

    /// Adds what an epoch adds.
    pub fn add(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        for (sum, other) in self.0.iter_mut().zip(&other.0) {
            *sum = sum.wrapping_add(*other);
        }
    }

    /// Whether no row was ever put in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The buckets that differ, by their numbers.
    pub fn difference(&self, other: &Self) -> Vec<usize> {
        let sum = |of: &Self, at: usize| of.0.get(at).copied().unwrap_or_default();
        (0..BUCKETS).filter(|at| sum(self, *at) != sum(other, *at)).collect()
    }

    /// All sums, 8 bytes each, little-endian; none where no row was ever put in.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|sum| sum.to_le_bytes()).collect()
    }

    /// Reads them back; none where they are not as many as there are buckets.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (sums, rest) = bytes.as_chunks();
        let sums: Vec<u64> = sums.iter().map(|sum| u64::from_le_bytes(*sum)).collect();
        (rest.is_empty() && sums.len() == BUCKETS).then_some(Self(sums))
    }
}

/// The sums of a tenant's tables, or what an epoch adds to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// `devices`.
    pub devices: Buckets,
    /// `device_records`.
    pub records: Buckets,
    /// `device_evidence`.
    pub evidence: Buckets,
}

impl Sums {
    /// Of rows that are new.
    pub fn of(output: &EpochOutput) -> Self {
        Self {
            devices: Buckets::of(&output.devices.new),
            records: Buckets::of(&output.records.new),
            evidence: Buckets::of(&output.evidence.new),
        }
    }

    /// Each table's, by its name.
    pub fn tables(&self) -> [(&'static str, &Buckets); 3] {
        let Self { devices, records, evidence } = self;
        [("devices", devices), ("device_records", records), ("device_evidence", evidence)]
    }

    /// Those of a table.
    pub fn table(&mut self, name: &str) -> Option<&mut Buckets> {
        match name {
            "devices" => Some(&mut self.devices),
            "device_records" => Some(&mut self.records),
            "device_evidence" => Some(&mut self.evidence),
            _ => None,
        }
    }

    /// Adds what an epoch adds.
    pub fn add(&mut self, other: &Self) {
        self.devices.add(&other.devices);
        self.records.add(&other.records);
        self.evidence.add(&other.evidence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{DeviceSeen, EvidenceState, Placement};

    /// Sums that a database keeps must mean the same to the program that reads them.
    #[test]
    fn a_row_has_the_hash_that_it_always_had() {
        let uid = Uid(uuid::Uuid::from_u128(1));
        let device =
            DeviceRow { uid: uid.to_string(), name: Some("x".into()), last_seen: 7, ..DeviceRow::default() };
        let order = Order { time: 5, hash: u64::MAX };
        let record = RecordRow {
            record_key: "default/armis/hq/1".into(),
            uid: Some(uid),
            placement: Placement::Anchored,
            open: true,
            first_seen: Some(1),
            last_seen: Some(2),
            first_asserted: None,
            attributes: "{}".into(),
            probe: Some((true, 3)),
            collector: None,
            first_snapshot_begin: None,
            last_snapshot_begin: None,
            place: Some(("fe80::1".parse().unwrap(), order)),
            last_assert: Some((order, 5)),
            last_full: None,
            last_end: None,
        };
        let evidence = EvidenceRow {
            record_key: "default/armis/hq/1".into(),
            namespace: "ip".into(),
            value: "10.0.0.1".into(),
            claim_uid: Some(uid.0),
            ip: Some("10.0.0.1".parse().unwrap()),
            state: EvidenceState::Lapsed,
            leads: false,
            first_seen: 1,
            first_asserted: 2,
            last: Some((order, 5)),
        };
        assert_eq!(
            [device.sum(), record.sum(), evidence.sum()],
            [7_357_729_444_403_735_614, 5_509_026_461_460_485_179, 2_430_602_655_935_607_352]
        );
    }

    /// An epoch that only sees a device adds the difference of two hashes of [`DeviceSeen`].
    #[test]
    fn a_device_is_hashed_as_what_sightings_leave_and_what_they_change() {
        let text = |text: &str| Some(text.to_owned());
        let texts = |key: &str| [(key.to_owned(), "v".to_owned())].into();
        let uid = Uid(uuid::Uuid::from_u128(7));
        let row = DeviceRow {
            uid: uid.to_string(),
            partition: "p".into(),
            name: text("name"),
            hostname: text("host"),
            ip: text("10.0.0.1"),
            mac: text("001b21000001"),
            r#type: "Server".into(),
            type_id: 1,
            vendor_name: text("vendor"),
            model: text("model"),
            os: Some(Default::default()),
            hw_info: texts("serial"),
            risk_score: Some(2),
            risk_level: text("High"),
            risk_level_id: Some(3),
            is_available: Some(true),
            availability_at: Some(4),
            discovery_sources: vec!["armis".into()],
            sources: vec![Default::default()],
            confidence: "strong".into(),
            state: "active".into(),
            first_seen: 5,
            last_seen: 6,
            agent_id: text("agent"),
            gateway_id: text("gateway"),
            network_interfaces: vec![Default::default()],
            site: text("site"),
            tags: texts("tag"),
            metadata: texts("meta"),
            records: 8,
            flags: vec!["flag".into()],
        };
        let seen = DeviceSeen {
            uid,
            last_seen: row.last_seen,
            availability_at: row.availability_at,
            agent_id: row.agent_id.clone(),
            gateway_id: row.gateway_id.clone(),
        };
        let shown = DeviceRow {
            sources: Vec::new(),
            last_seen: 0,
            availability_at: None,
            agent_id: None,
            gateway_id: None,
            ..row.clone()
        };
        assert_eq!(row.sum(), hash(&shown).wrapping_add(hash(&seen)));
    }

    #[test]
    fn buckets_come_back_from_their_bytes() {
        let mut buckets = Buckets::default();
        assert!(buckets.is_empty() && Buckets::from_bytes(&buckets.to_bytes()).is_none());
        buckets.change(&"a", 0, 5);
        buckets.change(&"b", 9, 3);
        let back = Buckets::from_bytes(&buckets.to_bytes()).unwrap();
        assert_eq!(back, buckets);
        buckets.change(&"a", 5, 0);
        buckets.change(&"b", 3, 9);
        assert_eq!(buckets, Buckets::default());
        assert_eq!(back.difference(&buckets).len(), 2);
    }
}
