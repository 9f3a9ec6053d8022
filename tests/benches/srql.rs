//! How long queries take: `cargo bench -p serviceradar-tests --bench srql [DEVICES]`.
//!
//! A million devices, of each a record of Armis with names, vendors, types and sites as an inventory has them, taken in by a
//! pipeline into a TimescaleDB as migrated, with all indexes, views and roles. The service runs in this process; 16
//! clients ask it over HTTP, each one query after the other. Before that, how long a query takes to be read and planned.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::Client;
use serviceradar_log::{LogStore, MemoryLog};
use serviceradar_materializers::views::{Epoch, Views};
use serviceradar_schemas::{
    Address, Claim, DeviceChange, Observation, Probe,
    time::{Clock, SystemClock},
};
use serviceradar_srql::{
    cursor::Cursors,
    plan::{Extent, plan},
    service::{
        ANSWER_BYTES_DEFAULT, Service,
        callers::{Callers, digest},
        live::Live,
        readers::{CONCURRENT_DEFAULT, COST_DEFAULT, Readers},
    },
};
use serviceradar_streams::{
    changes::Changes,
    rows::{EpochOutput, HistoryRow},
    rules::Rules,
};
use serviceradar_tests::{database::Database, stand};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

const DEVICES: u32 = 1_000_000;
const TENANT: &str = "bench";
/// Observations published at once.
const CHUNK: u32 = 20_000;
const CLIENTS: usize = 16;
/// Queries of each kind that a client asks, and that it asks however long they take: the first of each session are planned,
/// and are to be few of all.
const ASKED: usize = 200;
const ASKED_MIN: usize = 25;
/// How long a kind is asked for, but for those.
const ASKED_FOR: Duration = Duration::from_secs(10);
/// Epochs whose telling is measured.
const COMMITS: u64 = 100;
const PLANNED: u32 = 20_000;
/// As after a while of being asked: what devices are found and read by is in the memory of the database, and what the load
/// left there is on disk.
const WARMED: &str = "CHECKPOINT;
    CREATE EXTENSION pg_prewarm;
    SELECT pg_prewarm(c.oid) FROM pg_class c
    WHERE c.relnamespace = 'views_1'::regnamespace AND c.relkind IN ('r', 'i')
      AND c.relname ~ '^(device_summaries|device_details|device_search|device_evidence|record_summaries)'";
const SECOND: i64 = 1_000_000;

const VENDORS: [&str; 8] = ["Axis", "Cisco", "Dell", "HP", "Hikvision", "Apple", "Siemens", "Zebra"];
const OUIS: [u32; VENDORS.len()] =
    [0x00408c, 0x001b54, 0x00188b, 0x001083, 0x4419b6, 0x0017f2, 0x000e8c, 0x00074d];
/// Odd, so that none comes twice.
const MAC_STRIDE: u32 = 0x9e_3779;
const TYPES: [&str; 6] = ["IOT", "Laptop", "Server", "Switch", "Mobile", "Printer"];
const SITES: u32 = 50;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let asked = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let devices = asked.map_or(Ok(DEVICES), |asked| asked.parse())?;
    planning()?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(all(devices))
}

/// A kind of queries: what it is, the query about a device, how many ask, and what is wanted, ms.
type Kind = (&'static str, fn(u32) -> String, usize, &'static str);

const KINDS: [Kind; 20] = [
    ("point, by address", |n| format!("in:devices ip:{}", address(n)), CLIENTS, "50"),
    ("point, by MAC", |n| format!("in:devices mac:{}", mac(n)), CLIENTS, "50"),
    ("point, by host name", |n| format!("in:devices hostname:{}", hostname(n)), CLIENTS, "50"),
    ("prefix of 100 host names", |n| format!("in:devices hostname:{}%", model(n)), CLIENTS, "50"),
    ("prefix of 12,500 host names", |n| format!("in:devices hostname:{}%", begin(n)), CLIENTS, "50"),
    ("substring of a host name", |n| format!("in:devices hostname:%{n:06}%"), CLIENTS, "50"),
    ("free text, 100 devices", |n| format!("in:devices {}", model(n)), CLIENTS, "50"),
    ("an address that is pasted", |n| format!("in:devices {}", address(n)), CLIENTS, "50"),
    ("a MAC that is pasted", |n| format!("in:devices {}", mac(n)), CLIENTS, "50"),
    ("free text, an eighth of all, by name", |_| "in:devices cisco".to_owned(), CLIENTS, "50"),
    ("free text, an eighth of all, by uid", |_| "in:devices cisco sort:uid".to_owned(), CLIENTS, "50"),
    ("list, the first page", |_| "in:devices".to_owned(), CLIENTS, "50"),
    ("list by last_seen", |_| "in:devices sort:last_seen".to_owned(), CLIENTS, "50"),
    ("array", |_| "in:devices discovery_sources:armis limit:20".to_owned(), CLIENTS, "50"),
    ("addresses that begin so, 256", |n| format!("in:devices ip:{}", octets(n)), CLIENTS, "50"),
    ("network of 256 addresses", |n| format!("in:devices ip:{}/24", address(n)), CLIENTS, "50"),
    ("in:device_counts", |_| "in:device_counts".to_owned(), CLIENTS, "50"),
    ("count of all", |_| "in:devices stats:count()".to_owned(), 1, "300"),
    ("counts by type", |_| "in:devices stats:'count() as n by type'".to_owned(), 1, "300"),
    ("average by site", |_| "in:devices stats:'avg(risk_score) by site'".to_owned(), 1, ""),
];

