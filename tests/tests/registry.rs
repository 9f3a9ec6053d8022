//! The real schema registry: what is registered, what it refuses, and a pipeline whose events have its ids.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use apache_avro::{Schema, from_avro_datum, to_avro_datum, types::Value};
use serde_json::json;
use serviceradar_ingest::publish::{self, Observations};
use serviceradar_log::{LogStore, MemoryLog, NewEvent, Publisher};
use serviceradar_replay::DriverHandle;
use serviceradar_schemas::{
    Decoder, DeviceChange, Event, Framing, Observation,
    catalogue::EventSchema,
    codec::{WriterSchemas, encode_framed, registry_id},
    registry::{Registry, RegistryConfig, RegistryError},
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_tests::{
    database::Database,
    services,
    stand::{TENANT, drive_with, make_topics, observation, observations, published, read_all},
};
use tokio::sync::Mutex;

/// One test at a time: one of them stops the registry.
static REGISTRY: Mutex<()> = Mutex::const_new(());
const LOOK_EVERY: Duration = Duration::from_millis(20);

async fn client() -> Registry {
    Registry::new(RegistryConfig { url: services::registry().await, login: None }).unwrap()
}

/// Registers a schema as any other client would; the status and the answer.
async fn register(subject: &str, schema: &str) -> (u16, serde_json::Value) {
    let url = format!("{}/subjects/{subject}/versions", services::registry().await);
    // Without TLS the system's certificates are not needed, and may be missing.
    let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let answer = http.post(url).json(&json!({ "schema": schema })).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// A tenant that nobody had.
fn new_tenant() -> String {
    format!("t{:016x}", rand::random::<u64>())
}

/// Our schema of an observation, with a field of such a type more.
fn with_rack(field: serde_json::Value) -> String {
    let mut schema: serde_json::Value = serde_json::from_str(Observation::SCHEMA).unwrap();
    schema["fields"].as_array_mut().unwrap().push(field);
    schema.to_string()
}

fn harmless() -> String {
    with_rack(json!({"name": "rack", "type": "string", "default": ""}))
}

fn breaking() -> String {
    with_rack(json!({"name": "rack", "type": "string"}))
}

#[tokio::test]
async fn schemas_are_registered_once_and_a_breaking_change_is_refused() {
    let _alone = REGISTRY.lock().await;
    let (registry, tenant) = (client().await, new_tenant());
    let observation = EventSchema::named("Observation").unwrap();
    assert!(registry.takes(&tenant, observation, &breaking()).await.unwrap(), "nothing is there yet");

    let framings = registry.register(&tenant).await.unwrap();
    assert_eq!(registry.register(&tenant).await.unwrap(), framings);
    let Framing::Confluent { id } = framings.observations else { panic!("{framings:?}") };
    let other = client().await;
    other.learn(&BTreeSet::from([id])).await.unwrap();
    let there = Schema::parse_str(&other.by_id(id).unwrap().unwrap()).unwrap();
    assert_eq!(there, Schema::parse_str(Observation::SCHEMA).unwrap());

    assert!(registry.takes(&tenant, observation, &harmless()).await.unwrap());
    assert!(!registry.takes(&tenant, observation, &breaking()).await.unwrap());
    let subject = observation.subject(&tenant);
    assert_eq!(register(&subject, &breaking()).await.0, 409);
    assert_eq!(register(&subject, &harmless()).await.0, 200);
    // Ours is older now, and stays what it was.
    assert_eq!(registry.register(&tenant).await.unwrap(), framings);
}

/// Whoever reads by what is there could not read ours.
#[tokio::test]
async fn a_subject_that_is_of_another_program_is_left_alone() {
    let _alone = REGISTRY.lock().await;
    let (registry, other) = (client().await, new_tenant());
    // With what it keeps compatible set, as another program would.
    registry.register(&other).await.unwrap();
    let subject = EventSchema::named("Decision").unwrap().subject(&other);
    let refused = register(&subject, &harmless()).await;
    assert_eq!(refused.0, 409, "{}", refused.1);

    let tenant = new_tenant();
    let subject = EventSchema::named("Observation").unwrap().subject(&tenant);
    let theirs = json!({"type": "record", "name": "Observation", "namespace": "serviceradar.v1", "fields": [
        {"name": "native_key", "type": "long"}
    ]});
    assert_eq!(register(&subject, &theirs.to_string()).await.0, 200);
    let url = format!("{}/config/{subject}", services::registry().await);
    let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
    let set = http.put(url).json(&json!({"compatibility": "BACKWARD_TRANSITIVE"})).send().await.unwrap();
    assert!(set.status().is_success());
    let told = registry.register(&tenant).await.unwrap_err();
    assert!(matches!(told, RegistryError::Incompatible { .. }), "{told}");
    assert!(told.to_string().contains(&subject), "{told}");
}

/// An event that somebody wrote by a schema of their own.
fn strange(native_key: &str, id: u32) -> NewEvent {
    let ours = Schema::parse_str(Observation::SCHEMA).unwrap();
    let framed = encode_framed(&observation(native_key, SystemClock.now()), Framing::SingleObject);
    let Value::Record(mut fields) = from_avro_datum(&ours, &mut &framed[10..], None).unwrap() else {
        panic!("an event is a record");
    };
    fields.push(("rack".to_owned(), Value::String("r1".to_owned())));
    let theirs = Schema::parse_str(&harmless()).unwrap();
    let datum = to_avro_datum(&theirs, Value::Record(fields)).unwrap();
    let value = [&[0][..], &id.to_be_bytes(), &datum].concat();
    NewEvent { key: Some(native_key.to_owned().into()), value: Some(value.into()), headers: Vec::new() }
}

async fn records(client: &tokio_postgres::Client) -> Vec<String> {
    let select = "SELECT native_key FROM views_1.device_records WHERE uid IS NOT NULL ORDER BY 1";
    client.query(select, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observations_become_devices_whichever_schema_and_framing_they_have() {
    let _alone = REGISTRY.lock().await;
    let registry = Arc::new(client().await);
    let framings = registry.register(TENANT).await.unwrap();
    let (_, answer) = register(&format!("{}-value", new_tenant()), &harmless()).await;
    let strangers = u32::try_from(answer["id"].as_u64().unwrap()).unwrap();

    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    make_topics(&log).await;
    let topic = Stream::Observations.topic(TENANT);
    let framed = Observations::new(log.clone(), &*topic, framings.observations);
    framed.publish([observation("confluent", SystemClock.now())]).await.unwrap();
    observations(&log).publish([observation("single", SystemClock.now())]).await.unwrap();
    let unknown =
        publish::event(&observation("unknown", SystemClock.now()), Framing::Confluent { id: u32::MAX >> 1 })
            .unwrap();
    let bytes = unknown.value.clone();
    Publisher::new(log.clone(), topic).publish(vec![unknown, strange("stranger", strangers)]).await.unwrap();

    let database = Database::migrated().await;
    let driver = drive_with(TENANT, log.clone(), registry.clone(), framings, database.url()).await;
    driver.caught_up().await.unwrap();
    let client = database.client().await;
    // What a load publishes is encoded then, what an epoch does with it.
    published(&client).await;
    framed.publish([observation("later", SystemClock.now())]).await.unwrap();
    driver.caught_up().await.unwrap();
    published(&client).await;
    driver.stop().await.unwrap();
    assert_eq!(records(&client).await, ["confluent", "later", "single", "stranger"]);

    let letters = read_all(&log, &Stream::DeadLetters.topic(TENANT), 0).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].value, bytes, "as it came");
    let (_, reason) = letters[0].headers.iter().find(|(name, _)| name == "dead-letter-reason").unwrap();
    assert!(std::str::from_utf8(reason).unwrap().contains("a schema with the id"), "{reason:?}");

    let mut decoder = Decoder::<DeviceChange>::with_writers(registry.clone());
    let (mut devices, changes) = (BTreeSet::new(), Stream::DeviceChanges.topic(TENANT));
    for log_partition in 0..log.describe_topic(&changes).await.unwrap().log_partitions {
        for event in read_all(&log, &changes, log_partition).await {
            let value = event.value.unwrap();
            let id = registry_id(&value).unwrap();
            assert_eq!(Framing::Confluent { id }, framings.device_changes);
            registry.learn(&BTreeSet::from([id])).await.unwrap();
            devices.insert(decoder.decode(&value).unwrap().uid);
        }
    }
    assert_eq!(devices.len(), 4);
}

/// Why log partitions are not being read.
fn stalled(driver: &DriverHandle) -> Vec<String> {
    driver.status().partitions.into_values().filter_map(|of| of.stalled).collect()
}

/// It makes no dead letter of what can be read once the registry is back, and needs nobody to start it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_stopped_stalls_the_reader_until_it_is_back() {
    let _alone = REGISTRY.lock().await;
    let framings = client().await.register(TENANT).await.unwrap();
    // One that has asked for nothing yet.
    let registry = Arc::new(client().await);
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    make_topics(&log).await;
    let database = Database::migrated().await;
    let driver = drive_with(TENANT, log.clone(), registry, framings, database.url()).await;
    driver.caught_up().await.unwrap();

    services::down("registry").await;
    let framed = Observations::new(log.clone(), Stream::Observations.topic(TENANT), framings.observations);
    framed.publish([observation("waits", SystemClock.now())]).await.unwrap();
    while stalled(&driver).is_empty() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let told = stalled(&driver);
    assert!(told[0].contains("schema registry"), "{told:?}");
    // It stays so, and is not told as read in between.
    for _ in 0..100 {
        tokio::time::sleep(LOOK_EVERY).await;
        assert_eq!(stalled(&driver).len(), 1);
    }
    services::up("registry").await;
    driver.caught_up().await.unwrap();
    assert_eq!(stalled(&driver), Vec::<String>::new());
    assert_eq!(driver.status().dead_letters, 0);
    driver.stop().await.unwrap();
    assert_eq!(records(&database.client().await).await, ["waits"]);
}
