//! What every implementation of `Views` must do: one function a law, run over each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use serde_json::json;
use serviceradar_materializers::memory::Tables;
use serviceradar_materializers::views::{
    DeadLetter, Epoch, Frontier, OutboxEntry, Pieces, Resume, TenantWriter, Views, ViewsError, Witness,
};
use serviceradar_schemas::{
    Collector, Decision, DeviceChange, NetworkInterface, Source, SourceSummary, Target, encode,
};
use serviceradar_streams::changes::Changes;
use serviceradar_streams::rows::{
    CountRow, DecisionRow, DeviceSeen, EpochOutput, EvidenceRow, EvidenceState, HistoryRow, IssueRow,
    MergeRow, Order, Placement, RecordRow, RecordSeen, SnapshotMemberRow, SnapshotRow, State, Uid,
    WatermarkRow,
};
use serviceradar_streams::sums::{Buckets, Summed, Sums};
use uuid::Uuid;

/// When its world begins, microseconds since 1970.
pub const T0: i64 = 1_767_225_600_000_000;
const TENANT: &str = "acme";

fn uid(n: u128) -> Uid {
    Uid(Uuid::from_u128(n))
}

fn order(n: i64) -> Order {
    // Above 2^63 as well: hashes are unsigned.
    Order { time: T0 + n, hash: u64::MAX - n.unsigned_abs() }
}

fn source() -> Source {
    Source { kind: "armis".to_owned(), instance: "hq".to_owned() }
}

/// A record with every field set that can be.
pub fn full_record(key: &str, seen: i64) -> RecordRow {
    RecordRow {
        record_key: format!("default/armis/hq/{key}").into(),
        uid: Some(uid(1)),
        placement: Placement::Anchored,
        open: true,
        first_seen: Some(T0),
        last_seen: Some(T0 + seen),
        first_asserted: Some(T0 + 1),
        attributes: r#"{"name":"x \\ \" ü"}"#.into(),
        probe: Some((true, T0 + 5)),
        collector: Some(Arc::new(Collector { agent: "a".to_owned(), ..Collector::default() })),
        first_snapshot_begin: Some(T0 - 1),
        last_snapshot_begin: Some(T0 + seen - 1),
        place: Some(("fe80::1:2".parse().unwrap(), order(seen))),
        last_assert: Some((order(seen), T0 + seen)),
        last_full: Some((order(seen), T0 + seen)),
        last_end: Some(order(-9)),
    }
}

/// A record of which only its END is known.
fn bare_record(key: &str) -> RecordRow {
    RecordRow {
        record_key: format!("default/armis/hq/{key}").into(),
        uid: None,
        placement: Placement::Closed,
        open: false,
        first_seen: None,
        last_seen: None,
        first_asserted: None,
        attributes: "{}".into(),
        probe: None,
        collector: None,
        first_snapshot_begin: None,
        last_snapshot_begin: None,
        place: None,
        last_assert: None,
        last_full: None,
        last_end: Some(order(1)),
    }
}

fn evidence(record: &str, namespace: &str, value: &str) -> EvidenceRow {
    let ip = (namespace == "ip").then(|| value.parse().unwrap());
    EvidenceRow {
        record_key: format!("default/armis/hq/{record}").into(),
        namespace: namespace.into(),
        value: value.into(),
        claim_uid: (namespace == "mac").then(|| Uuid::from_u128(7)),
        ip,
        state: if ip.is_some() { EvidenceState::Corroborating } else { EvidenceState::Linking },
        leads: namespace == "mac",
        first_seen: T0,
        first_asserted: T0 + 2,
        last: (namespace == "mac").then(|| (order(3), T0 + 3)),
    }
}

/// A device.
pub fn device(n: u128, name: &str) -> DeviceChange {
    DeviceChange {
        uid: uid(n).to_string(),
        partition: "default".to_owned(),
        name: Some(name.to_owned()),
        ip: Some("10.0.0.1".to_owned()),
        r#type: "Server".to_owned(),
        type_id: 1,
        discovery_sources: vec!["armis".to_owned()],
        confidence: "authoritative".to_owned(),
        state: "active".to_owned(),
        first_seen: T0,
        last_seen: T0 + 3,
        network_interfaces: vec![NetworkInterface { ip: Some("10.0.0.1".to_owned()), ..Default::default() }],
        records: 1,
        ..DeviceChange::default()
    }
}