fn address(device: u32) -> String {
    std::net::Ipv4Addr::from(0x0a00_0000 + device).to_string()
}

/// As the faker has them: of a vendor, and spread over all that it may give.
fn mac(device: u32) -> String {
    let vendor = device as usize % OUIS.len();
    let low = (device / OUIS.len() as u32).wrapping_mul(MAC_STRIDE) & 0xff_ffff;
    format!("{:06x}{low:06x}", OUIS[vendor])
}

fn hostname(device: u32) -> String {
    let vendor = VENDORS[device as usize % VENDORS.len()].to_lowercase();
    format!("{vendor}-{:04}-{device:06}", device % 10_000)
}

/// The host name but for its last part: 100 in a million have it.
fn model(device: u32) -> String {
    hostname(device).rsplit_once('-').unwrap_or_default().0.to_owned()
}

/// The host name up to the first digit: 12,500 in a million have it.
fn begin(device: u32) -> String {
    let model = model(device);
    model[..model.len() - 3].to_owned()
}

fn octets(device: u32) -> String {
    format!("{}.%", address(device).rsplit_once('.').unwrap_or_default().0)
}

fn observation(device: u32, now: i64) -> Observation {
    let claim = |namespace: &str, value: String| Claim { namespace: namespace.into(), value: value.into() };
    Observation {
        id: format!("a{device}"),
        claims: vec![claim("serial", format!("acme:{device:x}")), claim("mac", mac(device))],
        addresses: vec![Address { ip: address(device), ..Address::default() }],
        hostname: Some(hostname(device)),
        name: Some(hostname(device).to_uppercase()),
        vendor: Some(VENDORS[device as usize % VENDORS.len()].to_owned()),
        device_type: Some(TYPES[device as usize % TYPES.len()].to_owned()),
        site: Some(format!("site-{}", device % SITES)),
        risk_score: Some((device % 101) as i32),
        probe: if device.is_multiple_of(3) { Probe::Down } else { Probe::Up },
        ..stand::observation(&device.to_string(), now - i64::from(device % 86_400) * SECOND)
    }
}

/// How long reading and planning take.
fn planning() -> Result<()> {
    for (what, query, ..) in KINDS {
        let query = query(7);
        let begun = Instant::now();
        for now in 0..PLANNED {
            plan(&query, i64::from(now), Extent::first()).map_err(|errors| format!("{query}: {errors:?}"))?;
        }
        let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(PLANNED);
        println!("{:<44} {each:>9.1} us, wanted 50", format!("read and planned: {what}"));
    }
    Ok(())
}

async fn all(devices: u32) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(clock.clone()));
    serviceradar_replay::topics::ensure(&*log, TENANT).await?;
    let database = Database::migrated_timescale().await;
    let publish = serviceradar_ingest::publish::Observations::new(
        log.clone(),
        format!("{TENANT}.observations"),
        Default::default(),
    );
    let now = clock.now();
    let begun = Instant::now();
    for first in (0..devices).step_by(CHUNK as usize) {
        publish.publish((first..devices.min(first + CHUNK)).map(|device| observation(device, now))).await?;
    }
    let driver = stand::drive_tenant(TENANT, log, database.url()).await;
    driver.caught_up().await?;
    driver.stop().await?;
    println!("{:<44} {:>9.1} s", "in the views", begun.elapsed().as_secs_f64());
    let client = database.client().await;
    client.batch_execute("VACUUM ANALYZE").await?;
    client.batch_execute(WARMED).await?;

    let sha256: String = digest("key").iter().map(|byte| format!("{byte:02x}")).collect();
    let keys =
        format!("[[key]]\nname = \"k\"\ntenant = \"{TENANT}\"\nrole = \"reader\"\nsha256 = \"{sha256}\"\n");
    let service = Service {
        callers: Callers::read(&keys)?,
        readers: Readers::new(database.url().to_owned(), CONCURRENT_DEFAULT, COST_DEFAULT),
        cursors: Cursors::new(b"key"),
        live: Live::new(CancellationToken::new()),
        clock,
        answer_bytes_max: ANSWER_BYTES_DEFAULT,
        meter: Arc::new(()),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}/api/query", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, service.routes()).into_future());
    // Already there where another was first.
    _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().tls_certs_only([]).build()?;
    for kind in KINDS {
        // One that takes too long is told, and the others are measured.
        if let Err(error) = ask(&client, &base, devices, kind).await {
            println!("{:<44} {error}", kind.0);
        }
    }
    live(&client, &base, &database).await
}

