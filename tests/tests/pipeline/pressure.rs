//! A database that is slow, or silent, costs latency and no memory, and the lag shows; a full disk is said, tears nothing,
//! and is gone on from when there is room again.

use std::{
    env,
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serviceradar_log::{
    Batch, BatchId, EmbeddedLog, LogError, LogStore, MemoryLog, NewEvent, SocketLog, socket,
};
use serviceradar_replay::{DriverHandle, DriverStatus};
use serviceradar_schemas::{
    Observation,
    time::{Clock, SystemClock},
};
use serviceradar_tests::{
    database::Database,
    stand::{TENANT, Views, drive, make_topics, observation, observations, read_all},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::timeout,
};

/// Where the process under test finds the folder of its log and its database.
const LOG: &str = "PRESSURE_TEST_LOG";
const DATABASE: &str = "PRESSURE_TEST_DATABASE";
/// Seconds for which the database is silent, where another number is asked for: 300 are five minutes.
const SILENT_S: &str = "PRESSURE_TEST_SILENT_S";
const SILENT_S_DEFAULT: u64 = 20;
/// How long a slow database takes for each answer, and for how long it is slow.
const ANSWERS_AFTER: Duration = Duration::from_secs(2);
const SLOW_FOR: Duration = Duration::from_secs(15);
const UNDISTURBED_FOR: Duration = Duration::from_secs(10);
/// What is published every tenth of a second, of so many devices in turn.
const EVENTS: usize = 50;
/// Devices, where another number is asked for.
const DEVICES: &str = "PRESSURE_TEST_DEVICES";
const DEVICES_DEFAULT: usize = 10_000;
/// Memory that a disturbed pipeline may take, of what an undisturbed one does into which two crawls come.
const MEMORY_MAX: f64 = 1.5;
const STATUS: &str = "status ";
/// How often a pipeline says how it is, and after which time it surely has.
const TOLD_EVERY: Duration = Duration::from_millis(200);
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// What a proxy does with what passes through it.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Passing,
    Slow,
    /// Nothing passes; connections stay.
    Silent,
}

