//! How long the views take to be made anew, to be verified, and to change places: `cargo bench -p serviceradar-tests --bench
//! replay [DEVICES]`.
//!
//! A million devices, of each a record of Armis and one of a mapper, lie in Kafka; a pipeline writes them into a TimescaleDB as
//! migrated, with all indexes, views and roles. Then another generation is built beside, verified and promoted, while
//! observations come in and the service of queries is asked; how long it takes until an observation is committed is measured with
//! and without a rebuild beside; and the log is archived and restored. All in one process, on the same two cores as Kafka and the database.

use std::{
    collections::BTreeMap,
    error::Error,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use serviceradar_ingest::publish::Observations;
use serviceradar_log::{KafkaConfig, KafkaLog, LogStore, RatedLog};
use serviceradar_materializers::PostgresViews;
use serviceradar_replay::{
    Driver, DriverConfig, DriverHandle, Phase,
    archive::{self, Place},
    candidate::{Candidate, CandidateConfig},
    restore::{self, Plan},
    verify::Verify,
};
use serviceradar_schemas::{
    Address, Claim, Framings, Observation, Operation, Source,
    codec::NoRegistry,
    time::{Clock, SystemClock},
};
use serviceradar_srql::{
    cursor::Cursors,
    service::{
        ANSWER_BYTES_DEFAULT, Service,
        callers::{Callers, digest},
        live::Live,
        readers::{CONCURRENT_DEFAULT, COST_DEFAULT, Readers},
    },
};
use serviceradar_streams::rules::Rules;
use serviceradar_tests::{database::Database, services, stand};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const DEVICES: u32 = 1_000_000;
const TENANT: &str = "bench";
/// Observations published at once.
const CHUNK: u32 = 20_000;
/// Queries a second while places change.
const QUERIES: u32 = 100;
/// Observations a second that come in meanwhile.
const SEEN: u32 = 500;
/// How long latencies are measured.
const MEASURED: Duration = Duration::from_secs(60);
/// Of a rebuild beside which they are.
const RATE: u32 = 10_000;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let asked = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let devices = asked.map_or(Ok(DEVICES), |asked| asked.parse())?;
    serviceradar_ops::memory::use_small_pages();
    serviceradar_ops::memory::runtime()?.block_on(all(devices))
}

fn observations(device: u32, now: i64) -> [Observation; 2] {
    let claim = |namespace: &str, value: String| Claim { namespace: namespace.into(), value: value.into() };
    let mac = |port: u32| format!("001b{:08x}", u64::from(device) * 2 + u64::from(port));
    let seen = stand::observation(&device.to_string(), now);
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + device).to_string();
    let of_armis = Observation {
        id: format!("a{device}"),
        claims: vec![claim("serial", format!("acme:{device:x}")), claim("mac", mac(0)), claim("mac", mac(1))],
        addresses: vec![Address { ip: address, ..Address::default() }],
        hostname: Some(format!("host-{device}")),
        ..seen.clone()
    };
    let of_mapper = Observation {
        id: format!("m{device}"),
        source: Source { kind: "mapper".to_owned(), instance: "m1".to_owned() },
        claims: vec![claim("mac", mac(0))],
        ..seen
    };
    [of_armis, of_mapper]
}

fn told(what: &str, since: Instant, wanted: &str) {
    println!("{what:<56} {:>9.2} s{wanted}", since.elapsed().as_secs_f64());
}

struct Stand {
    servers: String,
    log: Arc<dyn LogStore>,
    database: Database,
    devices: u32,
}

/// A client of its own, as each process has: of one, all who read wait for each other.
fn client(servers: &str) -> Result<Arc<dyn LogStore>> {
    Ok(Arc::new(KafkaLog::new(&KafkaConfig { servers: servers.to_owned(), ..KafkaConfig::default() })?))
}

