//! The views do not depend on the order in which a log is read, as far as a log leaves it open.

use std::{collections::BTreeMap, sync::Arc};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use serviceradar_log::{Event, LogStore, MemoryLog, NewEvent};
use serviceradar_materializers::{
    PostgresViews,
    views::{Epoch, Frontier, Views as _},
};
use serviceradar_replay::{
    intake::{Intake, Taking},
    topics::{Partition, read_by},
};
use serviceradar_schemas::{
    Action, Claim, Decision, Observation, Source, Target,
    codec::NoRegistry,
    encode,
    time::{Clock, SystemClock},
};
use serviceradar_streams::{
    engine::{Batch, Engine},
    rules::Rules,
};
use serviceradar_tests::{
    database::Database,
    stand::{Network, TENANT, Views, decisions, drive, make_topics, observations, read_all},
};

const DEVICES: usize = 60;
const ORDERS: u64 = 100;
/// Epochs of an order, at most.
const EPOCHS_MAX: usize = 6;

/// A log partition as it stands.
type Column = (Partition, Vec<Event>);

/// Three looks at a network whose addresses move, an operator's word, an END, and a live run over them.
async fn a_log(database: &Database) -> Vec<Column> {
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    make_topics(&log).await;
    let driver = drive(log.clone(), database.url()).await;
    let network = Network::new(DEVICES).await;
    for _ in 0..3 {
        network.look(&log).await;
        driver.caught_up().await.unwrap();
        network.faker.shuffle().unwrap();
    }
    let seen = network.faker.observations_of_others().find(|seen| !seen.claims.is_empty()).unwrap();
    let target = Target { claim: seen.claims.first().cloned(), ..Target::default() };
    decide(&log, "d1", "block", target).await;
    let end = Observation { action: Action::End, event_time: SystemClock.now(), ..seen };
    observations(&log).publish([end]).await.unwrap();
    let claim = |value: &str| Claim { namespace: "serial".into(), value: value.into() };
    let other = |native_key: &str, value| Observation {
        id: format!("netbox {native_key}"),
        event_time: SystemClock.now(),
        partition: "default".to_owned(),
        source: Source { kind: "netbox".to_owned(), instance: "n1".to_owned() },
        native_key: native_key.to_owned(),
        claims: vec![claim(value)],
        ..Observation::default()
    };
    let both = [other("a", "ACME:SN-A-1"), other("b", "ACME:SN-B-1")];
    observations(&log).publish(both).await.unwrap();
    let target =
        Target { claims: Some(vec![claim("ACME:SN-A-1"), claim("ACME:SN-B-1")]), ..Target::default() };
    decide(&log, "d2", "link", target).await;
    driver.caught_up().await.unwrap();
    assert_eq!(driver.status().dead_letters, 0);
    driver.stop().await.unwrap();

    let mut columns = Vec::new();
    for partition in read_by(&*log, TENANT).await.unwrap() {
        let events = read_all(&log, &partition.topic, partition.log_partition).await;
        columns.push((partition, events));
    }
    columns
}

async fn decide(log: &Arc<dyn LogStore>, id: &str, action: &str, target: Target) {
    let decision = Decision {
        id: id.to_owned(),
        event_time: SystemClock.now(),
        partition: "default".to_owned(),
        action: action.to_owned(),
        target,
        actor: "test".to_owned(),
        ..Decision::default()
    };
    let event = NewEvent { value: Some(encode(&decision).into()), ..NewEvent::default() };
    decisions(log).publish(vec![event]).await.unwrap();
}

/// Cuts each column into a piece for each epoch: order within a column stays, all else is chance.
fn cut(columns: &[Column], chance: &mut StdRng) -> Vec<Vec<(usize, std::ops::Range<usize>)>> {
    let epochs = chance.random_range(1..=EPOCHS_MAX);
    let mut order = vec![Vec::new(); epochs];
    for (column, (_, events)) in columns.iter().enumerate() {
        let mut cuts: Vec<usize> = (1..epochs).map(|_| chance.random_range(0..=events.len())).collect();
        cuts.extend([0, events.len()]);
        cuts.sort_unstable();
        for (epoch, ends) in order.iter_mut().zip(cuts.windows(2)) {
            // Columns come in any order in an epoch.
            let at = chance.random_range(0..=epoch.len());
            epoch.insert(at, (column, ends[0]..ends[1]));
        }
    }
    order
}

/// Takes the log into the views in an order of its own.
async fn run(views: &PostgresViews, columns: &[Column], order: Vec<Vec<(usize, std::ops::Range<usize>)>>) {
    let rules = Arc::new(Rules::default());
    let fingerprint = rules.fingerprint(views.layout_version());
    let (mut writer, _) = views.take(TENANT, "stand", &fingerprint, &json!({})).await.unwrap();
    let mut engine = Engine::start(TENANT, &rules, 1).unwrap();
    let mut intakes: Vec<Intake> =
        columns.iter().map(|(of, _)| Intake::of(&of.topic, Arc::new(NoRegistry))).collect();
    for (number, pieces) in (1..).zip(order) {
        let (mut batch, mut frontiers, mut count) = (Batch::default(), Vec::new(), 0);
        for (column, range) in pieces {
            let (partition, events) = &columns[column];
            for event in &events[range.clone()] {
                let off = &mut BTreeMap::new();
                match intakes[column].take(partition, event.clone(), event.append_time, off).unwrap() {
                    Taking::Sighting(sighting) => batch.sightings.push(*sighting),
                    Taking::Decision(taken) => batch.decisions.push(*taken),
                    Taking::Refused(letter) => panic!("{}", letter.reason),
                }
            }
            count += range.len() as u64;
            frontiers.push(Frontier {
                topic: partition.topic.clone(),
                log_partition: partition.log_partition,
                next_offset: range.end as u64,
                intake_max: 0,
                witness: None,
            });
        }
        let closed = engine.epoch(batch).unwrap();
        let epoch = Epoch {
            number,
            follows: number - 1,
            closed_at: SystemClock.now(),
            events: count,
            intake_max: 0,
            frontiers,
            output: closed.output,
            dead_letters: Vec::new(),
        };
        writer.commit(&epoch).await.unwrap();
    }
    writer.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_orders_of_a_log_make_the_views_of_the_live_run() {
    let database = Database::migrated().await;
    let columns = a_log(&database).await;
    let stand = Views::new(database.client().await).await;
    assert_eq!(
        stand.count("SELECT count(*) FROM views_1.decisions WHERE action IN ('block', 'link')").await,
        2
    );
    let views = database.views().await;
    stand.keep_and_clear().await;
    let seed: u64 = rand::random();
    for n in 0..ORDERS {
        let seed = seed.wrapping_add(n);
        run(&views, &columns, cut(&columns, &mut StdRng::seed_from_u64(seed))).await;
        stand.assert_as_kept(&format!("order {n}, seed {seed}")).await;
        stand.clear().await;
    }
}