/// A proxy before a database. Returns the database's URL through it, and what sets its mode.
async fn proxy(url: &str) -> (String, watch::Sender<Mode>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = listener.local_addr().unwrap().to_string();
    let (login, rest) = url.rsplit_once('@').unwrap();
    let (server, database) = rest.split_once('/').unwrap();
    let (server, url) = (server.to_owned(), format!("{login}@{through}/{database}"));
    let (mode, modes) = watch::channel(Mode::Passing);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = TcpStream::connect(&server).await.unwrap().into_split();
            tokio::spawn(pump(from_client, to_server, modes.clone(), Duration::ZERO));
            tokio::spawn(pump(from_server, to_client, modes.clone(), ANSWERS_AFTER));
        }
    });
    (url, mode)
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    slow: Duration,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let Ok(mode) = modes.wait_for(|mode| *mode != Mode::Silent).await.map(|mode| *mode) else {
            return;
        };
        if mode == Mode::Slow {
            tokio::time::sleep(slow).await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// What other tests start: a pipeline that holds the log, as `run` does, and says how it is. Alone it does nothing.
#[test]
fn a_process_that_holds_the_log() {
    if let (Ok(folder), Ok(url)) = (env::var(LOG), env::var(DATABASE)) {
        serviceradar_ops::memory::use_small_pages();
        serviceradar_ops::memory::runtime().unwrap().block_on(holder(folder.as_ref(), &url));
    }
}

async fn holder(folder: &Path, url: &str) {
    let log: Arc<dyn LogStore> = Arc::new(EmbeddedLog::open(folder, Arc::new(SystemClock)).unwrap());
    make_topics(&log).await;
    let (serving, path) = (log.clone(), folder.join("log.sock"));
    tokio::spawn(async move { socket::serve(serving, &path, std::future::pending()).await.unwrap() });
    let driver = drive(log, url).await;
    while !driver.is_finished() {
        let status = driver.status();
        let now = SystemClock.now();
        let seconds = status.partitions.values().filter_map(|of| of.lag_seconds(now)).fold(0.0, f64::max);
        println!("{STATUS}{} {seconds}", status.lag_events());
        tokio::time::sleep(TOLD_EVERY).await;
    }
}

/// The pipeline in a process of its own, until it is dropped.
struct Pipeline {
    child: Child,
    /// Lag in events and seconds, as it says.
    lag: Arc<Mutex<(u64, f64)>>,
}

impl Pipeline {
    fn start(folder: &Path, url: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["pressure::a_process_that_holds_the_log", "--exact", "--nocapture"])
            .envs([(LOG, folder.to_str().unwrap()), (DATABASE, url)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lag = Arc::new(Mutex::default());
        let (told, lines) = (lag.clone(), BufReader::new(child.stdout.take().unwrap()).lines());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, figures)) = line.split_once(STATUS) {
                    let (events, seconds) = figures.split_once(' ').unwrap();
                    *told.lock().unwrap() = (events.parse().unwrap(), seconds.parse().unwrap());
                }
            }
        });
        Self { child, lag }
    }

    fn lag(&self) -> (u64, f64) {
        *self.lag.lock().unwrap()
    }

    /// Memory that it takes now, kilobytes.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The most memory and lag until a time has passed and `is_over`.
    async fn watch(&self, what: &str, least: Duration, is_over: impl Fn((u64, f64)) -> bool) -> Most {
        let until = Instant::now() + least;
        let mut most = Most::default();
        while Instant::now() < until || !is_over(self.lag()) {
            let (events, seconds) = self.lag();
            most.memory = most.memory.max(self.memory());
            most.events = most.events.max(events);
            most.seconds = most.seconds.max(seconds);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let Most { memory, events, seconds } = most;
        println!("{what}: at most {} MB, {events} events and {seconds:.1} s behind", memory / 1024);
        most
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // Gone already, or of no more use.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Most {
    memory: u64,
    events: u64,
    seconds: f64,
}

fn devices() -> usize {
    env::var(DEVICES).map_or(DEVICES_DEFAULT, |devices| devices.parse().unwrap())
}

/// Observations of some devices in turn, in which something changes each time.
fn seen(from: usize, count: usize) -> impl Iterator<Item = Observation> {
    (from..from + count).map(|n| Observation {
        id: n.to_string(),
        hostname: Some(format!("host-{n}")),
        ..observation(&format!("{:05}", n % devices()), SystemClock.now())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_database_and_a_silent_one_cost_latency_and_no_memory() {
    let silent = env::var(SILENT_S).map_or(SILENT_S_DEFAULT, |seconds| seconds.parse().unwrap());
    let silent = Duration::from_secs(silent);
    let (folder, database) = (tempfile::tempdir().unwrap(), Database::migrated().await);
    let (url, mode) = proxy(database.url()).await;
    let pipeline = Pipeline::start(folder.path(), &url);
    let log = loop {
        match SocketLog::connect(&folder.path().join("log.sock")).await {
            Ok(log) => break Arc::new(log) as Arc<dyn LogStore>,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let (publisher, is_over) = (observations(&log), Arc::new(AtomicBool::new(false)));
    let over = is_over.clone();
    let published = Arc::new(AtomicUsize::new(0));
    let said = published.clone();
    let lag = pipeline.lag.clone();
    let producer = tokio::spawn(async move {
        let mut from = 0;
        for crawl in [devices(); 2] {
            publisher.publish(seen(from, crawl)).await.unwrap();
            from += crawl;
            said.store(from, Ordering::Relaxed);
            // One is loaded, and the other changes what is there: at once, both might be loaded.
            tokio::time::sleep(TOLD_WITHIN).await;
            while lag.lock().unwrap().0 > 0 {
                tokio::time::sleep(TOLD_WITHIN).await;
            }
        }
        while !over.load(Ordering::Relaxed) {
            publisher.publish(seen(from, EVENTS)).await.unwrap();
            from += EVENTS;
            said.store(from, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let is_near = |(events, _): (u64, f64)| events <= 5 * EVENTS as u64;
    let crawled = |lag| published.load(Ordering::Relaxed) > 2 * devices() && is_near(lag);
    let undisturbed = pipeline.watch("undisturbed", UNDISTURBED_FOR, crawled).await;
    mode.send_replace(Mode::Silent);
    let before = published.load(Ordering::Relaxed);
    let without = pipeline.watch("a silent database", silent, |_| true).await;
    let meanwhile = published.load(Ordering::Relaxed) - before;
    mode.send_replace(Mode::Passing);
    let after = pipeline.watch("catching up", Duration::ZERO, is_near).await;
    mode.send_replace(Mode::Slow);
    let slow = pipeline.watch("a slow database", SLOW_FOR, |_| true).await;
    mode.send_replace(Mode::Passing);
    let after_slow = pipeline.watch("catching up", Duration::ZERO, is_near).await;
    is_over.store(true, Ordering::Relaxed);
    producer.await.unwrap();
    pipeline.watch("the end", Duration::from_secs(1), |(events, _)| events == 0).await;
    drop(pipeline);

    // The lag shows: nothing passed all the while.
    assert!(without.seconds > silent.as_secs_f64() / 2.0, "{}", without.seconds);
    assert!(without.events > meanwhile as u64 / 2, "{} of {meanwhile}", without.events);
    for most in [without, after, slow, after_slow] {
        let share = most.memory as f64 / undisturbed.memory as f64;
        assert!(share <= MEMORY_MAX, "{share:.2} times the memory of an undisturbed pipeline");
    }
    let log: Arc<dyn LogStore> = Arc::new(EmbeddedLog::open(folder.path(), Arc::new(SystemClock)).unwrap());
    let views = Views::new(database.client().await).await;
    views.assert_as_undisturbed(log, TENANT, database.url(), "pressed").await;
}

/// A small disk of its own. Needs root, or `sudo` without a password, to be mounted.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// One of so many MiB, whose files are `owner`'s.
    fn new(mebibytes: u64, owner: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let options = format!("size={mebibytes}m,uid={owner},mode=0700");
        run(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", folder.path().to_str().unwrap()]);
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn grow(&self, mebibytes: u64) {
        run(&["mount", "-o", &format!("remount,size={mebibytes}m"), self.path().to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open there may go on.
        run(&["umount", "-l", self.path().to_str().unwrap()]);
    }
}

fn run(command: &[&str]) {
    let prefix: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["sudo", "-n"] };
    let words = [prefix, command].concat();
    let ran = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(
        ran.status.success(),
        "{words:?} failed, and this test needs it: run it as root, or let sudo ask no password: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_a_full_disk_says_so_keeps_what_it_took_and_goes_on_when_there_is_room() {
    const TOPIC: &str = "t.observations";
    const EVENTS_OF_BATCH: u64 = 10;
    let disk = Disk::new(16, nix::unistd::geteuid().as_raw());
    let log: Arc<dyn LogStore> = Arc::new(EmbeddedLog::open(disk.path(), Arc::new(SystemClock)).unwrap());
    log.create_topic(TOPIC, 1).await.unwrap();
    let batch = |sequence| {
        let value = |n: u64| format!("{sequence} {n} {}", "x".repeat(10_000));
        let events = (0..EVENTS_OF_BATCH)
            .map(|n| NewEvent { value: Some(value(n).into()), ..NewEvent::default() })
            .collect();
        Batch { id: BatchId { producer: 1, sequence }, events }
    };
    let mut taken = 0;
    let why = loop {
        match log.append(TOPIC, 0, batch(taken)).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1_000, "the disk is never full");
    };
    println!("after {taken} batches: {why}");
    assert!(matches!(&why, LogError::Unavailable(why) if why.contains("No space left on device")), "{why}");
    for _ in 0..3 {
        let again = log.append(TOPIC, 0, batch(taken)).await.unwrap_err();
        assert!(matches!(&again, LogError::Unavailable(_)), "{again}");
    }
    let is_whole = |events: &[serviceradar_log::Event], batches: u64| {
        let values = events.iter().map(|event| event.value.clone().unwrap());
        let expected = (0..batches).flat_map(|sequence| batch(sequence).events);
        values.eq(expected.map(|event| event.value.unwrap()))
    };
    assert!(is_whole(&read_all(&log, TOPIC, 0).await, taken), "what was taken is not what is there");
    disk.grow(64);
    for _ in 0..2 {
        log.append(TOPIC, 0, batch(taken)).await.unwrap();
    }
    log.append(TOPIC, 0, batch(taken + 1)).await.unwrap();
    assert!(is_whole(&read_all(&log, TOPIC, 0).await, taken + 2), "something is torn, or there twice");
}

/// A pipeline into an empty database, with a hundred records there.
async fn hundred(url: &str) -> (Arc<dyn LogStore>, DriverHandle) {
    let views = serviceradar_materializers::PostgresViews::connect(url).await.unwrap();
    views.migrate().await.unwrap();
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    make_topics(&log).await;
    observations(&log).publish(seen(0, 100)).await.unwrap();
    let driver = drive(log.clone(), url).await;
    driver.caught_up().await.unwrap();
    (log, driver)
}

async fn says(driver: &DriverHandle, what: impl Fn(&DriverStatus) -> bool) -> DriverStatus {
    driver.watch().wait_for(|status| what(status)).await.unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_on_a_full_disk_is_said_and_nothing_is_lost_or_doubled() {
    let server = Database::empty().await;
    let client = server.client().await;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    let disk = Disk::new(64, owner);
    let at = disk.path().display();
    let name = format!("full_{}", std::process::id());
    client.batch_execute(&format!("CREATE TABLESPACE {name} LOCATION '{at}'")).await.unwrap();
    client.batch_execute(&format!("CREATE DATABASE {name} TABLESPACE {name}")).await.unwrap();
    let (of_server, _) = server.url().rsplit_once('/').unwrap();
    let url = format!("{of_server}/{name}");
    let (log, driver) = hundred(&url).await;

    // All the rest of the disk.
    let ballast = disk.path().join("ballast");
    let full = fs::write(&ballast, vec![0; 64 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    observations(&log).publish(seen(100, DEVICES_DEFAULT)).await.unwrap();
    let status = says(&driver, |status| status.database.is_some()).await;
    let why = status.database.unwrap();
    println!("{why}");
    assert!(why.contains("No space left on device") && why.contains("53100"), "{why}");
    // Readers have what was there before.
    let (reader, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let views = Views::new(reader).await;
    assert_eq!(views.count("SELECT count(*) FROM views_1.device_records").await, 100);
    fs::remove_file(&ballast).unwrap();
    driver.caught_up().await.unwrap();
    assert_eq!(driver.status().database, None);
    driver.stop().await.unwrap();
    views.assert_as_undisturbed(log, TENANT, &url, "full").await;
    drop(views);
    client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    client.batch_execute(&format!("DROP TABLESPACE {name}")).await.unwrap();
}

/// Where there is no room for the server's journal it ends as a whole, again and again: the private one is started
/// until it can go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_room_for_its_journal_comes_back_by_itself_when_there_is_some() {
    use serviceradar_ops::postgres::PrivatePostgres;

    let folder = tempfile::tempdir().unwrap();
    let server = PrivatePostgres::start(folder.path()).await.unwrap();
    let owner = fs::metadata(format!("/proc/{}", server.pid())).unwrap().uid();
    server.stop().await;
    let disk = Disk::new(80, owner);
    let journal = folder.path().join("data/pg_wal");
    for entry in fs::read_dir(&journal).unwrap() {
        let path = entry.unwrap().path();
        run(&["cp", "-a", path.to_str().unwrap(), disk.path().to_str().unwrap()]);
    }
    fs::rename(&journal, folder.path().join("pg_wal_before")).unwrap();
    std::os::unix::fs::symlink(disk.path(), &journal).unwrap();
    let server = PrivatePostgres::start(folder.path()).await.unwrap();
    let (url, first) = (server.url().to_owned(), server.pid());
    let (log, driver) = hundred(&url).await;

    // How much journal a device takes depends on how many there are in an epoch.
    let mut from = 100;
    let why = loop {
        observations(&log).publish(seen(from, DEVICES_DEFAULT)).await.unwrap();
        from += DEVICES_DEFAULT;
        let said = timeout(Duration::from_secs(5), says(&driver, |status| status.database.is_some()));
        if let Ok(status) = said.await {
            break status.database.unwrap();
        }
        assert!(from < 20 * DEVICES_DEFAULT, "the disk is never full");
    };
    println!("{why}");
    // By itself where it recovers, or as a whole.
    tokio::time::sleep(Duration::from_secs(10)).await;
    Command::new("kill").args(["-9", &server.pid().to_string()]).status().unwrap();
    disk.grow(4_096);
    driver.caught_up().await.unwrap();
    assert!(server.pid() != first && server.is_running(), "it is the same server");
    assert_eq!(driver.status().database, None);
    driver.stop().await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    Views::new(client).await.assert_as_undisturbed(log, TENANT, &url, "without a journal").await;
    server.stop().await;
}