fn decision(id: &str) -> DecisionRow {
    let target = Target { source: Some(source()), begin: Some(T0), ..Target::default() };
    let decision = Decision {
        id: id.to_owned(),
        event_time: T0 + 4,
        partition: "default".to_owned(),
        action: "accept_snapshot".to_owned(),
        target,
        actor: "guard".to_owned(),
        reason: "all 2 came".to_owned(),
        ..Decision::default()
    };
    DecisionRow { decision, at: T0 + 4, in_force: true }
}

fn snapshot(members: Option<i64>, verdict: Option<&'static str>) -> SnapshotRow {
    SnapshotRow {
        partition: "default".into(),
        source: source(),
        begin: T0,
        id: "s1".to_owned(),
        counted: Some(2),
        members,
        ended_at: Some(T0 + 9),
        verdict,
        detail: String::new(),
    }
}

fn member(key: &str) -> SnapshotMemberRow {
    SnapshotMemberRow {
        partition: "default".into(),
        source: source(),
        begin: T0,
        record_key: format!("default/armis/hq/{key}").into(),
    }
}

fn new<R: serviceradar_streams::changes::Row>(rows: Vec<R>) -> Changes<R> {
    Changes { new: rows, ..Changes::default() }
}

fn frontier(log_partition: u32, next_offset: u64) -> Frontier {
    let witness = Witness { offset: next_offset - 1, append_time: T0, hash: -5 };
    Frontier {
        topic: format!("{TENANT}.observations"),
        log_partition,
        next_offset,
        intake_max: T0 + 8,
        witness: Some(witness),
    }
}

fn epoch(number: u64, output: EpochOutput) -> Epoch {
    Epoch {
        number,
        follows: number - 1,
        closed_at: T0 + 60_000_000 * number.cast_signed(),
        events: 2,
        intake_max: T0 + 8,
        frontiers: vec![frontier(0, number * 10)],
        output,
        dead_letters: Vec::new(),
    }
}

/// An epoch that has something of everything.
pub fn first_epoch() -> Epoch {
    let issue = IssueRow {
        partition: "default".into(),
        kind: "ambiguous",
        namespace: "mac".into(),
        value: "001b21aabb01".into(),
        uids: vec![uid(1), uid(2)],
        detail: "shared".to_owned(),
    };
    let count = CountRow {
        partition: "default".into(),
        dimension: "all",
        value: "".into(),
        devices: 2,
        available: 0,
        unavailable: 0,
        unknown: 2,
    };
    let created = |n| HistoryRow { uid: uid(n), change: "created", cause: "armis/hq:1".to_owned() };
    epoch(
        1,
        EpochOutput {
            devices: new(vec![device(1, "one"), device(2, "two")]),
            records: new(vec![full_record("1", 3), bare_record("2")]),
            evidence: new(vec![
                evidence("1", "mac", "001b21aabb01"),
                evidence("1", "ip", "10.0.0.1"),
                evidence("1", "hostname", "x"),
            ]),
            issues: new(vec![issue]),
            counts: new(vec![count]),
            decisions: new(vec![decision("d1"), decision("d2")]),
            snapshots: new(vec![snapshot(Some(2), None)]),
            snapshot_members: new(vec![member("1"), member("2")]),
            watermarks: new(vec![
                WatermarkRow { partition: Some("default".into()), at: T0 + 9 },
                WatermarkRow { partition: None, at: T0 + 7 },
            ]),
            history: vec![created(1), created(2)],
            merges: Vec::new(),
            sums: Sums::default(),
        },
    )
    .summed(&Tables::default())
}

trait SummedEpoch {
    /// With what it adds to the sums of tables that are like this before it.
    fn summed(self, before: &Tables) -> Self;
}

impl SummedEpoch for Epoch {
    fn summed(mut self, before: &Tables) -> Self {
        fn change<R: Summed>(
            buckets: &mut Buckets,
            before: &BTreeMap<R::Key, R>,
            after: &BTreeMap<R::Key, R>,
        ) {
            for key in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
                let sum = |table: &BTreeMap<R::Key, R>| table.get(key).map_or(0, Summed::sum);
                buckets.change(key, sum(before), sum(after));
            }
        }
        let mut after = before.clone();
        after.apply(&self.output).unwrap();
        let sums = &mut self.output.sums;
        change(&mut sums.devices, &before.devices, &after.devices);
        change(&mut sums.records, &before.records, &after.records);
        change(&mut sums.evidence, &before.evidence, &after.evidence);
        self
    }
}

