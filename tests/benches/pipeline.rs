//! From a crawl that lies in the log to complete views: `cargo bench -p serviceradar-tests --bench pipeline`.
//!
//! 50,000 devices as Armis, a mapper and a sweep see them. The pipeline runs in processes of its own, so that
//! its memory is its own: one loads an empty database, the next restarts on it and then takes in a crawl in
//! which nothing changed, published page by page as it comes in, as `demo` does. First with the embedded log and the
//! private PostgreSQL; then the same events lie in Kafka, and go into a PostgreSQL with TimescaleDB, whose rows are
//! compared with the first. Databases are as migrated, with all indexes, views and roles.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use serviceradar_ingest::{
    faker::{Faker, FakerConfig, INSTANCE, SECRET},
    publish::Observations,
    sync::armis::{ArmisClient, ArmisConfig, crawl},
};
use serviceradar_log::{EmbeddedLog, Event, KafkaConfig, KafkaLog, LogStore, NewEvent, Publisher, ReadLimit};
use serviceradar_materializers::PostgresViews;
use serviceradar_ops::postgres::PrivatePostgres;
use serviceradar_replay::{Driver, DriverConfig, DriverHandle, Phase, goal::Goal, topics::Partition};
use serviceradar_schemas::{
    Framing, Framings,
    codec::NoRegistry,
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_streams::rules::Rules;
use serviceradar_tests::{database::Database, services};
use tokio_util::sync::CancellationToken;

const TENANT: &str = "bench";
/// Events of one page of the second crawl.
const PAGE_EVENTS: usize = 10_000;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    serviceradar_ops::memory::use_small_pages();
    let runtime = serviceradar_ops::memory::runtime()?;
    // `cargo bench` gives flags of its own.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["load", log, url] => runtime.block_on(load(log, url)),
        ["again", log, url, second] => runtime.block_on(again(log, url, second.as_ref())),
        _ => runtime.block_on(all()),
    }
}

async fn all() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    prepare(dir.path(), &first, &second).await?;
    let pages = dir.path().join("pages");
    write_pages(&second, &pages).await?;

    println!("-- the embedded log, the private PostgreSQL");
    let postgres = PrivatePostgres::start(&dir.path().join("postgres")).await?;
    PostgresViews::connect(postgres.url()).await?.migrate().await?;
    let log = first.to_string_lossy();
    size("the crawl in the embedded log", bytes_of(&first, "")?);
    run(&["load", &log, postgres.url()])?;
    database_size("the database, loaded", postgres.url()).await?;
    // Before the second crawl: the guard's verdict is in it, so that it is the same one from Kafka.
    let events = events(&first).await?;
    let embedded = sums(postgres.url()).await?;
    run(&["again", &log, postgres.url(), &pages.to_string_lossy()])?;
    database_size("the database, after the second crawl", postgres.url()).await?;
    figures(postgres.url()).await?;
    postgres.stop().await;

    println!("-- Kafka, PostgreSQL with TimescaleDB");
    let servers = services::kafka().await;
    let database = Database::migrated_timescale().await;
    let kafka: Arc<dyn LogStore> = open(&format!("{KAFKA}{servers}"))?;
    for topic in kafka.topics(Some(TENANT)).await? {
        kafka.delete_topic(&topic.name).await?;
    }
    serviceradar_replay::topics::ensure(&*kafka, TENANT).await?;
    let started = Instant::now();
    for (topic, events) in events {
        let publisher = Publisher::new(kafka.clone(), topic);
        for page in events.chunks(PAGE_EVENTS) {
            publisher.publish(page.to_vec()).await?;
        }
    }
    told("the same events into Kafka", started);
    let storage = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/dev/data/kafka/storage");
    size("they take there", bytes_of(&storage, &format!("{TENANT}."))?);
    let log = format!("{KAFKA}{servers}");
    run(&["load", &log, database.url()])?;
    let now = sums(database.url()).await?;
    let differing: Vec<&String> = now.keys().filter(|of| now.get(*of) != embedded.get(*of)).collect();
    println!("what differs between the two: {differing:?}");
    run(&["again", &log, database.url(), &pages.to_string_lossy()])?;
    figures(database.url()).await?;
    for topic in kafka.topics(Some(TENANT)).await? {
        kafka.delete_topic(&topic.name).await?;
    }
    Ok(())
}