/// How long a kind of queries takes.
async fn ask(client: &Client, base: &str, devices: u32, (what, query, clients, wanted): Kind) -> Result<()> {
    // Where one fails the others end with it: they would ask beside the next kind.
    let mut asking = JoinSet::new();
    for number in 0..clients {
        let (client, base) = (client.clone(), base.to_owned());
        asking.spawn(async move {
            let mut random = ChaCha8Rng::seed_from_u64(number as u64);
            let mut took = Vec::with_capacity(ASKED);
            let asked_from = Instant::now();
            // The first of each connects.
            while took.len() <= ASKED_MIN || (took.len() <= ASKED && asked_from.elapsed() < ASKED_FOR) {
                let query = query(random.random_range(0..devices));
                let begun = Instant::now();
                let request = client.get(&base).query(&[("q", &query)]).bearer_auth("key");
                let answer = request.send().await?.error_for_status()?.bytes().await?;
                took.push(begun.elapsed().as_secs_f64() * 1e3);
                if !answer.starts_with(b"{\"meta\"") || answer.ends_with(b"\"results\":[]}") {
                    return Err(format!("{query} found nothing").into());
                }
            }
            Result::Ok(took.split_off(1))
        });
    }
    let mut took = Vec::new();
    while let Some(asked) = asking.join_next().await {
        took.extend(asked??);
    }
    told(&format!("{what}, {clients} clients"), took, wanted);
    Ok(())
}

fn told(what: &str, mut took: Vec<f64>, wanted: &str) {
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let (p50, p95, most) = (at(0.5), at(0.95), at(1.0));
    println!(
        "{what:<44} p50 {p50:>8.1} ms, p95 {p95:>8.1} ms, at most {most:>8.1} ms; wanted (p95) {wanted}"
    );
}

/// How long after its commit a change is told, by live queries of as many clients.
async fn live(client: &Client, base: &str, database: &Database) -> Result<()> {
    let rules = Rules::default();
    let views = database.views().await;
    let fingerprint = rules.fingerprint(views.layout_version());
    let (mut writer, resume) = views.take(TENANT, "stand", &fingerprint, &rules.canonical()).await?;
    let (put, mut told_at) = mpsc::channel(CLIENTS);
    for _ in 0..CLIENTS {
        let (client, base, put) = (client.clone(), base.to_owned(), put.clone());
        tokio::spawn(async move {
            let query = [("q", "in:devices fields:uid,name limit:1")];
            let request = client.get(format!("{base}/stream")).query(&query).bearer_auth("key");
            let mut events = request.send().await?.error_for_status()?;
            // An event ends with an empty line; it may come in pieces.
            while let Some(piece) = events.chunk().await? {
                if piece.ends_with(b"\n\n") {
                    put.send(Instant::now()).await?;
                }
            }
            Result::Ok(())
        });
    }
    // Of each, the device and that it is the present.
    for _ in 0..CLIENTS {
        told_at.recv().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    while told_at.try_recv().is_ok() {}
    let row = database.client().await;
    let row = row.query_one("SELECT uid::text FROM views_1.device_summaries LIMIT 1", &[]).await?;
    let uid = format!("sr:{}", row.get::<_, String>(0));
    let mut took = Vec::new();
    for number in 1..=COMMITS {
        let device = DeviceChange {
            uid: uid.clone(),
            partition: "default".to_owned(),
            name: Some(format!("name {number}")),
            r#type: "Server".to_owned(),
            confidence: "authoritative".to_owned(),
            state: "active".to_owned(),
            ..DeviceChange::default()
        };
        let history = vec![HistoryRow { uid: uid.parse()?, change: "changed", cause: String::new() }];
        let devices = Changes { changed: vec![device], ..Changes::default() };
        let epoch = Epoch {
            number: resume.epoch + number,
            follows: resume.epoch + number - 1,
            closed_at: SystemClock.now(),
            events: 1,
            intake_max: SystemClock.now(),
            frontiers: Vec::new(),
            output: EpochOutput { devices, history, ..EpochOutput::default() },
            dead_letters: Vec::new(),
        };
        writer.commit(&epoch).await?;
        let committed = Instant::now();
        for _ in 0..CLIENTS {
            // It may be told before the writer has heard that it was committed.
            let told_at = told_at.recv().await.ok_or("a live query ended")?;
            took.push(told_at.saturating_duration_since(committed).as_secs_f64() * 1e3);
        }
    }
    told(&format!("a commit, told by {CLIENTS} live queries"), took, "200");
    Ok(())
}