/// What a second sighting leaves of `full_record`.
fn record_seen(key: &str, seen: i64) -> RecordSeen {
    let row = full_record(key, seen);
    RecordSeen {
        record_key: row.record_key,
        last_seen: row.last_seen,
        probe_at: row.probe.map(|(_, at)| at),
        last_snapshot_begin: row.last_snapshot_begin,
        place: row.place.map(|(_, order)| order),
        last_assert: row.last_assert,
        last_full: row.last_full,
    }
}

/// What follows it: rows of each table changed, gone and new.
pub fn second_epoch() -> Epoch {
    let mut before = Tables::default();
    before.apply(&first_epoch().output).unwrap();
    epoch(
        2,
        EpochOutput {
            devices: Changes {
                new: vec![device(3, "three")],
                changed: vec![device(1, "one renamed")],
                gone: vec![uid(2).to_string()],
                ..Changes::default()
            },
            records: Changes {
                new: vec![bare_record("3")],
                seen: vec![record_seen("1", 50)],
                ..Changes::default()
            },
            evidence: Changes {
                new: vec![evidence("3", "mac", "001b21aabb03")],
                changed: vec![EvidenceRow {
                    state: EvidenceState::Lapsed,
                    ..evidence("1", "ip", "10.0.0.1")
                }],
                gone: vec![("default/armis/hq/1".into(), "hostname".into(), "x".into())],
                ..Changes::default()
            },
            decisions: Changes {
                changed: vec![DecisionRow { in_force: false, ..decision("d2") }],
                ..Changes::default()
            },
            snapshots: Changes { changed: vec![snapshot(None, Some("accepted"))], ..Changes::default() },
            snapshot_members: Changes { gone: vec![member("1"), member("2")], ..Changes::default() },
            watermarks: Changes {
                changed: vec![WatermarkRow { partition: None, at: T0 + 70 }],
                ..Changes::default()
            },
            history: vec![
                HistoryRow { uid: uid(1), change: "changed", cause: String::new() },
                HistoryRow { uid: uid(2), change: "merged", cause: String::new() },
                HistoryRow { uid: uid(3), change: "split", cause: String::new() },
            ],
            merges: vec![MergeRow {
                from_uid: uid(2),
                to_uid: uid(1),
                kind: "merge",
                claim: Some("mac:001b21aabb01".to_owned()),
                rule: "mac",
                records: vec!["default/armis/hq/2".into()],
            }],
            ..EpochOutput::default()
        },
    )
    .summed(&before)
}

/// In one order, whatever the store's.
fn sorted(mut state: State) -> State {
    state.records.sort_by(|a, b| a.record_key.cmp(&b.record_key));
    state.evidence.sort_by(|a, b| {
        (&a.record_key, &a.namespace, &a.value).cmp(&(&b.record_key, &b.namespace, &b.value))
    });
    state.decisions.sort_by(|a, b| a.decision.id.cmp(&b.decision.id));
    state.snapshot_members.sort();
    state.watermarks.sort();
    // JSON, which a database writes in its own way.
    for record in &mut state.records {
        let attributes: serde_json::Value = serde_json::from_str(&record.attributes).unwrap();
        record.attributes = attributes.to_string().into();
    }
    state
}

fn assert_state(found: State, expected: State) {
    let (found, expected) = (sorted(found), sorted(expected));
    assert_eq!(found.records, expected.records);
    assert_eq!(found.evidence, expected.evidence);
    assert_eq!(found.decisions, expected.decisions);
    assert_eq!(found.snapshots, expected.snapshots);
    assert_eq!(found.snapshot_members, expected.snapshot_members);
    assert_eq!(found.watermarks, expected.watermarks);
}

/// All pieces of the state that a writer reads back.
async fn state(writer: &mut dyn TenantWriter) -> State {
    let (put, mut pieces) = tokio::sync::mpsc::channel::<State>(1);
    let mut whole = State::default();
    let collect = async {
        while let Some(piece) = pieces.recv().await {
            assert!(piece.records.is_empty() || whole.evidence.is_empty(), "a record after evidence");
            whole.records.extend(piece.records);
            whole.evidence.extend(piece.evidence);
            whole.decisions.extend(piece.decisions);
            whole.snapshots.extend(piece.snapshots);
            whole.snapshot_members.extend(piece.snapshot_members);
            whole.watermarks.extend(piece.watermarks);
        }
    };
    let (read, ()) = tokio::join!(writer.state(put), collect);
    read.unwrap();
    whole
}