/// Runs a stage in a process of its own.
fn run(arguments: &[&str]) -> Result<()> {
    let status = Command::new(std::env::current_exe()?).args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(format!("{arguments:?} failed").into()) }
}

/// What comes before the address of a Kafka, where a log is named.
const KAFKA: &str = "kafka:";

/// The log of a name: a folder, or a Kafka.
fn open(log: &str) -> Result<Arc<dyn LogStore>> {
    Ok(match log.strip_prefix(KAFKA) {
        Some(servers) => {
            let config = KafkaConfig { servers: servers.to_owned(), ..KafkaConfig::default() };
            Arc::new(KafkaLog::new(&config)?)
        }
        None => Arc::new(EmbeddedLog::open(log.as_ref(), Arc::new(SystemClock))?),
    })
}

/// All events that the pipeline reads of a log, by topic, in the order in which the log took them: who asserted a claim
/// first decides where it leads.
async fn events(folder: &Path) -> Result<Vec<(String, Vec<NewEvent>)>> {
    let log = open(&folder.to_string_lossy())?;
    let mut all: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for Partition { topic, log_partition } in serviceradar_replay::topics::read_by(&*log, TENANT).await? {
        let events = serviceradar_tests::stand::read_all(&log, &topic, log_partition).await;
        all.entry(topic).or_default().extend(events);
    }
    let new = |event: Event| NewEvent { key: event.key, value: event.value, headers: event.headers };
    let in_order = |(topic, mut events): (String, Vec<Event>)| {
        events.sort_by_key(|event| event.append_time);
        (topic, events.into_iter().map(new).collect())
    };
    Ok(all.into_iter().map(in_order).collect())
}

/// Of each base table of the generation: its rows, and sums over all of them and over each column. Bookkeeping is left
/// out, and so are the columns that hang on when a log took something, which two logs do at different times: which of two
/// records leads a claim is one of them; where it leads, the view `device_redirects` tells.
async fn sums(url: &str) -> Result<BTreeMap<String, String>> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("SET timezone = 'UTC'").await?;
    let columns = "SELECT c.relname::text, quote_ident(a.attname)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'views_1'::regnamespace AND a.attnum > 0
          AND (c.relkind = 'r' OR c.relname = 'device_redirects') AND NOT a.attisdropped
          AND a.attname NOT IN ('epoch', 'modified_at', 'first_asserted', 'ended_at', 'leads')
        ORDER BY 1, a.attnum";
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in client.query(columns, &[]).await? {
        tables.entry(row.get(0)).or_default().push(row.get(1));
    }
    let mut sums = BTreeMap::new();
    for (table, columns) in tables {
        let of =
            |value: &str| format!("coalesce(sum(hashtextextended(({value})::text, 0)::numeric), 0)::text");
        let of_columns = columns.iter().map(|column| of(column));
        let all: Vec<String> = ["count(*)::text".to_owned(), of(&format!("ROW({})", columns.join(", ")))]
            .into_iter()
            .chain(of_columns)
            .collect();
        let row = client.query_one(&format!("SELECT {} FROM views_1.{table}", all.join(", ")), &[]).await?;
        let names = ["rows", "all columns"].into_iter().chain(columns.iter().map(String::as_str));
        for (at, name) in names.enumerate() {
            sums.insert(format!("{table}: {name}"), row.get(at));
        }
    }
    Ok(sums)
}

