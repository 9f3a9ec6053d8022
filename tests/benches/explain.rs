//! How long an explanation takes: `cargo bench -p serviceradar-tests --bench explain [DEVICES]`.
//!
//! A million devices, of each a record of Armis and one of a mapper, four claims and an address, taken in by a pipeline
//! into a database as migrated, with all indexes, views and roles. Then devices are looked up at random by uid, address,
//! MAC and record key, and explained; and pairs of them compared.

use std::{error::Error, sync::Arc, time::Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serviceradar_log::{LogStore, MemoryLog};
use serviceradar_materializers::{explain::Found, inventory::Inventory};
use serviceradar_schemas::{
    Address, Claim, Observation, Source,
    time::{Clock, SystemClock},
};
use serviceradar_streams::explain::{compare, device, root};
use serviceradar_tests::{database::Database, stand};

const DEVICES: u32 = 1_000_000;
const TENANT: &str = "bench";
/// Observations published at once.
const CHUNK: usize = 20_000;
const EXPLAINED: usize = 2_000;
/// Events of a device's past that are read.
const TIMELINE: u32 = 100;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let asked = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let devices = asked.map_or(Ok(DEVICES), |asked| asked.parse())?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(all(devices))
}

fn mac(device: u32, port: u32) -> String {
    let number = u64::from(device) * 2 + u64::from(port);
    format!("001b{number:08x}")
}

fn observations(device: u32, now: i64) -> [Observation; 2] {
    let claim = |namespace: &str, value: String| Claim { namespace: namespace.into(), value: value.into() };
    let seen = stand::observation(&device.to_string(), now);
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + device).to_string();
    let of_armis = Observation {
        id: format!("a{device}"),
        claims: vec![
            claim("serial", format!("acme:{device:x}")),
            claim("mac", mac(device, 0)),
            claim("mac", mac(device, 1)),
        ],
        addresses: vec![Address { ip: address, ..Address::default() }],
        ..seen.clone()
    };
    let of_mapper = Observation {
        id: format!("m{device}"),
        source: Source { kind: "mapper".to_owned(), instance: "m1".to_owned() },
        claims: vec![claim("mac", mac(device, 0))],
        ..seen
    };
    [of_armis, of_mapper]
}

async fn all(devices: u32) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(clock.clone()));
    serviceradar_replay::topics::ensure(&*log, TENANT).await?;
    let database = Database::migrated().await;
    let publish = serviceradar_ingest::publish::Observations::new(
        log.clone(),
        format!("{TENANT}.observations"),
        Default::default(),
    );
    let now = clock.now();
    let begun = Instant::now();
    for first in (0..devices).step_by(CHUNK / 2) {
        let of = first..devices.min(first + CHUNK as u32 / 2);
        publish.publish(of.flat_map(|device| observations(device, now))).await?;
    }
    println!("{:<44} {:>9.1} s", "published", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let driver = stand::drive_tenant(TENANT, log, database.url()).await;
    driver.caught_up().await?;
    println!("{:<44} {:>9.1} s", "in the views", begun.elapsed().as_secs_f64());
    driver.stop().await?;

    let mut inventory = Inventory::connect(database.url(), TENANT).await?;
    let rules = inventory.rules().await?.unwrap_or_default();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for by in ["record key", "address", "mac", "uid"] {
        let mut took = Vec::with_capacity(EXPLAINED);
        for _ in 0..EXPLAINED {
            let number = random.random_range(0..devices);
            let what = match by {
                "address" => std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string(),
                "mac" => mac(number, 1),
                key => {
                    let key_of_record = format!("default/armis/hq/{number}");
                    match key {
                        "uid" => one(&mut inventory, &key_of_record).await?,
                        _ => key_of_record,
                    }
                }
            };
            let begun = Instant::now();
            let found = inventory.find(&what).await?;
            let [Found { uid: Some(uid), .. }] = found[..] else {
                return Err(format!("{what}: {found:?}").into());
            };
            let known = inventory.known(uid).await?.ok_or("no device")?;
            let told = device(&known, &rules)?;
            let past = inventory.timeline(uid, TIMELINE).await?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
            if told.records.len() != 2
                || told.records.iter().all(|record| record.link.is_none())
                || past.is_empty()
            {
                return Err(format!("{what} is explained wrongly: {told:?}, {past:?}").into());
            }
        }
        tell(&format!("one device, by {by}"), took);
    }
    let mut took = Vec::with_capacity(EXPLAINED);
    for _ in 0..EXPLAINED {
        let number = random.random_range(0..devices - 1);
        let begun = Instant::now();
        let mut both = Vec::new();
        for number in [number, number + 1] {
            let found = inventory.find(&format!("default/armis/hq/{number}")).await?;
            let uid = found.first().and_then(|found| found.uid).ok_or("no device")?;
            both.push(inventory.known(uid).await?.ok_or("no device")?);
        }
        let comparison = compare(
            (root(&both[0]).unwrap_or_default(), &both[0]),
            (root(&both[1]).unwrap_or_default(), &both[1]),
        );
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        if comparison.one_device || comparison.clashes.is_empty() {
            return Err(format!("{number} and the next are compared wrongly: {comparison:?}").into());
        }
    }
    tell("two devices", took);
    Ok(())
}

/// The uid of a record's device, as text.
async fn one(inventory: &mut Inventory, record: &str) -> Result<String> {
    let found = inventory.find(record).await?;
    Ok(found.first().and_then(|found| found.uid).ok_or("no device")?.to_string())
}

fn tell(what: &str, mut took: Vec<f64>) {
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let (p50, p99, most) = (at(0.5), at(0.99), at(1.0));
    println!("{what:<44} p50 {p50:>6.2} ms, p99 {p99:>6.2} ms, at most {most:>6.2} ms");
}