async fn take(views: &dyn Views, writer: &str) -> Result<(Box<dyn TenantWriter>, Resume), ViewsError> {
    views.take(TENANT, writer, "f1", &json!({"a": 1})).await
}

/// A tenant that nobody wrote is at epoch 0, with nothing.
pub async fn begins_empty(views: &dyn Views) {
    let (mut writer, resume) = take(views, "w").await.unwrap();
    assert_eq!((resume.epoch, resume.generation, resume.frontiers.len()), (0, 1, 0));
    assert_state(state(&mut *writer).await, State::default());
}

/// What was committed is what the next writer reads back, every field of it.
pub async fn reads_back_what_was_committed(views: &dyn Views) {
    let (mut writer, _) = take(views, "w").await.unwrap();
    let mut expected = Tables::default();
    for epoch in [first_epoch(), second_epoch()] {
        writer.commit(&epoch).await.unwrap();
        expected.apply(&epoch.output).unwrap();
        let (again, resume) = take(views, "w").await.unwrap();
        writer = again;
        assert_eq!(resume.epoch, epoch.number);
        assert_eq!(resume.frontiers, [frontier(0, epoch.number * 10)]);
        assert_state(state(&mut *writer).await, expected.state());
    }
}

/// Fills a tenant's empty views with the first epoch, in one piece.
pub async fn load(views: &dyn Views, tenant: &str) {
    let (mut writer, resume) = views.take(tenant, "w", "f1", &json!({})).await.unwrap();
    assert_eq!(resume.epoch, 0);
    let whole = first_epoch();
    let (put, pieces) = Pieces::new(2);
    put.send(Some(whole.output.clone())).await.unwrap();
    put.send(None).await.unwrap();
    let empty = Epoch { output: EpochOutput::default(), ..whole };
    writer.load(&empty, pieces).await.unwrap();
    writer.leave().await.unwrap();
}

/// An epoch whose rows come in pieces is, committed, what it is in one; if they break off, nothing is there; and
/// the outbox has one entry for all devices.
pub async fn loads_in_pieces(views: &dyn Views) {
    let (mut writer, _) = take(views, "w").await.unwrap();
    let whole = first_epoch();
    let empty = Epoch { output: EpochOutput::default(), ..whole.clone() };
    let (devices, history) = (whole.output.devices.clone(), whole.output.history.clone());
    let of_devices = EpochOutput { devices, history, ..EpochOutput::default() };
    let rest = EpochOutput { devices: Changes::default(), history: Vec::new(), ..whole.output.clone() };
    let pieces = [of_devices, rest];

    let (put, broken) = Pieces::new(4);
    put.send(Some(pieces[0].clone())).await.unwrap();
    drop(put);
    assert!(matches!(writer.load(&empty, broken).await, Err(ViewsError::Refused(_))));
    for _ in 0..2 {
        let (put, all) = Pieces::new(4);
        for piece in pieces.iter().cloned().map(Some).chain([None]) {
            put.send(piece).await.unwrap();
        }
        writer.load(&empty, all).await.unwrap();
    }
    let entries = writer.outbox().oldest(10, u64::MAX).await.unwrap();
    assert!(entries.len() == 1 && entries[0].is_all_devices(), "{entries:?}");
    let devices = writer.outbox().devices(None, 10).await.unwrap();
    let mut expected: Vec<_> = whole.output.devices.new.iter().map(|row| (row.clone(), 1)).collect();
    // Told without its sources, and shown with what its record says.
    let (first_seen, last_seen) = (T0, T0 + 3);
    expected[0].0.sources =
        vec![SourceSummary { source: source().to_string(), first_seen, last_seen, records: 1, open: 1 }];
    assert_eq!(devices, expected);
    assert_eq!(writer.outbox().devices(Some(uid(1)), 10).await.unwrap(), expected[1..]);
    views.make_indexes(1).await.unwrap();
    views.make_indexes(1).await.unwrap();
    let (mut writer, resume) = take(views, "w").await.unwrap();
    assert_eq!((resume.epoch, resume.is_bare), (1, false));
    let mut expected = Tables::default();
    expected.apply(&whole.output).unwrap();
    assert_state(state(&mut *writer).await, expected.state());
    writer.commit(&second_epoch()).await.unwrap();
}