/// Two crawls of the same devices, each into a log of its own.
async fn prepare(dir: &Path, first: &Path, second: &Path) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = FakerConfig { shuffle_every: None, ..FakerConfig::new(dir.join("faker")) };
    let faker = Faker::open(config, clock.clone())?;
    let stop = CancellationToken::new();
    let serving = faker.serve(stop.clone()).await?;
    let client = ArmisClient::new(ArmisConfig::new(&serving.url(), SECRET, INSTANCE), clock.clone())?;
    for log in [first, second] {
        std::fs::create_dir_all(log)?;
        let store: Arc<dyn LogStore> = Arc::new(EmbeddedLog::open(log, clock.clone())?);
        let topic = Stream::Observations.topic(TENANT);
        store.create_topic(&topic, Stream::Observations.log_partitions()).await?;
        let observations = Observations::new(store, topic, Framing::default());
        let report = crawl(&client, &observations, &*clock, |_| {}).await?;
        println!("{:<44} {:>9.2} s  {} records", "crawl into the log", report.seconds, report.records);
        let others = observations.publish(faker.observations_of_others()).await?;
        println!("{:<44} {others:>9} records", "mapper and sweep");
    }
    stop.cancel();
    Ok(serving.task.await?)
}

async fn start(log: &str, url: &str) -> Result<(DriverHandle, Arc<dyn LogStore>)> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = open(log)?;
    let driver = Driver::start(DriverConfig {
        tenant: TENANT.to_owned(),
        writer: "bench".to_owned(),
        workers: 1,
        rules: Some(Rules::default()),
        log: store.clone(),
        writers: Arc::new(NoRegistry),
        framings: Framings::default(),
        views: Arc::new(PostgresViews::connect(url).await?),
        clock,
        ticks: false,
        journals_kept: None,
        goal: Goal::none(),
    });
    Ok((driver, store))
}

async fn load(log: &str, url: &str) -> Result<()> {
    let started = Instant::now();
    let (driver, _store) = start(log, url).await?;
    watch(&driver);
    driver.caught_up().await?;
    told("all views complete, from an empty database", started);
    tell(&driver);
    driver.stop().await?;
    memory("memory at most, load");
    Ok(())
}

async fn again(log: &str, url: &str, pages: &Path) -> Result<()> {
    let started = Instant::now();
    let (driver, store) = start(log, url).await?;
    watch(&driver);
    driver.watch().wait_for(|status| status.phase == Phase::Running).await?;
    told("restart to live", started);
    driver.caught_up().await?;
    memory("memory at most, restart");
    published(url).await?;
    let (evidence, changes) = (driver.status().evidence_changes, driver.status().changes);

    let started = Instant::now();
    let count = publish_again(store, pages).await?;
    told(&format!("{count} events appended"), started);
    driver.caught_up().await?;
    told("a crawl in which nothing changed, in the views", started);
    let status = driver.status();
    println!("{:<44} {:>9}", "rows of evidence written", status.evidence_changes - evidence);
    println!("{:<44} {:>9}", "rows changed", status.changes - changes);
    tell(&driver);
    driver.stop().await?;
    memory("memory at most");
    Ok(())
}

/// Waits until what the load left to be published is.
async fn published(url: &str) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let waiting = "SELECT count(*) FROM serviceradar_base.pipeline_outbox";
    let started = Instant::now();
    while client.query_one(waiting, &[]).await?.get::<_, i64>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    told("device changes published", started);
    Ok(())
}

/// Publishes the crawl of a file page by page. Returns how many events.
async fn publish_again(to: Arc<dyn LogStore>, pages: &Path) -> Result<usize> {
    let publisher = Publisher::new(to, Stream::Observations.topic(TENANT));
    let mut pages = BufReader::new(File::open(pages)?);
    let mut count = 0;
    loop {
        let page = page_of(&mut pages)?;
        if page.is_empty() {
            return Ok(count);
        }
        count += page.len();
        publisher.publish(page).await?;
    }
}

