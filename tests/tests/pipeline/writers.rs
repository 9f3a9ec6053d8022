//! Two writers of one tenant: one writes, the other stands by and says so; one that was stopped and goes on writes nothing;
//! a rolling update loses nothing.
//!
//! The log is Kafka: the only one that two processes can have. Processes are this test's own, started anew.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, raise},
    unistd::Pid,
};
use serviceradar_ingest::publish::Observations;
use serviceradar_log::{Event, KafkaConfig, KafkaLog, LogStore, MemoryLog};
use serviceradar_materializers::{
    PostgresViews,
    views::{Views as _, ViewsError},
};
use serviceradar_replay::{Driver, DriverHandle, Phase};
use serviceradar_schemas::{
    Framing, Observation,
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_tests::{
    database::Database,
    services,
    stand::{Between, TENANT, Views, config, make_topics, observation, observations, published, read_all},
};
use tokio::signal::unix::{SignalKind, signal};

/// Where the process under test finds its tenant, its database, and at which append it stops itself.
const TENANT_OF: &str = "WRITERS_TEST_TENANT";
const DATABASE: &str = "WRITERS_TEST_DATABASE";
const STOPS_AT: &str = "WRITERS_TEST_STOPS_AT";
/// Devices that a rolling update passes over, where another number is asked for.
const DEVICES: &str = "WRITERS_TEST_DEVICES";
const DEVICES_DEFAULT: usize = 400;
const STARTS: usize = 20;
/// What a process says when its epoch is committed, when it ended, and why.
const COMMITTED: &str = "committed epoch ";
const ENDED: &str = "ended: ";

async fn kafka() -> Arc<dyn LogStore> {
    let config = KafkaConfig { servers: services::kafka().await, ..KafkaConfig::default() };
    Arc::new(KafkaLog::new(&config).unwrap())
}

/// A log whose process is stopped in the middle of publishing device changes, at the n-th append of those: what goes out
/// was read before.
fn stops_itself(log: Arc<dyn LogStore>, at: usize) -> Arc<dyn LogStore> {
    let left = AtomicUsize::new(at);
    Between::before_append(log, move |topic| {
        if topic.ends_with(Stream::DeviceChanges.name()) && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            raise(Signal::SIGSTOP).unwrap();
        }
        Ok(())
    })
}

async fn start(tenant: &str, writer: &str, log: &Arc<dyn LogStore>, url: &str) -> DriverHandle {
    Driver::start(config(tenant, writer, log.clone(), url).await)
}

async fn is_in(driver: &DriverHandle, phase: Phase) {
    let mut status = driver.watch();
    let reached = status.wait_for(|status| status.phase == phase || matches!(status.phase, Phase::Failed(_)));
    assert_eq!(reached.await.unwrap().phase, phase);
}

