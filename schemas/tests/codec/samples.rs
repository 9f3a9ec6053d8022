//! Any event at all.

use std::collections::BTreeMap;

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};
use serviceradar_schemas::{
    Action, Address, Claim, Collector, Coverage, Decision, DeviceChange, NetworkInterface, Observation,
    OffsetRange, OperatingSystem, Operation, Probe, Snapshot, Source, SourceSummary, Target, Text,
    operation::Phase,
};

pub(crate) fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

/// Within the years 1 to 9998, which RFC 3339 can write; [`extreme`] has the rest.
fn time() -> impl Strategy<Value = i64> {
    -62_135_596_800_000_000..253_370_764_800_000_000_i64
}

/// What takes ten bytes.
pub(crate) fn extreme() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -130..130_i64]
}

fn maybe_text() -> impl Strategy<Value = Option<String>> {
    option::of(text())
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..4)
}

fn short_texts() -> impl Strategy<Value = BTreeMap<Text, Text>> {
    let text = || text().prop_map(Text::from);
    btree_map(text(), text(), 0..4)
}

fn source() -> impl Strategy<Value = Source> {
    (text(), text()).prop_map(|(kind, instance)| Source { kind, instance })
}

fn claim() -> impl Strategy<Value = Claim> {
    (text(), text()).prop_map(|(namespace, value)| Claim { namespace: namespace.into(), value: value.into() })
}

prop_compose! {
    fn address()(ip in text(), mac in maybe_text(), interface in maybe_text()) -> Address {
        Address { ip, mac, interface }
    }
}

prop_compose! {
    fn collector()(agent in text(), gateway in text(), address in text()) -> Collector {
        Collector { agent, gateway, address }
    }
}

prop_compose! {
    fn snapshot()(id in text(), begin in time(), count in option::of(any::<i64>())) -> Snapshot {
        Snapshot { id, begin, count }
    }
}

prop_compose! {
    pub(crate) fn observation()(
        // An empty id would be read as the datum's hash.
        id in ".{1,12}",
        event_time in time(),
        partition in text(),
        source in source(),
        native_key in text(),
        action in prop::sample::select(vec![
            Action::Assert, Action::End, Action::SnapshotBegin, Action::SnapshotEnd, Action::Tick,
        ]),
        coverage in prop::sample::select(vec![Coverage::Full, Coverage::Partial]),
        claims in vec(claim(), 0..4),
        addresses in vec(address(), 0..4),
    )(
        attributed in attributed(),
        id in Just(id), event_time in Just(event_time), partition in Just(partition),
        source in Just(source), native_key in Just(native_key), action in Just(action),
        coverage in Just(coverage), claims in Just(claims), addresses in Just(addresses),
    ) -> Observation {
        Observation {
            id, event_time, partition, source, native_key, action, coverage, claims, addresses,
            ..attributed
        }
    }
}

prop_compose! {
    /// The half of an observation that says what the record is like.
    fn attributed()(
        names in prop::array::uniform9(maybe_text()),
        risk_score in option::of(any::<i32>()),
        probe in prop::sample::select(vec![Probe::None, Probe::Down, Probe::Up]),
        tags in short_texts(),
        attributes in short_texts(),
        collector in option::of(collector()),
        snapshot in option::of(snapshot()),
    ) -> Observation {
        let [hostname, name, vendor, model, serial, device_type, os_name, os_version, site] = names;
        Observation {
            hostname, name, vendor, model, serial, device_type, os_name, os_version, site,
            risk_score, probe, tags, attributes, collector, snapshot,
            ..Observation::default()
        }
    }
}

prop_compose! {
    fn target()(
        claim in option::of(claim()),
        claims in option::of(vec(claim(), 0..3)),
        record in maybe_text(),
        source in option::of(source()),
        begin in option::of(time()),
        attribute in maybe_text(),
    ) -> Target {
        Target { claim, claims, record, source, begin, attribute }
    }
}

prop_compose! {
    pub(crate) fn decision()(
        id in text(),
        event_time in time(),
        partition in text(),
        action in text(),
        target in target(),
        value in maybe_text(),
        revokes in maybe_text(),
        actor in text(),
        reason in text(),
    ) -> Decision {
        Decision { id, event_time, partition, action, target, value, revokes, actor, reason }
    }
}

prop_compose! {
    fn range()(topic in text(), log_partition: i32, from: i64, to: i64) -> OffsetRange {
        OffsetRange { topic, log_partition, from, to }
    }
}

prop_compose! {
    pub(crate) fn operation()(
        [id, action, actor, reason] in prop::array::uniform4(text()),
        [tenant, fingerprint, rules, manifest] in prop::array::uniform4(maybe_text()),
        is_done: bool,
        event_time in time(),
        ranges in vec(range(), 0..4),
        generation in option::of(any::<i32>()),
        intake_max in option::of(time()),
    ) -> Operation {
        let phase = if is_done { Phase::Done } else { Phase::Intent };
        Operation {
            id, phase, action, tenant, actor, reason, event_time, ranges, generation, fingerprint, rules, manifest,
            intake_max,
        }
    }
}

prop_compose! {
    fn summary()(
        source in text(),
        times in any::<[i64; 2]>(),
        counts in any::<[i32; 2]>(),
    ) -> SourceSummary {
        let ([first_seen, last_seen], [records, open]) = (times, counts);
        SourceSummary { source, first_seen, last_seen, records, open }
    }
}

prop_compose! {
    pub(crate) fn device_change()(
        strings in prop::array::uniform5(text()),
        shown in prop::array::uniform10(maybe_text()),
        os in option::of((maybe_text(), maybe_text())
            .prop_map(|(name, version)| OperatingSystem { name, version })),
        maps in prop::array::uniform3(texts()),
        numbers in any::<[i32; 2]>(),
        risk in any::<[Option<i32>; 2]>(),
        available in any::<(Option<bool>, Option<i64>)>(),
        lists in prop::array::uniform2(vec(text(), 0..3)),
        sources in vec(summary(), 0..3),
        seen in any::<[i64; 2]>(),
        network_interfaces in vec((maybe_text(), maybe_text(), maybe_text())
            .prop_map(|(ip, mac, name)| NetworkInterface { ip, mac, name }), 0..3),
    ) -> DeviceChange {
        let [uid, partition, r#type, confidence, state] = strings;
        let [name, hostname, ip, mac, vendor_name, model, risk_level, agent_id, gateway_id, site] =
            shown;
        let ([hw_info, tags, metadata], [type_id, records]) = (maps, numbers);
        let ([risk_score, risk_level_id], (is_available, availability_at)) = (risk, available);
        let ([discovery_sources, flags], [first_seen, last_seen]) = (lists, seen);
        DeviceChange {
            uid, partition, name, hostname, ip, mac, r#type, type_id, vendor_name, model, os,
            hw_info, risk_score, risk_level, risk_level_id, is_available, availability_at,
            discovery_sources, sources, confidence, state, first_seen, last_seen, agent_id,
            gateway_id, network_interfaces, site, tags, metadata, records, flags,
        }
    }
}
