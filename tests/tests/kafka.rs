//! What only a real broker does: goes away in the middle, marks transactions, is set and grown by others, asks who one
//! is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serviceradar_log::{
    Batch, BatchId, Event, Identity, KafkaConfig, KafkaLog, LogError, LogStore, Login, NewEvent, Publisher,
    ReadLimit, Tls,
};
use serviceradar_materializers::{MemoryViews, views::Frontier};
use serviceradar_replay::{Driver, DriverConfig, DriverHandle, Phase, goal::Goal, lag::look};
use serviceradar_schemas::{
    Framings,
    codec::NoRegistry,
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_streams::rules::Rules;
use serviceradar_tests::{
    services,
    tenant::{RECORDS, Tenant},
};
use tokio::sync::Mutex;

/// Who stops the broker must be alone.
static BROKER: Mutex<()> = Mutex::const_new(());
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

async fn log() -> Arc<dyn LogStore> {
    let config = KafkaConfig { servers: services::kafka().await, ..KafkaConfig::default() };
    Arc::new(KafkaLog::new(&config).unwrap())
}

async fn new_topic(log: &Arc<dyn LogStore>, log_partitions: u32) -> String {
    let topic = format!("t{:016x}.observations", rand::random::<u64>());
    log.create_topic(&topic, log_partitions).await.unwrap();
    topic
}

fn event(value: String) -> NewEvent {
    NewEvent { value: Some(value.into()), ..NewEvent::default() }
}

fn text(event: &Event) -> &str {
    std::str::from_utf8(event.value.as_deref().unwrap()).unwrap()
}

/// Everything of a log partition, and where the reader stood at its end.
async fn read_all(log: &Arc<dyn LogStore>, topic: &str) -> (Vec<Event>, u64) {
    let limit = ReadLimit { events: 1_000, bytes: 1 << 20, wait: Duration::ZERO };
    let end = log.offsets(topic, 0).await.unwrap().end;
    let (mut events, mut at) = (Vec::new(), 0);
    while at < end {
        let read = log.read(topic, 0, at, limit).await.unwrap();
        assert!(read.next_offset > at, "a read stands still at {at} of {end}");
        at = read.next_offset;
        events.extend(read.events);
    }
    (events, at)
}

/// A producer's transactions, each committed or not, of so many events.
fn transactions(servers: &str, topic: &str, transactions: &[(bool, usize)]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("transactional.id", format!("{:016x}", rand::random::<u64>()))
        .create()
        .unwrap();
    producer.init_transactions(ANSWER_WITHIN).unwrap();
    for (number, (is_committed, events)) in transactions.iter().enumerate() {
        producer.begin_transaction().unwrap();
        for event in 0..*events {
            let value = format!("{number}/{event}");
            producer.send(BaseRecord::<(), _>::to(topic).partition(0).payload(&value)).unwrap();
        }
        producer.flush(ANSWER_WITHIN).unwrap();
        if *is_committed {
            producer.commit_transaction(ANSWER_WITHIN).unwrap();
        } else {
            producer.abort_transaction(ANSWER_WITHIN).unwrap();
        }
    }
}

/// What was taken back is not read, and the reader stands behind the last mark.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_of_transactions_are_passed_over() {
    let _alone = BROKER.lock().await;
    let log = log().await;
    for (done, expected) in [
        (vec![(true, 3)], vec!["0/0", "0/1", "0/2"]),
        (vec![(false, 4)], vec![]),
        (vec![(true, 1), (false, 2), (true, 1), (false, 1)], vec!["0/0", "2/0"]),
    ] {
        let topic = new_topic(&log, 1).await;
        // The events, and a mark of each transaction.
        let all = done.iter().map(|(_, events)| *events as u64 + 1).sum::<u64>();
        let (servers, of) = (services::kafka().await, topic.clone());
        tokio::task::spawn_blocking(move || transactions(&servers, &of, &done)).await.unwrap();
        // Marks are written after a transaction's end is told.
        while log.offsets(&topic, 0).await.unwrap().end < all {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (events, at) = read_all(&log, &topic).await;
        assert_eq!(events.iter().map(text).collect::<Vec<_>>(), expected);
        assert_eq!(at, all, "where the reader stands");
        // And goes on from there.
        let id = BatchId { producer: rand::random(), sequence: 0 };
        let batch = Batch { id, events: vec![event("after".to_owned())] };
        assert_eq!(log.append(&topic, 0, batch).await.unwrap().first_offset, at);
        let limit = ReadLimit { events: 10, bytes: 1_000, wait: Duration::from_secs(10) };
        let read = log.read(&topic, 0, at, limit).await.unwrap();
        assert_eq!((read.events.len(), read.next_offset), (1, at + 1));
    }
}

/// Whoever claims a topic has it alone: of the one before nothing more is read, nor of one that was in the middle.
/// Its reader must be there before what comes for it, however late it is given the processor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_busy_reads_each_event() {
    const LOG_PARTITIONS: u32 = 32;
    const EVENTS: usize = 20;
    const READERS: usize = 10;
    let _alone = BROKER.lock().await;
    let publishing = log().await;
    let topic = new_topic(&publishing, LOG_PARTITIONS).await;
    for log_partition in 0..LOG_PARTITIONS {
        let events = (0..EVENTS).map(|n| event(n.to_string())).collect();
        let id = BatchId { producer: rand::random(), sequence: 0 };
        publishing.append(&topic, log_partition, Batch { id, events }).await.unwrap();
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let is_over = is_over.clone();
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let limit = ReadLimit { events: 1_000, bytes: 1 << 20, wait: Duration::ZERO };
    let mut counts = Vec::new();
    for _ in 0..READERS {
        let log = log().await;
        let reads = (0..LOG_PARTITIONS).map(|log_partition| {
            let (log, topic) = (log.clone(), topic.clone());
            tokio::spawn(async move {
                let (mut events, mut at) = (0, 0);
                while at < EVENTS as u64 {
                    let read = log.read(&topic, log_partition, at, limit).await.unwrap();
                    at = read.next_offset;
                    events += read.events.len();
                }
                events
            })
        });
        for read in reads.collect::<Vec<_>>() {
            counts.push(read.await.unwrap());
        }
    }
    is_over.store(true, Ordering::Relaxed);
    for thread in busy {
        thread.join().unwrap();
    }
    assert_eq!(counts, vec![EVENTS; READERS * LOG_PARTITIONS as usize]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_claimed_takes_nothing_from_whoever_claimed_it_before() {
    let _alone = BROKER.lock().await;
    let (first, second) = (log().await, log().await);
    let topic = new_topic(&first, 2).await;
    let batch = |producer, sequence| {
        let value = format!("{producer}/{sequence}");
        Batch { id: BatchId { producer, sequence }, events: vec![event(value)] }
    };
    first.claim(&topic).await.unwrap();
    let appended = first.append(&topic, 0, batch(1, 0)).await.unwrap();
    // Sent again, it is known.
    assert_eq!(first.append(&topic, 0, batch(1, 0)).await.unwrap(), appended);
    let both = tokio::join!(first.append(&topic, 0, batch(1, 1)), first.append(&topic, 1, batch(1, 0)));
    assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    second.claim(&topic).await.unwrap();
    for _ in 0..2 {
        let refused = first.append(&topic, 0, batch(1, 2)).await;
        assert_eq!(refused, Err(LogError::Fenced(topic.clone())));
    }
    second.append(&topic, 0, batch(2, 0)).await.unwrap();
    let (events, _) = read_all(&second, &topic).await;
    assert_eq!(events.iter().map(text).collect::<Vec<_>>(), ["1/0", "1/1", "2/0"]);
    // And the other way round; of batches that went before a claim nothing is remembered.
    first.claim(&topic).await.unwrap();
    first.append(&topic, 0, batch(3, 0)).await.unwrap();
    assert_eq!(second.append(&topic, 0, batch(2, 1)).await, Err(LogError::Fenced(topic.clone())));
}

/// Each event is there once, in order, whatever the broker did meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_in_the_middle_loses_and_doubles_nothing() {
    let _alone = BROKER.lock().await;
    let log = log().await;
    let topic = new_topic(&log, 1).await;
    let publisher = Publisher::new(log.clone(), topic.clone());
    let (calls, events) = (40, 2_000);
    let publishing = tokio::spawn(async move {
        for call in 0..calls {
            let batch = (0..events).map(|n| event((call * events + n).to_string())).collect();
            publisher.publish(batch).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!publishing.is_finished(), "the broker was killed too late");
        services::kill("kafka").await;
    }
    publishing.await.unwrap();
    let (read, _) = read_all(&log, &topic).await;
    let numbers: Vec<usize> = read.iter().map(|event| text(event).parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..calls * events), "{} of {}", numbers.len(), calls * events);
}

async fn make_forgetful(topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", services::kafka().await).create().unwrap();
    let forgetful = AlterConfig::new(ResourceSpecifier::Topic(topic))
        .set("message.timestamp.type", "LogAppendTime")
        .set("retention.ms", "100000000");
    admin.alter_configs([&forgetful], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

/// A topic that would forget is named, with the command that mends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_would_lose_events_is_named() {
    let _alone = BROKER.lock().await;
    let log = log().await;
    let topic = new_topic(&log, 1).await;
    let wrong = async || {
        let mut settings = log.settings(&topic).await.unwrap();
        assert!(!settings.is_empty());
        settings.retain(|setting| !setting.is_right());
        settings
    };
    assert_eq!(wrong().await, []);
    make_forgetful(&topic).await;
    let problems = wrong().await;
    let problem = problems.iter().find(|problem| problem.name == "retention.ms").expect("not named");
    assert_eq!((problem.found.as_str(), problem.wanted.as_str()), ("100000000", "-1"));
    let told = problem.to_string();
    assert!(told.contains(&topic) && told.contains("--add-config retention.ms=-1"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_partitions_that_are_added_are_read() {
    let _alone = BROKER.lock().await;
    let mut tenant = Tenant::new(log().await).await;
    let driver = tenant.drive().await;
    driver.caught_up().await.unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", services::kafka().await).create().unwrap();
    let more = Stream::Observations.log_partitions() as usize + 3;
    let (topic, options) = (tenant.topic(), AdminOptions::new());
    let grown = NewPartitions::new(&topic, more);
    admin.create_partitions([&grown], &options).await.unwrap()[0].as_ref().unwrap();
    while tenant.log.describe_topic(&topic).await.unwrap().log_partitions < more as u32 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tenant.publish(200).await;
    let added = tenant.log.offsets(&topic, more as u32 - 1).await.unwrap();
    assert!(added.end > 0, "nothing went to what was added");
    driver.caught_up().await.unwrap();
    driver.stop().await.unwrap();
    assert_eq!(tenant.records().await, tenant.published);
}

/// As after an election of a broker that had not all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_cut_below_the_frontier_and_grown_past_it_stops_the_tenant() {
    let _alone = BROKER.lock().await;
    let mut tenant = Tenant::new(log().await).await;
    let (topic, before) = (tenant.topic(), sizes(&tenant.topic()));
    tenant.publish(RECORDS).await;
    tenant.catches_up().await;
    services::down("kafka").await;
    for (log_partition, size) in before {
        cut(&folder(&topic, log_partition), size);
    }
    services::up("kafka").await;
    tenant.is_refused("the log was cut or made anew").await;
    tenant.publish(10 * RECORDS).await;
    tenant.is_refused("is not the one that the views were built from").await;
}

/// Where the broker of `ops/dev/services` keeps a log partition.
fn folder(topic: &str, log_partition: u32) -> PathBuf {
    let storage = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/dev/data/kafka/storage");
    storage.join(format!("{topic}-{log_partition}"))
}

fn segment(folder: &Path) -> PathBuf {
    folder.join("00000000000000000000.log")
}

fn sizes(topic: &str) -> Vec<(u32, u64)> {
    let size = |n| std::fs::metadata(segment(&folder(topic, n))).unwrap().len();
    (0..Stream::Observations.log_partitions()).map(|n| (n, size(n))).collect()
}

/// Leaves the first bytes of the segment; what speaks of the rest is made anew by the broker.
fn cut(folder: &Path, bytes: u64) {
    let segment = segment(folder);
    std::fs::File::options().write(true).open(&segment).unwrap().set_len(bytes).unwrap();
    for made in ["index", "timeindex", "snapshot"] {
        for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == made) {
                std::fs::remove_file(file).unwrap();
            }
        }
    }
}

/// How the brokers of `ops/dev/services` are reached over TLS.
fn encrypted(port: u16, identity: Option<Identity>, login: Option<Login>) -> KafkaConfig {
    let authority = Some(certificates().join("authority.pem"));
    KafkaConfig { servers: format!("localhost:{port}"), tls: Some(Tls { authority, identity }), login }
}

fn certificates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/dev/data/certificates")
}

fn login(password: &str) -> Option<Login> {
    let of = str::to_owned;
    Some(Login { mechanism: of("SCRAM-SHA-512"), user: of("serviceradar"), password: of(password) })
}

fn client() -> Option<Identity> {
    let key = std::fs::read_to_string(certificates().join("client.key")).unwrap();
    Some(Identity { certificate: certificates().join("client.pem"), key })
}

const PASSWORD_PORT: u16 = 24094;
const MUTUAL_PORT: u16 = 24095;

/// By password, and by certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_shows_who_they_are_appends_and_reads() {
    let _alone = BROKER.lock().await;
    services::kafka().await;
    for config in
        [encrypted(PASSWORD_PORT, None, login("serviceradar")), encrypted(MUTUAL_PORT, client(), None)]
    {
        let log: Arc<dyn LogStore> = Arc::new(KafkaLog::new(&config).unwrap());
        let topic = new_topic(&log, 1).await;
        let id = BatchId { producer: rand::random(), sequence: 0 };
        log.append(&topic, 0, Batch { id, events: vec![event("a".to_owned())] }).await.unwrap();
        let (events, _) = read_all(&log, &topic).await;
        assert_eq!(events.iter().map(text).collect::<Vec<_>>(), ["a"]);
    }
}

/// And the error says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_is_refused() {
    let _alone = BROKER.lock().await;
    let plain = KafkaConfig { servers: services::kafka().await, ..KafkaConfig::default() };
    let stranger = encrypted(PASSWORD_PORT, None, login("guessed"));
    let nobody = encrypted(MUTUAL_PORT, None, None);
    let mut trusting_others = encrypted(MUTUAL_PORT, client(), None);
    if let Some(tls) = &mut trusting_others.tls {
        tls.authority = Some(certificates().join("client.pem"));
    }
    for (config, words) in [
        (stranger, "Authentication failed"),
        (nobody, "SSL"),
        (trusting_others, "certificate verify failed"),
        (KafkaConfig { servers: format!("localhost:{MUTUAL_PORT}"), ..plain.clone() }, "Disconnected"),
        (KafkaConfig { servers: "localhost:1".to_owned(), ..plain }, "Connection refused"),
    ] {
        let log = KafkaLog::new(&config).unwrap();
        let error = log.describe_topic("t.observations").await.unwrap_err();
        assert!(matches!(&error, LogError::Unavailable(why) if why.contains(words)), "{config:?}: {error}");
    }
}