impl Stand {
    async fn live(&self) -> DriverHandle {
        let config = stand::config(TENANT, "live", self.log.clone(), self.database.url()).await;
        Driver::start(DriverConfig { rules: None, ..config })
    }

    fn publisher(&self) -> Observations {
        Observations::new(self.log.clone(), format!("{TENANT}.observations"), Default::default())
    }

    async fn candidate(&self, log: Arc<dyn LogStore>) -> Result<Candidate> {
        let views: Arc<PostgresViews> = Arc::new(self.database.views().await);
        let rules = Rules::default();
        let id = views.building(&rules).await?;
        let config = CandidateConfig {
            writer: "candidate".to_owned(),
            workers: 1,
            log,
            writers: Arc::new(NoRegistry),
            framings: Framings::default(),
            views,
            clock: Arc::new(SystemClock),
            ticks: false,
            journals_kept: None,
        };
        Ok(Candidate::start(config, id, rules).await?)
    }

    /// Observations come in, of devices that are there, until told to stop.
    fn seen(&self, is_over: Arc<AtomicBool>) -> tokio::task::JoinHandle<()> {
        let (publisher, devices) = (self.publisher(), self.devices);
        tokio::spawn(async move {
            let mut number = 0;
            let mut tick = tokio::time::interval(Duration::from_secs(1) / (SEEN / 10));
            while !is_over.load(Ordering::Relaxed) {
                tick.tick().await;
                let now = SystemClock.now();
                let seen: Vec<_> =
                    (0..10).map(|of| observations((number + of) % devices, now)[0].clone()).collect();
                number += 10;
                if publisher.publish(seen).await.is_err() {
                    return;
                }
            }
        })
    }