/// An epoch that is committed again, its answer lost, changes nothing more; one out of turn is refused.
pub async fn commits_once(views: &dyn Views) {
    let (mut writer, _) = take(views, "w").await.unwrap();
    writer.commit(&first_epoch()).await.unwrap();
    writer.commit(&first_epoch()).await.unwrap();
    assert_eq!(writer.outbox().oldest(100, u64::MAX).await.unwrap().len(), 2);
    let mut late = second_epoch();
    (late.number, late.follows) = (3, 2);
    assert!(matches!(writer.commit(&late).await, Err(ViewsError::Refused(_))));
    // What was published before may have had higher numbers.
    let mut above = second_epoch();
    above.number = 70;
    for _ in 0..2 {
        writer.commit(&above).await.unwrap();
    }
    assert_eq!(take(views, "w").await.unwrap().1.epoch, 70);
}

/// While a writer beats, others stand by; when it has left, they take over; what it writes then is refused.
pub async fn fences_the_writer_before(views: &dyn Views) {
    let (mut first, _) = take(views, "first").await.unwrap();
    first.beat().await.unwrap();
    assert!(matches!(take(views, "second").await, Err(ViewsError::Held { writer, .. }) if writer == "first"));
    first.leave().await.unwrap();
    let (mut second, _) = take(views, "second").await.unwrap();
    assert!(matches!(first.commit(&first_epoch()).await, Err(ViewsError::Fenced { .. })));
    assert!(matches!(first.beat().await, Err(ViewsError::Fenced { .. })));
    assert!(matches!(first.outbox().check().await, Err(ViewsError::Fenced { .. })));
    second.outbox().check().await.unwrap();
    second.commit(&first_epoch()).await.unwrap();
    // Read before it was fenced, perhaps.
    assert!(matches!(first.outbox().published(1, i64::MAX).await, Err(ViewsError::Fenced { .. })));
    assert_eq!(second.outbox().oldest(100, u64::MAX).await.unwrap().len(), 2);
}

/// Who stands by reads where the tenant stands, and its state, while another writes it.
pub async fn tells_where_a_tenant_stands(views: &dyn Views) {
    let (mut writer, _) = take(views, "w").await.unwrap();
    assert_eq!(views.standing(TENANT, None).await.unwrap().epoch, 0);
    writer.commit(&first_epoch()).await.unwrap();
    writer.commit(&second_epoch()).await.unwrap();
    let (put, mut pieces) = tokio::sync::mpsc::channel(100);
    let standing = views.standing(TENANT, Some(put)).await.unwrap();
    let (mut writer, taken) = take(views, "w").await.unwrap();
    assert_eq!((standing.epoch, standing.frontiers), (2, taken.frontiers));
    let mut records = 0;
    while let Some(piece) = pieces.recv().await {
        records += piece.records.len();
    }
    assert_eq!(records, state(&mut *writer).await.records.len());
}

/// A writer that was killed and starts again under its name need not wait for itself.
pub async fn lets_a_writer_follow_itself(views: &dyn Views) {
    let (mut killed, _) = take(views, "w").await.unwrap();
    let (mut started_again, _) = take(views, "w").await.unwrap();
    assert!(matches!(killed.commit(&first_epoch()).await, Err(ViewsError::Fenced { .. })));
    started_again.commit(&first_epoch()).await.unwrap();
}

/// Views of another fingerprint are refused, and stay as they are.
pub async fn refuses_another_fingerprint(views: &dyn Views) {
    let (mut writer, _) = take(views, "w").await.unwrap();
    let refused = views.take(TENANT, "w", "f2", &json!({})).await;
    let found =
        matches!(&refused, Err(ViewsError::Fingerprint { found, wanted }) if found == "f1" && wanted == "f2");
    assert!(found, "{:?}", refused.err());
    writer.commit(&first_epoch()).await.unwrap();
}