/// The next page of a crawl; none is left where it is empty.
fn page_of(pages: &mut impl BufRead) -> Result<Vec<NewEvent>> {
    let mut number = [0; 4];
    let mut bytes = |pages: &mut dyn BufRead| -> Result<Vec<u8>> {
        pages.read_exact(&mut number)?;
        let mut bytes = vec![0; u32::from_be_bytes(number) as usize];
        pages.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let mut page = Vec::new();
    while page.len() < PAGE_EVENTS && !pages.fill_buf()?.is_empty() {
        let (key, value) = (bytes(pages)?.into(), bytes(pages)?.into());
        page.push(NewEvent { key: Some(key), value: Some(value), headers: Vec::new() });
    }
    Ok(page)
}

/// Writes what lies in a log to a file: key and value of each event, its size before each.
async fn write_pages(log: &Path, pages: &Path) -> Result<()> {
    let store = EmbeddedLog::open(log, Arc::new(SystemClock))?;
    let topic = Stream::Observations.topic(TENANT);
    let limit = ReadLimit { events: PAGE_EVENTS, bytes: 16 << 20, wait: Duration::ZERO };
    let mut out = BufWriter::new(File::create(pages)?);
    let mut offsets = vec![Some(0); Stream::Observations.log_partitions() as usize];
    while offsets.iter().any(Option::is_some) {
        for (partition, offset) in (0..).zip(&mut offsets) {
            let Some(at) = *offset else { continue };
            let read = store.read(&topic, partition, at, limit).await?;
            *offset = (!read.events.is_empty()).then_some(read.next_offset);
            for event in read.events {
                for bytes in [event.key.unwrap_or_default(), event.value.unwrap_or_default()] {
                    out.write_all(&(bytes.len() as u32).to_be_bytes())?;
                    out.write_all(&bytes)?;
                }
            }
        }
    }
    Ok(out.flush()?)
}

/// Prints each epoch.
fn watch(driver: &DriverHandle) {
    let mut status = driver.watch();
    tokio::spawn(async move {
        let mut epoch = status.borrow().epoch;
        while status.changed().await.is_ok() {
            let now = status.borrow_and_update().clone();
            if now.epoch > epoch && now.epoch_ms > 100 {
                let commit = now.epoch_ms - now.dataflow_ms;
                println!(
                    "  epoch {:<4} {:>8} events so far, {:>5} ms dataflow, {commit:>5} ms commit",
                    now.epoch, now.events, now.dataflow_ms
                );
            }
            epoch = now.epoch;
        }
    });
}

fn told(what: &str, since: Instant) {
    println!("{what:<44} {:>9.2} s", since.elapsed().as_secs_f64());
}

fn tell(driver: &DriverHandle) {
    let status = driver.status();
    println!(
        "  {} events, {} records, {} rows changed, {} blocks decided",
        status.events, status.records, status.changes, status.blocks_decided
    );
}

fn memory(what: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
    println!("{what:<44} {:>9}", line.trim());
}

/// Bytes of files that are in a folder, or in folders in it whose names begin so. Those of topics that were deleted
/// stay for a minute under another name.
fn bytes_of(folder: &Path, prefix: &str) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(prefix) || name.ends_with("-delete") {
            continue;
        }
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_of(&entry.path(), "")?,
            // Files may have holes: what they take on the disk.
            false => std::os::unix::fs::MetadataExt::blocks(&entry.metadata()?) * 512,
        };
    }
    Ok(bytes)
}

fn size(what: &str, bytes: u64) {
    println!("{what:<44} {:>9.1} MB", bytes as f64 / 1e6);
}

async fn database_size(what: &str, url: &str) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let bytes: i64 = client.query_one("SELECT pg_database_size(current_database())", &[]).await?.get(0);
    size(what, bytes.cast_unsigned());
    Ok(())
}

async fn figures(url: &str) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    for table in ["devices", "device_records", "device_evidence", "identity_issues", "device_counts"] {
        let count: i64 =
            client.query_one(&format!("SELECT count(*) FROM views_1.{table}"), &[]).await?.get(0);
        println!("{table:<44} {count:>9} rows");
    }
    let armis = "SELECT count(DISTINCT uid) FROM views_1.device_records WHERE source_kind = 'armis'";
    let count: i64 = client.query_one(armis, &[]).await?.get(0);
    println!("{:<44} {count:>9}", "devices with an Armis record");
    Ok(())
}