    /// How long it takes until what is observed is committed: p50 and p99, ms.
    async fn latencies(&self, live: &DriverHandle) -> Result<(f64, f64)> {
        let publisher = self.publisher();
        let mut took = Vec::new();
        let begun = Instant::now();
        let mut number = 0_u32;
        while begun.elapsed() < MEASURED {
            let device = number.wrapping_mul(7_919) % self.devices;
            number += 1;
            let sent = Instant::now();
            let mut status = live.watch();
            publisher.publish([observations(device, SystemClock.now())[0].clone()]).await?;
            // It is behind the ends that are known now, in whichever log partition it is.
            let mut ends = Vec::new();
            for partition in serviceradar_replay::topics::read_by(&*self.log, TENANT).await? {
                let offsets = self.log.offsets(&partition.topic, partition.log_partition).await?;
                ends.push((partition.to_string(), offsets.end));
            }
            let is_there = |status: &serviceradar_replay::DriverStatus| {
                ends.iter()
                    .all(|(name, end)| status.partitions.get(name).is_some_and(|p| p.next_offset >= *end))
            };
            status.wait_for(is_there).await?;
            took.push(sent.elapsed().as_secs_f64() * 1e3);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        took.sort_by(f64::total_cmp);
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        Ok((at(0.5), at(0.99)))
    }
}

async fn all(devices: u32) -> Result<()> {
    let servers = services::kafka().await;
    let log = client(&servers)?;
    for topic in log.topics(Some(TENANT)).await? {
        log.delete_topic(&topic.name).await?;
    }
    serviceradar_replay::topics::ensure(&*log, TENANT).await?;
    let stand = Stand { servers, log, database: Database::migrated_timescale().await, devices };
    let done = measure(&stand).await;
    for topic in stand.log.topics(Some(TENANT)).await? {
        stand.log.delete_topic(&topic.name).await?;
    }
    done
}

async fn measure(stand: &Stand) -> Result<()> {
    let (publisher, devices) = (stand.publisher(), stand.devices);
    let begun = Instant::now();
    for first in (0..devices).step_by(CHUNK as usize / 2) {
        let of = first..devices.min(first + CHUNK / 2);
        let now = SystemClock.now();
        publisher.publish(of.flat_map(|device| observations(device, now)).collect::<Vec<_>>()).await?;
    }
    told(&format!("{} records into Kafka", 2 * devices), begun, "");
    let begun = Instant::now();
    let live = stand.live().await;
    live.caught_up().await?;
    told("the first generation, from empty to all indexes", begun, "");
    // All devices are published, which a restart would go on with.
    let begun = Instant::now();
    live.watch().wait_for(|status| !status.is_publishing()).await?;
    told("its devices published, after that", begun, "");
    live.stop().await?;
    let begun = Instant::now();
    let live = stand.live().await;
    live.watch().wait_for(|status| status.phase == Phase::Running).await?;
    told("restart to live", begun, "; wanted 15");

    let begun = Instant::now();
    let candidate = stand.candidate(client(&stand.servers)?).await?;
    candidate.caught_up(|_| {}).await?;
    told("rebuild: from the log's start to ready, all indexes", begun, "; wanted 90");
    println!("{:<56} {:>9.0} events/s", "which is", f64::from(2 * devices) / begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let verify = Verify {
        tenant: TENANT.to_owned(),
        workers: 1,
        log: client(&stand.servers)?,
        writers: Arc::new(NoRegistry),
        clock: Arc::new(SystemClock),
    };
    let verdict = verify.run(&stand.database.views().await, |_| {}).await?;
    told(if verdict.is_clean() { "verify: clean" } else { "verify: NOT CLEAN" }, begun, "; wanted 60");
    let begun = Instant::now();
    let mut differing = 0;
    let unsure = stand
        .database
        .views()
        .await
        .diff(1, candidate.generation(), TENANT, |_| {
            differing += 1;
            Result::Ok(())
        })
        .await?;
    told(&format!("diff of the two: {differing} differ, {unsure} unsure"), begun, "");

    change_places(stand, &live, &candidate).await?;
    let begun = Instant::now();
    candidate.relieved().await?;
    candidate.stop().await?;
    live.watch().wait_for(|status| status.is_live && status.phase == Phase::Running).await?;
    told("then, until the pipeline writes again", begun, "");

    let (p50, p99) = stand.latencies(&live).await?;
    println!("{:<56} p50 {p50:>7.1} ms, p99 {p99:>7.1} ms", "observed to committed, nothing beside");
    let rate = NonZeroU32::new(RATE).ok_or("no rate")?;
    let beside = stand.candidate(Arc::new(RatedLog::new(client(&stand.servers)?, rate))).await?;
    let (p50, beside_p99) = stand.latencies(&live).await?;
    println!(
        "{:<56} p50 {p50:>7.1} ms, p99 {beside_p99:>7.1} ms: {:.2} times; wanted 3",
        format!("the same, a rebuild of {RATE} events/s beside"),
        beside_p99 / p99
    );
    beside.stop().await?;
    live.stop().await?;
    archive_and_restore(stand).await
}

/// Archives the log of the tenant to a folder, and restores it where it was deleted.
async fn archive_and_restore(stand: &Stand) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = Place::at(folder.path().to_str().ok_or("no path")?)?;
    let (tenant, topics) = (TENANT.to_owned(), Vec::new());
    let wanted = archive::Wanted { tenant, topics, file_bytes_max: archive::FILE_BYTES_MAX };
    let told = |what: &str, begun: Instant, (events, bytes): (u64, u64)| {
        let seconds = begun.elapsed().as_secs_f64();
        let (rate, rate_of_bytes) = (events as f64 / seconds, bytes as f64 / 1e6 / seconds);
        println!("{what:<56} {seconds:>9.2} s: {rate:.0} events/s, {rate_of_bytes:.0} MB/s of files");
    };
    let begun = Instant::now();
    let archived = archive::archive(&*stand.log, &NoRegistry, &place, &wanted, |_, _| {}).await?;
    let size = (archived.records, archived.bytes);
    told("archive, to a folder", begun, size);
    for topic in stand.log.topics(Some(TENANT)).await? {
        stand.log.delete_topic(&topic.name).await?;
    }
    let begun = Instant::now();
    let wanted = restore::Wanted { tenant: TENANT.to_owned(), ..restore::Wanted::default() };
    let plan = Plan::make(&*stand.log, &place, &wanted).await?;
    plan.verify(&place, |_, _| {}).await?;
    told("of a restore: every file is checked", begun, size);
    let begun = Instant::now();
    let intent = Operation { id: format!("{:x}", rand::random::<u128>()), ..Operation::default() };
    plan.run(&stand.log, &place, intent, &BTreeMap::new(), || SystemClock.now(), |_, _| {}).await?;
    told("of a restore: its events are published", begun, size);
    Ok(())
}

/// Promotes while observations come in and queries are asked.
async fn change_places(stand: &Stand, live: &DriverHandle, candidate: &Candidate) -> Result<()> {
    let sha256: String = digest("key").iter().map(|byte| format!("{byte:02x}")).collect();
    let keys =
        format!("[[key]]\nname = \"k\"\ntenant = \"{TENANT}\"\nrole = \"reader\"\nsha256 = \"{sha256}\"\n");
    let service = Service {
        callers: Callers::read(&keys)?,
        readers: Readers::new(stand.database.url().to_owned(), CONCURRENT_DEFAULT, COST_DEFAULT),
        cursors: Cursors::new(b"key"),
        live: Live::new(CancellationToken::new()),
        clock: Arc::new(SystemClock),
        answer_bytes_max: ANSWER_BYTES_DEFAULT,
        meter: Arc::new(()),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}/api/query", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, service.routes()).into_future());
    _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().tls_certs_only([]).build()?;

    let is_over = Arc::new(AtomicBool::new(false));
    let (asked, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(BTreeMap::new())));
    let asking = {
        let (is_over, asked, failed, devices) =
            (is_over.clone(), asked.clone(), failed.clone(), stand.devices);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1) / QUERIES);
            let mut number = 0_u32;
            while !is_over.load(Ordering::Relaxed) {
                tick.tick().await;
                number = number.wrapping_add(7_919);
                let query = format!("in:devices hostname:host-{}", number % devices);
                let request = client.get(&base).query(&[("q", &query)]).bearer_auth("key");
                let (asked, failed) = (asked.clone(), failed.clone());
                tokio::spawn(async move {
                    let answered = async {
                        let answer = request.send().await?.error_for_status()?.bytes().await?;
                        match answer.ends_with(b"\"results\":[]}") {
                            true => Err("nothing was found".into()),
                            false => Result::Ok(()),
                        }
                    };
                    if let Err(error) = answered.await {
                        let why = error.to_string().split(" for url").next().unwrap_or_default().to_owned();
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        *failed.entry(why).or_insert(0_u64) += 1;
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                });
            }
        })
    };
    let seen = stand.seen(is_over.clone());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (begun, epoch) = (Instant::now(), live.status().epoch);
    let outcome = candidate.promote(Some(0)).await?;
    told(&format!("promotion, {SEEN} observations/s, from epoch {epoch} on"), begun, "");
    println!("{:<56} {:>9.2} s; wanted 5", "of it, nobody wrote for", outcome.paused.as_secs_f64());
    tokio::time::sleep(Duration::from_secs(5)).await;
    is_over.store(true, Ordering::Relaxed);
    asking.await?;
    seen.await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!(
        "{:<56} {:>9} of {}; wanted 0",
        format!("queries that failed, {QUERIES}/s"),
        failed.lock().unwrap_or_else(PoisonError::into_inner).values().sum::<u64>(),
        asked.load(Ordering::Relaxed)
    );
    for (why, queries) in &*failed.lock().unwrap_or_else(PoisonError::into_inner) {
        println!("  {queries} of them: {why}");
    }
    Ok(())
}
