//! The faker as others see it: over HTTP, across restarts, and against its own truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::bench::{Bench, NOW, config};
use serde_json::{Value, json};
use serviceradar_ingest::{
    faker::{Belongs, Faker, FakerConfig, FakerError, SECRET, StateError},
    sync::armis::crawl,
};
use serviceradar_schemas::{
    Action, Observation, Probe,
    time::{HOUR, MINUTE, ManualClock},
};
use tokio_util::sync::CancellationToken;

const DEVICES: usize = 4_000;

fn open(dir: &tempfile::TempDir, devices: usize, seed: u64) -> Result<Arc<Faker>, FakerError> {
    let config = FakerConfig { seed, ..config(dir, devices) };
    Faker::open(config, Arc::new(ManualClock::new(NOW)))
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let before = open(&dir, DEVICES, 1).unwrap();
    let fresh = before.truth();
    for _ in 0..3 {
        before.shuffle().unwrap();
    }
    let after = open(&dir, DEVICES, 1).unwrap();
    assert_ne!(before.truth(), fresh);
    assert_eq!(after.truth(), before.truth());
    assert_eq!((before.shuffle().unwrap(), after.shuffle().unwrap()), (4, 4));
    assert_eq!(after.truth(), before.truth());
}

#[test]
fn the_state_of_others_and_damage_are_refused_with_the_file_named() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir, DEVICES, 1).unwrap();
    for (devices, seed) in [(DEVICES, 2), (DEVICES + 1, 1)] {
        let error = open(&dir, devices, seed).err().unwrap();
        assert!(matches!(error, FakerError::State(StateError::Other { .. })), "{error}");
    }
    let file = dir.path().join("faker.json");
    let whole = std::fs::read_to_string(&file).unwrap();
    let twice = whole.replace("\"slots\":[0,1,", "\"slots\":[0,0,");
    assert_ne!(twice, whole);
    for damaged in [&whole[..whole.len() / 2], "", "{}", &twice] {
        std::fs::write(&file, damaged).unwrap();
        let error = open(&dir, DEVICES, 1).err().unwrap();
        assert!(error.to_string().contains("delete"), "{error}");
    }
}

#[test]
fn a_shuffle_that_cannot_be_kept_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let faker = open(&dir, DEVICES, 1).unwrap();
    let before = faker.truth();
    // A file where the folder was.
    std::fs::remove_dir_all(dir.path()).unwrap();
    std::fs::write(dir.path(), "").unwrap();
    assert!(matches!(faker.shuffle(), Err(FakerError::State(StateError::Io { .. }))));
    assert_eq!(faker.truth(), before);
    std::fs::remove_file(dir.path()).unwrap();
}

#[test]
fn more_devices_than_addresses_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(open(&dir, 1 << 30, 1), Err(FakerError::TooManyDevices(_))));
}