/// Tenants are apart: each has its own epochs, rows and outbox.
pub async fn keeps_tenants_apart(views: &dyn Views) {
    let (mut acme, _) = take(views, "w").await.unwrap();
    acme.commit(&first_epoch()).await.unwrap();
    let (mut other, resume) = views.take("other", "w", "f1", &json!({})).await.unwrap();
    assert_eq!(resume.epoch, 0);
    assert_state(state(&mut *other).await, State::default());
    other.commit(&first_epoch()).await.unwrap();
    other.outbox().published(1, i64::MAX).await.unwrap();
    assert_eq!(acme.outbox().oldest(100, u64::MAX).await.unwrap().len(), 2);
}

fn header(entry: &OutboxEntry, name: &str) -> Option<String> {
    let found = entry.headers.iter().find(|(header, _)| header == name)?;
    Some(String::from_utf8(found.1.to_vec()).unwrap())
}

/// The outbox tells devices whole, tombstones with where the records went, and dead letters unchanged; in order,
/// until they are published.
pub async fn publishes_in_order_what_changed(views: &dyn Views) {
    let (mut writer, _) = take(views, "w").await.unwrap();
    let mut first = first_epoch();
    first.output.devices.new.push(device(3, "three"));
    writer.commit(&first).await.unwrap();
    let mut second = second_epoch();
    let seen = DeviceSeen {
        uid: uid(3),
        last_seen: T0 + 77,
        availability_at: Some(T0 + 76),
        agent_id: Some("another".to_owned()),
        gateway_id: None,
    };
    second.output.devices.new.clear();
    second.output.devices.seen.push(seen);
    second.output.history.pop();
    second.dead_letters = vec![DeadLetter {
        topic: "acme.observations".to_owned(),
        log_partition: 4,
        offset: 77,
        key: None,
        value: Some(Bytes::from_static(b"\x00garbage\xff")),
        headers: vec![("ce_id".to_owned(), Bytes::from_static(b"\xff\x00"))],
        reason: "unknown schema".to_owned(),
    }];
    writer.commit(&second).await.unwrap();
    let entries = writer.outbox().oldest(100, u64::MAX).await.unwrap();
    let places: Vec<(u64, i64)> = entries.iter().map(|entry| (entry.epoch, entry.sequence)).collect();
    let mut in_order = places.clone();
    in_order.sort_unstable();
    assert_eq!(places, in_order);
    let text =
        |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let of_second: Vec<&OutboxEntry> = entries.iter().filter(|entry| entry.epoch == 2).collect();
    // What only sightings changed is not told.
    assert_eq!(of_second.len(), 3);
    let (renamed, tombstone, letter) = (of_second[0], of_second[1], of_second[2]);
    assert_eq!(text(&renamed.key), Some(uid(1).to_string()));
    assert_eq!(renamed.value.as_deref(), Some(&encode(&device(1, "one renamed"))[..]));
    assert_eq!(
        (header(renamed, "epoch").as_deref(), header(renamed, "generation").as_deref()),
        (Some("2"), Some("1"))
    );
    assert_eq!((text(&tombstone.key), &tombstone.value), (Some(uid(2).to_string()), &None));
    assert_eq!(header(tombstone, "redirect"), Some(uid(1).to_string()));
    assert_eq!(letter.stream, "dead-letters");
    assert_eq!(letter.value.as_deref(), Some(&b"\x00garbage\xff"[..]));
    assert_eq!(letter.headers[0], ("ce_id".to_owned(), Bytes::from_static(b"\xff\x00")));
    assert_eq!(header(letter, "dead-letter-id").as_deref(), Some("acme.observations/4/77"));
    assert_eq!(header(letter, "dead-letter-reason").as_deref(), Some("unknown schema"));

    assert_eq!(writer.outbox().oldest(2, u64::MAX).await.unwrap(), entries[..2]);
    // In pieces of so many bytes, or one entry.
    let size = |entry: &OutboxEntry| entry.value.as_ref().map_or(0, |value| value.len() as u64);
    let of_two = size(&entries[0]) + size(&entries[1]);
    for (bytes, count) in [(0, 1), (of_two - 1, 1), (of_two, 2)] {
        assert_eq!(writer.outbox().oldest(100, bytes).await.unwrap(), entries[..count], "{bytes} bytes");
    }
    let (epoch, sequence) = places[3];
    writer.outbox().published(epoch, sequence).await.unwrap();
    assert_eq!(writer.outbox().oldest(100, u64::MAX).await.unwrap(), entries[4..]);
}
