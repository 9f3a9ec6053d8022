//! What is told of the dataflow's size.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use serviceradar_schemas::{Action, Claim, Observation, Source};
use serviceradar_streams::{
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