/// The process that writes until SIGTERM, or until it is fenced, and says what it does.
async fn writer(tenant: &str, url: &str) {
    let stops_at = env::var(STOPS_AT).map_or(usize::MAX, |at| at.parse().unwrap());
    let log = stops_itself(kafka().await, stops_at);
    let driver = start(tenant, "old", &log, url).await;
    let mut status = driver.watch();
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let mut told = 0;
    loop {
        tokio::select! {
            _ = terminated.recv() => break,
            changed = status.changed() => {
                let now = status.borrow_and_update().clone();
                if now.epoch > told {
                    told = now.epoch;
                    println!("{COMMITTED}{told}");
                }
                if changed.is_err() || matches!(now.phase, Phase::Failed(_)) {
                    break;
                }
            }
        }
    }
    match driver.stop().await {
        Ok(()) => println!("{ENDED}well"),
        Err(error) => println!("{ENDED}{error}"),
    }
}

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(tenant: &str, url: &str, stops_at: Option<usize>) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["writers::a_process_that_writes", "--exact", "--nocapture"]);
        command.envs([(TENANT_OF, tenant), (DATABASE, url)]).stdout(Stdio::piped());
        if let Some(at) = stops_at {
            command.env(STOPS_AT, at.to_string());
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits until it says a word; what comes after it.
    async fn says(mut self, word: &'static str) -> (Self, String) {
        tokio::task::spawn_blocking(move || {
            let said = self.lines.find_map(|line| {
                let line = line.unwrap();
                line.find(word).map(|at| line[at + word.len()..].to_owned())
            });
            (self, said.unwrap_or_else(|| panic!("it never said {word:?}")))
        })
        .await
        .unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn is_stopped(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        status.rsplit(") ").next().unwrap().starts_with('T')
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, or of no more use.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What other tests start; alone it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_writes() {
    if let (Ok(tenant), Ok(url)) = (env::var(TENANT_OF), env::var(DATABASE)) {
        writer(&tenant, &url).await;
    }
}

/// Observations of so many devices, in which something changes with each round.
fn round(round: usize, devices: usize) -> impl Iterator<Item = Observation> {
    (0..devices).map(move |n| Observation {
        id: format!("{n}/{round}"),
        hostname: Some(format!("host-{n}-{round}")),
        ..observation(&format!("{n:05}"), SystemClock.now())
    })
}

struct Tenant {
    name: String,
    log: Arc<dyn LogStore>,
    database: Database,
    publisher: Observations,
}

impl Tenant {
    async fn new() -> Self {
        let name = format!("t{:016x}", rand::random::<u64>());
        let log = kafka().await;
        serviceradar_replay::topics::ensure(&*log, &name).await.unwrap();
        let publisher = Observations::new(log.clone(), Stream::Observations.topic(&name), Framing::default());
        Self { name, log, database: Database::migrated().await, publisher }
    }

    /// All that is committed in the device changes, by log partition.
    async fn device_changes(&self) -> Vec<Vec<Event>> {
        let topic = Stream::DeviceChanges.topic(&self.name);
        let mut all = Vec::new();
        for log_partition in 0..Stream::DeviceChanges.log_partitions() {
            all.push(read_all(&self.log, &topic, log_partition).await);
        }
        all
    }
}

/// What a reader of the contract has, and what compaction would leave: it keeps the last of each key.
fn by_contract(changes: &[Vec<Event>]) -> [BTreeMap<Vec<u8>, Vec<u8>>; 2] {
    let (mut taken, mut last): (BTreeMap<_, (u64, Vec<u8>)>, BTreeMap<_, _>) = Default::default();
    for event in changes.iter().flatten() {
        let header = |name: &str| &event.headers.iter().find(|(found, _)| found == name).unwrap().1;
        let epoch: u64 = std::str::from_utf8(header("epoch")).unwrap().parse().unwrap();
        let key = event.key.clone().unwrap().to_vec();
        let value = event.value.clone().unwrap_or_default().to_vec();
        last.insert(key.clone(), value.clone());
        if taken.get(&key).is_none_or(|(greatest, _)| epoch >= *greatest) {
            taken.insert(key, (epoch, value));
        }
    }
    [taken.into_iter().map(|(key, (_, value))| (key, value)).collect(), last]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_start_at_once_one_writes_and_the_other_stands_by() {
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    make_topics(&log).await;
    let database = Database::migrated().await;
    for n in 0..STARTS {
        let names = [format!("a{n}"), format!("b{n}")];
        let configs = [
            config(TENANT, &names[0], log.clone(), database.url()).await,
            config(TENANT, &names[1], log.clone(), database.url()).await,
        ];
        let drivers = configs.map(Driver::start);
        let mut watch: Vec<_> = drivers.iter().map(DriverHandle::watch).collect();
        let is_settled = |phase: &Phase| matches!(phase, Phase::Running | Phase::StandBy | Phase::Failed(_));
        for status in &mut watch {
            status.wait_for(|status| is_settled(&status.phase)).await.unwrap();
        }
        observations(&log).publish(round(n, 3)).await.unwrap();
        let phases = drivers.each_ref().map(|driver| driver.status().phase);
        let [first, second] = drivers;
        let (writes, stands_by) = match phases {
            [Phase::Running, Phase::StandBy] => (first, second),
            [Phase::StandBy, Phase::Running] => (second, first),
            phases => panic!("start {n}: {phases:?}"),
        };
        writes.caught_up().await.unwrap();
        assert_eq!(stands_by.status().phase, Phase::StandBy);
        writes.stop().await.unwrap();
        // What comes while nobody writes is the other's.
        observations(&log).publish(round(STARTS + n, 3)).await.unwrap();
        is_in(&stands_by, Phase::Running).await;
        stands_by.caught_up().await.unwrap();
        stands_by.stop().await.unwrap();
    }
    let views = Views::new(database.client().await).await;
    views.assert_as_undisturbed(log, TENANT, database.url(), "taken over").await;
}

/// A newcomer stands by while a process fills the views, however long its one transaction takes; and takes what a process
/// holds that was stopped in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_goes_on_is_waited_for_and_one_that_stands_still_is_ended() {
    let database = Database::migrated().await;
    let views = PostgresViews::connect(database.url()).await.unwrap();
    let rules = serde_json::json!({});
    let take = async |writer| views.take(TENANT, writer, "f", &rules).await;
    let (_held, _) = take("old").await.unwrap();
    // As that writer would: its name, the row of the fence, and a COPY of which the rest never comes.
    let stopped = database.client().await;
    let begin = format!(
        "SET application_name = 'writer {TENANT} 1.1'; BEGIN;
        UPDATE serviceradar_base.pipeline_writers SET beat = beat + 1;
        CREATE TEMP TABLE t (n integer)"
    );
    stopped.batch_execute(&begin).await.unwrap();
    let asked = Instant::now();
    // At work, for longer than a beat may stand still.
    stopped.batch_execute("SELECT pg_sleep(1)").await.unwrap();
    let working = async { stopped.batch_execute("SELECT pg_sleep(35)").await.unwrap() };
    let standing_by = async {
        for _ in 0..33 {
            let refused = take("new").await.err();
            assert!(
                matches!(&refused, Some(ViewsError::Held { writer, .. }) if writer == "old"),
                "{refused:?}"
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::join!(working, standing_by);
    let _unfinished = stopped.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await.unwrap();
    loop {
        match take("new").await {
            Ok(_) => break,
            Err(ViewsError::Held { .. }) => tokio::time::sleep(Duration::from_secs(1)).await,
            Err(error) => panic!("{error}"),
        }
    }
    println!("taken {:.0} s after the first question", asked.elapsed().as_secs_f64());
}

/// One stopped in the middle of an epoch, and one between reading its outbox and publishing it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_stopped_and_goes_on_writes_nothing() {
    let (in_work, publishing) = (Tenant::new().await, Tenant::new().await);
    tokio::join!(stopped_and_woken(&in_work, None), stopped_and_woken(&publishing, Some(40)));
}

async fn stopped_and_woken(tenant: &Tenant, stops_at: Option<usize>) {
    let process = Process::start(&tenant.name, tenant.database.url(), stops_at);
    tenant.publisher.publish(round(0, 200)).await.unwrap();
    let (mut process, _) = process.says(COMMITTED).await;
    let newcomer = start(&tenant.name, "new", &tenant.log, tenant.database.url()).await;
    is_in(&newcomer, Phase::StandBy).await;
    let mut rounds = 0;
    let mut more = async || {
        rounds += 1;
        tenant.publisher.publish(round(rounds, 200)).await.unwrap();
    };
    match stops_at {
        None => {
            for _ in 0..5 {
                more().await;
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..200))).await;
            }
            process.signal(Signal::SIGSTOP);
        }
        Some(_) => {
            while !process.is_stopped() {
                more().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    more().await;
    let stopped = Instant::now();
    is_in(&newcomer, Phase::Running).await;
    println!("taken over {:.1} s after the stop", stopped.elapsed().as_secs_f64());
    more().await;
    newcomer.caught_up().await.unwrap();
    let client = tenant.database.client().await;
    published(&client).await;
    newcomer.stop().await.unwrap();

    let written = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_all_tables
        WHERE schemaname IN ('views_1', 'serviceradar_base')";
    let row = "SELECT w::text FROM serviceradar_base.pipeline_writers w";
    let (views, before) = (Views::new(tenant.database.client().await).await, tenant.device_changes().await);
    // Sessions that have ended tell their figures a moment later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (count, held) =
        (views.count(written).await, client.query_one(row, &[]).await.unwrap().get::<_, String>(0));
    process.signal(Signal::SIGCONT);
    let why;
    (process, why) = process.says(ENDED).await;
    drop(process);
    assert!(why.contains("another writer has taken tenant"), "{why}");
    assert_eq!(client.query_one(row, &[]).await.unwrap().get::<_, String>(0), held);
    assert_eq!(views.count(written).await, count);
    let after = tenant.device_changes().await;
    assert_eq!(after, before, "the process that woke up published something");
    let [taken, last] = by_contract(&after);
    assert_eq!(taken, last, "compaction would leave what is not the newest");
    let select = "SELECT count(*) FROM views_1.devices";
    assert_eq!(views.count(select).await, taken.values().filter(|value| !value.is_empty()).count() as i64);
    let url = tenant.database.url();
    views.assert_as_undisturbed(tenant.log.clone(), &tenant.name, url, "stopped").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_loses_nothing() {
    let devices = env::var(DEVICES).map_or(DEVICES_DEFAULT, |devices| devices.parse().unwrap());
    let tenant = Arc::new(Tenant::new().await);
    tenant.publisher.publish(round(0, devices)).await.unwrap();
    let url = tenant.database.url();
    let old = Process::start(&tenant.name, url, None);
    let (old, _) = old.says(COMMITTED).await;
    let new = start(&tenant.name, "new", &tenant.log, url).await;
    is_in(&new, Phase::StandBy).await;

    // A hundred observations a second, all the time.
    let (publishing, is_over) = (tenant.clone(), Arc::new(AtomicBool::new(false)));
    let over = is_over.clone();
    let producer = tokio::spawn(async move {
        let mut rounds = 1;
        while !over.load(Ordering::Relaxed) {
            publishing.publisher.publish(round(rounds, 5)).await.unwrap();
            rounds += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let client = tenant.database.client().await;
    let last = "SELECT max(epoch) FROM serviceradar_base.pipeline_epochs";
    let epoch = async || client.query_one(last, &[]).await.unwrap().get::<_, i64>(0);
    // It has put its dataflow back, and follows.
    let warm = Duration::from_millis(2_000 + devices as u64 / 4);
    tokio::time::sleep(warm).await;
    old.signal(Signal::SIGTERM);
    let (mut seen, mut since, mut pause) = (epoch().await, Instant::now(), Duration::ZERO);
    let until = Instant::now() + warm;
    while new.status().phase != Phase::Running || Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = epoch().await;
        if now > seen {
            pause = pause.max(since.elapsed());
            (seen, since) = (now, Instant::now());
        }
    }
    let (_, how) = old.says(ENDED).await;
    assert_eq!(how, "well");
    is_over.store(true, Ordering::Relaxed);
    producer.await.unwrap();
    new.caught_up().await.unwrap();
    published(&client).await;
    new.stop().await.unwrap();
    println!("{devices} devices: the longest pause between two commits was {:.2} s", pause.as_secs_f64());
    let [taken, last] = by_contract(&tenant.device_changes().await);
    assert_eq!((taken.len(), &taken), (devices, &last));
    let views = Views::new(tenant.database.client().await).await;
    views.assert_as_undisturbed(tenant.log.clone(), &tenant.name, url, "updated").await;
}
