//! A driver that is killed, and one whose database connections are cut: nothing is lost, nothing is there twice.

use std::{
    env,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rand::RngExt;
use serviceradar_log::{EmbeddedLog, LogStore};
use serviceradar_schemas::time::SystemClock;
use serviceradar_tests::{
    database::Database,
    stand::{Network, Slow, TENANT, Views, drive, make_topics},
};

const DEVICES: usize = 400;
const KILLS: usize = 5;
const CUTS: usize = 5;
/// Where the process under test finds the folder of its log and its database.
const LOG: &str = "PIPELINE_TEST_LOG";
const DATABASE: &str = "PIPELINE_TEST_DATABASE";
const SIGKILL: i32 = 9;
/// Says that an epoch is committed.
const COMMITTED: &str = "committed epoch ";

/// The log, read so slowly that the crawl takes tens of epochs.
fn open(folder: &Path) -> Arc<dyn LogStore> {
    let log = Arc::new(EmbeddedLog::open(folder, Arc::new(SystemClock)).unwrap());
    Arc::new(Slow { log, events: 8, pause: Duration::from_millis(30) })
}

/// Two looks at a network in a log, and the views of a run that nothing disturbed kept aside.
async fn undisturbed(folder: &Path) -> (Database, Views) {
    let database = Database::migrated().await;
    let log: Arc<dyn LogStore> = Arc::new(EmbeddedLog::open(folder, Arc::new(SystemClock)).unwrap());
    make_topics(&log).await;
    let network = Network::new(DEVICES).await;
    network.look(&log).await;
    network.faker.shuffle().unwrap();
    network.look(&log).await;
    let driver = drive(log.clone(), database.url()).await;
    driver.caught_up().await.unwrap();
    driver.stop().await.unwrap();
    // Readers of a stopped driver hold the log until their last read returns: only then can it be opened again.
    while Arc::strong_count(&log) > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let views = Views::new(database.client().await).await;
    views.keep_and_clear().await;
    (database, views)
}

/// Epochs are there one after the other, and count each event of the log once.
async fn assert_each_event_once(views: &Views, log: &Arc<dyn LogStore>) {
    let holes = "SELECT count(*) FROM (SELECT epoch, row_number() OVER (ORDER BY epoch) AS n
        FROM serviceradar_base.pipeline_epochs) AS e WHERE epoch <> n";
    assert_eq!(views.count(holes).await, 0);
    let mut ends = 0;
    for partition in serviceradar_replay::topics::read_by(&**log, TENANT).await.unwrap() {
        ends += log.offsets(&partition.topic, partition.log_partition).await.unwrap().end as i64;
    }
    let frontiers = "SELECT sum(next_offset)::bigint FROM serviceradar_base.pipeline_frontiers";
    assert_eq!(views.count(frontiers).await, ends);
    let events = "SELECT sum(records)::bigint FROM serviceradar_base.pipeline_epochs";
    assert_eq!(views.count(events).await, ends);
}

/// The process that is killed: a driver until then, which says what it has committed.
async fn driver_until_killed(folder: &Path, url: &str) {
    let driver = drive(open(folder), url).await;
    let mut status = driver.watch();
    let mut told = 0;
    while status.changed().await.is_ok() {
        let epoch = status.borrow_and_update().epoch;
        if epoch > told {
            told = epoch;
            println!("{COMMITTED}{epoch}");
        }
    }
}

/// Starts a driver, and kills it shortly after its second epoch.
fn kill_one(folder: &Path, url: &str, test: &str) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .envs([(LOG, folder.to_str().unwrap()), (DATABASE, url)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its end of the pipe stays open: it is to die of the kill, not of a word that nobody reads.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let committed = lines.by_ref().filter(|line| line.contains(COMMITTED)).take(2).count();
    std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..200)));
    child.kill().unwrap();
    let died_of = child.wait().unwrap().signal();
    assert_eq!((committed, died_of), (2, Some(SIGKILL)), "the driver ended by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_driver_loses_nothing_and_doubles_nothing() {
    if let (Ok(folder), Ok(url)) = (env::var(LOG), env::var(DATABASE)) {
        return driver_until_killed(folder.as_ref(), &url).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, views) = undisturbed(folder.path()).await;
    for _ in 0..KILLS {
        let (folder, url) = (folder.path().to_owned(), database.url().to_owned());
        let test = "kill::a_killed_driver_loses_nothing_and_doubles_nothing";
        tokio::task::spawn_blocking(move || kill_one(&folder, &url, test)).await.unwrap();
    }
    let log = open(folder.path());
    let left = views.count("SELECT sum(next_offset)::bigint FROM serviceradar_base.pipeline_frontiers").await;
    let driver = drive(log.clone(), database.url()).await;
    driver.caught_up().await.unwrap();
    assert!(driver.status().events > 0, "all {left} events were taken in before the last kill");
    driver.stop().await.unwrap();
    assert_each_event_once(&views, &log).await;
    views.assert_as_kept("killed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_whose_connections_are_cut_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (database, views) = undisturbed(folder.path()).await;
    let log = open(folder.path());
    let driver = drive(log.clone(), database.url()).await;
    let mut status = driver.watch();
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    for n in 0..CUTS {
        let epoch = status.borrow().epoch;
        status.wait_for(|status| status.epoch > epoch).await.unwrap();
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..100))).await;
        assert!(views.count(cut).await > 0, "cut {n} met no session");
    }
    driver.caught_up().await.unwrap();
    driver.stop().await.unwrap();
    assert_each_event_once(&views, &log).await;
    views.assert_as_kept("cut").await;
}
