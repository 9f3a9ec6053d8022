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
    stand::{Between, Network, TENANT, Views, drive, make_topics},
};

const DEVICES: usize = 400;
const KILLS_IN_LOAD: usize = 3;
const KILLS: usize = 5;
const CUTS_IN_LOAD: usize = 3;
const CUTS: usize = 5;
/// Where the process under test finds the folder of its log and its database.
const LOG: &str = "PIPELINE_TEST_LOG";
const DATABASE: &str = "PIPELINE_TEST_DATABASE";
const SIGKILL: i32 = 9;
/// Says that empty views are being filled.
const LOADING: &str = "loading";
/// Says that an epoch is committed.
const COMMITTED: &str = "committed epoch ";

/// The log, read so slowly that a look takes tens of epochs.
fn open(folder: &Path) -> Arc<dyn LogStore> {
    Between::slow(open_fast(folder), 3, Duration::from_millis(30))
}

fn open_fast(folder: &Path) -> Arc<dyn LogStore> {
    Arc::new(EmbeddedLog::open(folder, Arc::new(SystemClock)).unwrap())
}

/// Waits until nobody but us holds the log: readers of a stopped driver do until their last read returns.
async fn close(log: Arc<dyn LogStore>) {
    while Arc::strong_count(&log) > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A network that was looked at once, into a log.
async fn looked_at(folder: &Path) -> Network {
    let log = open_fast(folder);
    make_topics(&log).await;
    let network = Network::new(DEVICES).await;
    network.look(&log).await;
    close(log).await;
    network
}

/// The process that is killed: a driver until then, which says that it fills the views, and what it has committed.
async fn driver_until_killed(folder: &Path, url: &str) {
    let driver = drive(open(folder), url).await;
    let mut status = driver.watch();
    let (mut told, mut loading) = (0, false);
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        if now.loading > 0 && !loading {
            loading = true;
            println!("{LOADING}");
        }
        if now.epoch > told {
            told = now.epoch;
            println!("{COMMITTED}{told}");
        }
    }
}

/// Starts a driver, and kills it within a while after it has said a word so many times.
fn kill_one(folder: &Path, url: &str, (word, times): (&str, usize), within_ms: u64) {
    let test = "kill::a_killed_driver_loses_nothing_and_doubles_nothing";
    let mut child = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .envs([(LOG, folder.to_str().unwrap()), (DATABASE, url)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its end of the pipe stays open: it is to die of the kill, not of a word that nobody reads.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.by_ref().filter(|line| line.contains(word)).take(times).count();
    std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..within_ms)));
    child.kill().unwrap();
    let died_of = child.wait().unwrap().signal();
    assert_eq!((said, died_of), (times, Some(SIGKILL)), "the driver ended by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_driver_loses_nothing_and_doubles_nothing() {
    if let (Ok(folder), Ok(url)) = (env::var(LOG), env::var(DATABASE)) {
        return driver_until_killed(folder.as_ref(), &url).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let network = looked_at(folder.path()).await;
    let database = Database::migrated().await;
    let views = Views::new(database.client().await).await;
    let kill = async |after: (&'static str, usize), within_ms| {
        let (folder, url) = (folder.path().to_owned(), database.url().to_owned());
        tokio::task::spawn_blocking(move || kill_one(&folder, &url, after, within_ms)).await.unwrap();
    };
    // While it fills the views, of which nothing is there before all is: reading alone takes it a second.
    let epochs = "SELECT count(*) FROM serviceradar_base.pipeline_epochs";
    for n in 0..KILLS_IN_LOAD {
        kill((LOADING, 1), 250).await;
        if views.count(epochs).await > 0 {
            assert!(n > 0, "no kill met the load");
            break;
        }
        assert_eq!(views.count("SELECT count(*) FROM views_1.device_records").await, 0);
    }
    let log = open_fast(folder.path());
    let driver = drive(log.clone(), database.url()).await;
    driver.caught_up().await.unwrap();
    driver.stop().await.unwrap();
    close(log).await;
    for _ in 0..KILLS {
        let log = open_fast(folder.path());
        network.faker.shuffle().unwrap();
        network.look(&log).await;
        close(log).await;
        kill((COMMITTED, 1), 200).await;
    }
    let log = open(folder.path());
    let left = views.count("SELECT sum(next_offset)::bigint FROM serviceradar_base.pipeline_frontiers").await;
    let driver = drive(log.clone(), database.url()).await;
    driver.caught_up().await.unwrap();
    assert!(driver.status().events > 0, "all {left} events were taken in before the last kill");
    driver.stop().await.unwrap();
    close(log).await;
    views.assert_as_undisturbed(open_fast(folder.path()), TENANT, database.url(), "killed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_whose_connections_are_cut_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let network = looked_at(folder.path()).await;
    let database = Database::migrated().await;
    let views = Views::new(database.client().await).await;
    let log = open(folder.path());
    let driver = drive(log.clone(), database.url()).await;
    let mut status = driver.watch();
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    status.wait_for(|status| status.loading > 0).await.unwrap();
    for _ in 0..CUTS_IN_LOAD {
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..1_000))).await;
        views.count(cut).await;
    }
    driver.caught_up().await.unwrap();
    for n in 0..CUTS {
        let epoch = status.borrow().epoch;
        network.faker.shuffle().unwrap();
        network.look(&log).await;
        status.wait_for(|status| status.epoch > epoch).await.unwrap();
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..100))).await;
        assert!(views.count(cut).await > 0, "cut {n} met no session");
    }
    driver.caught_up().await.unwrap();
    driver.stop().await.unwrap();
    close(log).await;
    views.assert_as_undisturbed(open_fast(folder.path()), TENANT, database.url(), "cut").await;
}