async fn status_and_json(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn the_interface_is_that_of_armis() {
    let bench = Bench::new(DEVICES).await;
    // Also installs what the HTTP client needs.
    bench.client();
    let (http, url) = (reqwest::Client::new(), bench.serving.url());
    let form = |secret| http.post(format!("{url}/api/v1/access_token/")).form(&[("secret_key", secret)]);
    assert_eq!(status_and_json(form("wrong")).await.0, 401);
    let (status, answer) = status_and_json(form(SECRET)).await;
    assert_eq!((status, &answer["success"]), (200, &json!(true)));
    assert!(answer["data"]["expiration_utc"].is_string());
    let token = answer["data"]["access_token"].as_str().unwrap();

    let get = |path: &str, token: &str| http.get(format!("{url}{path}")).header("Authorization", token);
    let search = "/api/v1/search/?aql=in:devices&length=10&from=3995";
    assert_eq!(status_and_json(get(search, "wrong")).await.0, 401);
    assert_eq!(status_and_json(get("/api/v1/search/?aql=in:alerts", token)).await.0, 400);
    let data = &status_and_json(get(search, token)).await.1["data"];
    assert_eq!((&data["count"], &data["total"]), (&json!(5), &json!(DEVICES)));
    assert_eq!((&data["next"], &data["prev"]), (&Value::Null, &json!(3985)));
    let data = &status_and_json(get("/api/v1/search/?aql=in:devices", token)).await.1["data"];
    assert_eq!((&data["count"], &data["next"], &data["prev"]), (&json!(100), &json!(100), &Value::Null));
    for field in [
        "accessSwitch",
        "boundaries",
        "businessImpact",
        "category",
        "customProperties",
        "dataSources",
        "displayTitle",
        "firstSeen",
        "id",
        "ipAddress",
        "ipv6",
        "lastSeen",
        "macAddress",
        "manufacturer",
        "model",
        "name",
        "names",
        "operatingSystem",
        "operatingSystemVersion",
        "plcModule",
        "protections",
        "purdueLevel",
        "riskLevel",
        "sensor",
        "site",
        "tags",
        "type",
        "typeEnum",
        "user",
        "userIds",
        "visibility",
    ] {
        assert!(data["results"][0].get(field).is_some(), "{field}");
    }

    let first = &data["results"][0];
    let by_id = format!("/api/v1/devices?id={}", first["id"]);
    assert_eq!(status_and_json(get(&by_id, token)).await.1["data"]["results"], json!([first]));
    let ip = first["ipAddress"].as_str().unwrap().split(',').next().unwrap();
    let by_ip = status_and_json(get(&format!("/api/v1/devices?ip={ip}"), token)).await.1;
    assert_eq!(by_ip["data"]["results"], json!([first]));

    let fault = json!({"fault": "server_error"});
    let armed = http.post(format!("{url}/control/faults")).json(&fault).send().await.unwrap();
    assert_eq!(armed.status(), 204);
    assert_eq!(status_and_json(get(search, token)).await.0, 500);
    assert_eq!(status_and_json(get(search, token)).await.0, 200);
    let shuffled = status_and_json(http.post(format!("{url}/control/shuffle"))).await.1;
    assert_eq!(shuffled["data"], 1);
}

#[tokio::test]
async fn addresses_move_by_themselves_while_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let shuffle_every = Some(Duration::from_millis(10));
    let config = FakerConfig { shuffle_every, ..config(&dir, 200) };
    let faker = Faker::open(config, Arc::new(ManualClock::new(NOW))).unwrap();
    let before = faker.truth();
    let shutdown = CancellationToken::new();
    let serving = faker.serve(shutdown.clone()).await.unwrap();
    while faker.truth() == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.cancel();
    serving.task.await.unwrap();
}

/// What Armis says, by record key.
struct Inventory(BTreeMap<String, Observation>);

impl Inventory {
    async fn of(bench: &Bench) -> Self {
        let before = bench.log.read().await.len();
        crawl(&bench.client(), &bench.log.observations, &*bench.clock, |_| {}).await.unwrap();
        let mut records = BTreeMap::new();
        let all = bench.log.read().await;
        assert!(all.len() > before);
        for observation in all.into_iter().filter(|o| o.action == Action::Assert) {
            let newer = |old: &Observation| {
                old.snapshot.as_ref().map(|s| s.begin) < observation.snapshot.as_ref().map(|s| s.begin)
            };
            if records.get(&observation.record_key()).is_none_or(newer) {
                records.insert(observation.record_key(), observation);
            }
        }
        Self(records)
    }

    /// The records that claim a MAC.
    fn claimants(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut claimants = BTreeMap::<&str, BTreeSet<&str>>::new();
        for (key, record) in &self.0 {
            for claim in &record.claims {
                claimants.entry(&claim.value).or_default().insert(key);
            }
        }
        claimants
    }

    /// The record that lists an address.
    fn holders(&self) -> BTreeMap<&str, &str> {
        let mut holders = BTreeMap::new();
        for (key, record) in &self.0 {
            for address in &record.addresses {
                let other = holders.insert(address.ip.as_str(), key.as_str());
                assert_eq!(other, None, "{} is held twice", address.ip);
            }
        }
        holders
    }
}