/// A pipeline of the tenant of a topic, into views in memory.
fn drive(log: &Arc<dyn LogStore>, topic: &str) -> DriverHandle {
    Driver::start(DriverConfig {
        tenant: topic.split('.').next().unwrap().to_owned(),
        writer: "test".to_owned(),
        workers: 1,
        rules: Some(Rules::default()),
        log: log.clone(),
        views: Arc::new(MemoryViews::default()),
        writers: Arc::new(NoRegistry),
        framings: Framings::default(),
        clock: Arc::new(SystemClock),
        ticks: false,
        journals_kept: None,
        goal: Goal::none(),
    })
}

/// Marks of transactions at the end take offsets: they keep nobody waiting and are no lag, seen from inside or outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_of_transactions_are_no_lag() {
    let _alone = BROKER.lock().await;
    let log = log().await;
    let topic = new_topic(&log, 1).await;
    let servers = services::kafka().await;
    let take_back = async |end: u64, done: &'static [(bool, usize)]| {
        let (servers, of) = (servers.clone(), topic.clone());
        tokio::task::spawn_blocking(move || transactions(&servers, &of, done)).await.unwrap();
        while log.offsets(&topic, 0).await.unwrap().end < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    take_back(7, &[(true, 3), (false, 2)]).await;
    let behind = look(&*log, &Frontier::of(&[], &topic, 0)).await.unwrap();
    assert_eq!(behind.lag_events(), 7);
    assert!(behind.lag_seconds(SystemClock.now()).is_some_and(|seconds| seconds > 0.0));
    let passed = Frontier { next_offset: 3, ..Frontier::of(&[], &topic, 0) };
    let caught_up = look(&*log, &passed).await.unwrap();
    assert_eq!((caught_up.lag_events(), caught_up.lag_seconds(SystemClock.now())), (0, Some(0.0)));

    let driver = drive(&log, &topic);
    for end in [7, 9] {
        let waited = tokio::time::timeout(ANSWER_WITHIN, driver.caught_up()).await;
        waited.expect("it waits for marks").unwrap();
        let status = driver.status();
        assert_eq!((status.lag_events(), status.dead_letters), (0, 3));
        assert_eq!(status.partitions[&format!("{topic}/0")].next_offset, end);
        if end == 7 {
            take_back(9, &[(false, 1)]).await;
        }
    }
    driver.stop().await.unwrap();
}

/// A setting that was changed after the start is told, and the pipeline goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_tells_of_a_setting_that_would_lose_events() {
    let _alone = BROKER.lock().await;
    let log = log().await;
    let topic = new_topic(&log, 1).await;
    make_forgetful(&topic).await;
    let driver = drive(&log, &topic);
    let mut status = driver.watch();
    let told =
        tokio::time::timeout(ANSWER_WITHIN, status.wait_for(|status| !status.setting_problems.is_empty()));
    let told = told.await.expect("it is not told").unwrap().clone();
    let mend = format!("--entity-name {topic} --add-config retention.ms=-1");
    assert!(
        told.setting_problems.iter().any(|problem| problem.contains(&mend)),
        "{:?}",
        told.setting_problems
    );
    driver.caught_up().await.unwrap();
    assert_eq!(driver.status().phase, Phase::Running);
    driver.stop().await.unwrap();
}
