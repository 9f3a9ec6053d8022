//! What is told of the dataflow's size.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use serviceradar_schemas::{Action, Claim, Coverage, Observation, Source};
use serviceradar_streams::{
    dataflow::ScopeGauges,
    engine::{Batch, Engine},
    normalise::normalise,
    rules::Rules,
};

#[test]
fn an_epoch_that_changes_no_record_leaves_the_sizes_as_they_were() {
    let observation = Observation {
        event_time: 1,
        partition: "default".to_owned(),
        source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
        native_key: "1".to_owned(),
        action: Action::Assert,
        claims: vec![Claim { namespace: "armis/hq".into(), value: "1".into() }],
        ..Observation::default()
    };
    let sightings = vec![normalise(observation, None).unwrap()];
    let mut engine = Engine::start("default", &Arc::new(Rules::default()), 1).unwrap();
    let first = engine.epoch(Batch { sightings, decisions: Vec::new() }).unwrap().gauges;
    assert_eq!(first.records, 1);
    assert_eq!(engine.epoch(Batch::default()).unwrap().gauges, first);
}

/// What Armis says of a record: its key, what it does, and its claims.
type Seen<'a> = (&'a str, Action, &'a [(&'a str, &'a str)]);

/// One epoch of records of Armis.
fn epoch(engine: &mut Engine, at: i64, records: &[Seen<'_>]) -> (ScopeGauges, Option<i64>) {
    let sighting = |(key, action, claims): &Seen<'_>| {
        let claim = |(namespace, value): &(&str, &str)| Claim {
            namespace: (*namespace).into(),
            value: (*value).into(),
        };
        let observation = Observation {
            event_time: at * 1_000_000,
            partition: "plant".to_owned(),
            source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
            native_key: (*key).to_owned(),
            action: *action,
            coverage: Coverage::Full,
            claims: claims.iter().map(claim).collect(),
            ..Observation::default()
        };
        normalise(observation, None).unwrap()
    };
    let sightings = records.iter().map(sighting).collect();
    let closed = engine.epoch(Batch { sightings, decisions: Vec::new() }).unwrap();
    let counts = &closed.output.counts;
    let all = counts.new.iter().chain(&counts.changed).find(|row| row.dimension == "all");
    (closed.gauges.scopes["plant"], all.map(|row| row.devices))
}

#[test]
fn exclusive_claims_are_counted_with_the_devices_that_hold_them() {
    let mut engine = Engine::start("default", &Arc::new(Rules::default()), 1).unwrap();
    let of =
        |scope: ScopeGauges| (scope.devices, scope.retired, scope.exclusive.claims, scope.exclusive.holders);
    // The native key is a claim of Armis; a MAC is no exclusive one.
    let two: [Seen<'_>; 2] = [
        ("1", Action::Assert, &[("serial", "acme:sn1001"), ("mac", "00:1b:21:00:00:01")]),
        ("2", Action::Assert, &[("serial", "acme:sn1002")]),
    ];
    let (scope, all) = epoch(&mut engine, 1_800_000_000, &two);
    assert_eq!((of(scope), all), ((2, 0, 4, 4), Some(2)));
    // The same once more, and nothing.
    assert_eq!(of(epoch(&mut engine, 1_800_000_001, &two).0), (2, 0, 4, 4));
    assert_eq!(of(epoch(&mut engine, 1_800_000_002, &[]).0), (2, 0, 4, 4));
    // A third that says it is the second: two keys of Armis, one serial, in one device.
    let (scope, all) =
        epoch(&mut engine, 1_800_000_003, &[("3", Action::Assert, &[("serial", "acme:sn1002")])]);
    assert_eq!((of(scope), all), ((2, 0, 5, 4), None));
    // It has another serial now: a device of its own.
    let (scope, all) =
        epoch(&mut engine, 1_800_000_004, &[("3", Action::Assert, &[("serial", "acme:sn1003")])]);
    assert_eq!((of(scope), all), ((3, 0, 6, 6), Some(3)));
    // What is ended claims nothing.
    let (scope, _) = epoch(&mut engine, 1_800_000_005, &[("1", Action::End, &[])]);
    assert_eq!((scope.exclusive.claims, scope.exclusive.holders), (4, 4));
}