/// Judges the truth by what the sources say alone, by the rules of identity.
fn assert_true(faker: &Faker, inventory: &Inventory) -> BTreeMap<String, Belongs> {
    let (truth, claimants, holders) = (faker.truth(), inventory.claimants(), inventory.holders());
    let others: Vec<Observation> = faker.observations_of_others().collect();
    let keys: BTreeSet<String> =
        inventory.0.keys().cloned().chain(others.iter().map(Observation::record_key)).collect();
    assert_eq!(truth.records.keys().cloned().collect::<BTreeSet<_>>(), keys);
    assert_eq!(truth.devices, inventory.0.len());
    for key in inventory.0.keys() {
        assert_eq!(truth.of(key), Some(&Belongs::To(key.clone())));
    }
    for record in &others {
        let claimed_by = record.claims.iter().map(|claim| &claimants[claim.value.as_str()]);
        // A MAC of several devices that have an Armis id each tells nothing.
        let devices: BTreeSet<&str> =
            claimed_by.filter(|claimants| claimants.len() == 1).flatten().copied().collect();
        let devices: Vec<&str> = devices.into_iter().collect();
        let expected = match (devices.as_slice(), record.addresses.first()) {
            ([device], _) => Belongs::To((*device).to_owned()),
            // Of none that can be told, or of several: it goes by its address.
            (_, Some(address)) => {
                let holder = holders[address.ip.as_str()];
                let lease = record.event_time - inventory.0[holder].event_time;
                assert!((0..6 * HOUR).contains(&lease), "{holder} was seen too long ago");
                Belongs::To(holder.to_owned())
            }
            (_, None) => Belongs::CannotTell,
        };
        assert_eq!(truth.of(&record.record_key()), Some(&expected), "{}", record.record_key());
    }
    truth.records
}

#[tokio::test]
async fn the_truth_is_what_the_sources_say_before_and_after_shuffles() {
    let bench = Bench::new(DEVICES).await;
    let mut before = assert_true(&bench.faker, &Inventory::of(&bench).await);
    for shuffle in 1..=3 {
        bench.clock.set(NOW + shuffle * 40 * MINUTE);
        bench.faker.shuffle().unwrap();
        let after = assert_true(&bench.faker, &Inventory::of(&bench).await);
        assert!(before.keys().eq(after.keys()), "no record comes or goes");
        let moved: Vec<&String> =
            before.iter().filter(|(key, of)| after[*key] != **of).map(|(key, _)| key).collect();
        assert!(!moved.is_empty());
        assert!(moved.iter().all(|key| key.starts_with("default/sweep/k1/")), "{moved:?}");
        before = after;
    }
}

#[tokio::test]
async fn the_others_see_their_parts_in_every_kind() {
    let bench = Bench::new(DEVICES).await;
    let truth = bench.faker.truth();
    let others: Vec<Observation> = bench.faker.observations_of_others().collect();
    let (sweep, mapper): (Vec<_>, Vec<_>) = others.iter().partition(|o| o.source.kind == "sweep");
    assert!(sweep.len() >= DEVICES * 3 / 10);
    assert!(sweep.iter().all(|o| {
        o.claims.is_empty() && o.addresses.len() == 1 && o.probe == Probe::Up && o.event_time == NOW
    }));
    let (machines, rest): (Vec<_>, Vec<_>) =
        mapper.into_iter().partition(|o| o.native_key.starts_with("node-"));
    assert_eq!(machines.len(), DEVICES / 5);
    let count = |prefix: &str, belongs: fn(&Belongs) -> bool| {
        rest.iter()
            .filter(|o| o.native_key.starts_with(prefix))
            .filter(|o| truth.of(&o.record_key()).is_some_and(belongs))
            .count()
    };
    assert_eq!(count("arp-", |of| *of == Belongs::CannotTell), 1);
    assert!(count("dock-", |of| *of == Belongs::CannotTell) > 0);
    assert!(count("dock-", |of| matches!(of, Belongs::To(_))) > 0);
    assert_eq!(bench.log.observations.publish(others.clone()).await.unwrap(), others.len());
    assert_eq!(bench.log.read().await.len(), others.len());
}
