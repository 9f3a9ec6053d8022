//! Our schemas, field by field in their order.

use sha2::{Digest, Sha256};

use super::{
    Event,
    datum::{record, symbols},
};
use crate::{
    Action, Address, Claim, Collector, Coverage, Decision, DeviceChange, NetworkInterface, Observation,
    OffsetRange, OperatingSystem, Operation, Probe, Snapshot, Source, SourceSummary, Target,
    operation::Phase, topics::Stream,
};

symbols!(Action { 0 Assert, 1 End, 2 SnapshotBegin, 3 SnapshotEnd, 4 Tick });
symbols!(Coverage { 0 Full, 1 Partial });
symbols!(Probe { 0 None, 1 Down, 2 Up });
symbols!(Phase { 0 Intent, 1 Done });

record!(Source { kind, instance });
record!(Claim { namespace, value });
record!(Address { ip, mac, interface });
record!(Collector { agent, gateway, address });
record!(Snapshot { id, begin, count });
record!(Observation {
    id,
    event_time,
    partition,
    source,
    native_key,
    action,
    coverage,
    claims,
    addresses,
    hostname,
    name,
    vendor,
    model,
    serial,
    device_type,
    os_name,
    os_version,
    site,
    risk_score,
    probe,
    tags,
    attributes,
    collector,
    snapshot,
});

record!(Target { claim, claims, record, source, begin, attribute });
record!(Decision { id, event_time, partition, action, target, value, revokes, actor, reason });

record!(OffsetRange { topic, log_partition, from, to });
record!(Operation {
    id,
    phase,
    action,
    tenant,
    actor,
    reason,
    event_time,
    ranges,
    generation,
    fingerprint,
    rules,
    manifest,
    intake_max,
});

record!(NetworkInterface { ip, mac, name });
record!(OperatingSystem { name, version });
record!(SourceSummary { source, first_seen, last_seen, records, open });
record!(DeviceChange {
    uid,
    partition,
    name,
    hostname,
    ip,
    mac,
    r#type,
    type_id,
    vendor_name,
    model,
    os,
    hw_info,
    risk_score,
    risk_level,
    risk_level_id,
    is_available,
    availability_at,
    discovery_sources,
    sources,
    confidence,
    state,
    first_seen,
    last_seen,
    agent_id,
    gateway_id,
    network_interfaces,
    site,
    tags,
    metadata,
    records,
    flags,
});

impl Event for Observation {
    const NAME: &'static str = "serviceradar.v1.Observation";
    const SCHEMA: &'static str = include_str!("../../avro/observation.avsc");
    const STREAM: Stream = Stream::Observations;
    const FINGERPRINT: [u8; 8] = [0xfb, 0x7a, 0x81, 0xca, 0x04, 0x1d, 0x94, 0x66];
    const RELEASED: &'static [&'static str] = &[];

    /// An observation without an id is known by its datum.
    fn complete(&mut self, datum: &[u8]) {
        if self.id.is_empty() {
            self.id = crate::hex::encode(&Sha256::digest(datum));
        }
    }
}

impl Event for Decision {
    const NAME: &'static str = "serviceradar.v1.Decision";
    const SCHEMA: &'static str = include_str!("../../avro/decision.avsc");
    const STREAM: Stream = Stream::Decisions;
    const FINGERPRINT: [u8; 8] = [0x85, 0xe6, 0xcc, 0x7d, 0x0c, 0x1b, 0x7e, 0x3e];
    const RELEASED: &'static [&'static str] = &[];
}

impl Event for DeviceChange {
    const NAME: &'static str = "serviceradar.v1.DeviceChange";
    const SCHEMA: &'static str = include_str!("../../avro/device_change.avsc");
    const STREAM: Stream = Stream::DeviceChanges;
    const FINGERPRINT: [u8; 8] = [0xad, 0x61, 0x82, 0xeb, 0x75, 0x62, 0xf9, 0x61];
    const RELEASED: &'static [&'static str] = &[];
}

impl Event for Operation {
    const NAME: &'static str = "serviceradar.v1.Operation";
    const SCHEMA: &'static str = include_str!("../../avro/operation.avsc");
    const STREAM: Stream = Stream::Operations;
    const FINGERPRINT: [u8; 8] = [0x8b, 0xe6, 0x1b, 0xaa, 0x24, 0x63, 0x18, 0x81];
    const RELEASED: &'static [&'static str] = &[];
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;

    use super::*;
    use crate::codec::fingerprint::fingerprint;

    fn assert_contract<E: Event>() {
        let schema = Schema::parse_str(E::SCHEMA).unwrap();
        assert_eq!(schema.name().unwrap().fullname(None), E::NAME);
        assert_eq!(E::FINGERPRINT, fingerprint(&schema), "of {}", E::NAME);
    }

    /// A schema that changes without its fingerprint would be written under the old one's name.
    #[test]
    fn fingerprints_are_those_of_the_schemas() {
        assert_contract::<Observation>();
        assert_contract::<Decision>();
        assert_contract::<DeviceChange>();
        assert_contract::<Operation>();
    }
}
