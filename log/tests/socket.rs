//! What the socket adds to the store behind it: who may connect, and what happens when its holder
//! comes and goes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serviceradar_log::{
    LogError, LogStore, MemoryLog, NewEvent, Publisher, ReadLimit, SocketLog, socket, socket::ServeError,
};
use serviceradar_schemas::time::SystemClock;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

const TOPIC: &str = "t.observations";
/// Longest wait for what must come: only what hangs takes so long.
const HANGS: Duration = Duration::from_secs(120);

fn memory() -> Arc<dyn LogStore> {
    Arc::new(MemoryLog::new(Arc::new(SystemClock)))
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.sock");
    (folder, path)
}

struct Holder {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Holder {
    fn start(store: Arc<dyn LogStore>, path: &Path) -> Self {
        let (stop, stopped) = oneshot::channel();
        let path = path.to_owned();
        let serving =
            tokio::spawn(async move { socket::serve(store, &path, async { stopped.await.unwrap() }).await });
        Self { stop, serving }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(HANGS, self.serving).await.expect("the holder does not end").unwrap().unwrap();
    }
}

async fn connect(path: &Path) -> SocketLog {
    let connected = async {
        loop {
            if let Ok(log) = SocketLog::connect(path).await {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(HANGS, connected).await.expect("nobody serves")
}

fn event(value: u64) -> NewEvent {
    NewEvent { value: Some(value.to_string().into()), ..NewEvent::default() }
}

#[tokio::test]
async fn only_the_user_may_connect_and_nothing_is_left_behind() {
    let (folder, path) = place();
    let holder = Holder::start(memory(), &path);
    connect(&path).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    holder.stop().await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_second_holder_is_refused_and_the_first_goes_on() {
    let (_folder, path) = place();
    let holder = Holder::start(memory(), &path);
    let log = connect(&path).await;
    let refused = socket::serve(memory(), &path, std::future::ready(())).await;
    assert!(matches!(refused, Err(ServeError::InUse(_))), "{refused:?}");
    log.create_topic(TOPIC, 1).await.unwrap();
    connect(&path).await.describe_topic(TOPIC).await.unwrap();
    holder.stop().await;
}

/// The socket itself, and the folder it was bound in, by a process of the same number.
#[tokio::test]
async fn what_a_dead_process_left_is_replaced() {
    let (_folder, path) = place();
    drop(UnixListener::bind(&path).unwrap());
    let half = path.with_extension(std::process::id().to_string());
    fs::create_dir(&half).unwrap();
    drop(UnixListener::bind(half.join("s")).unwrap());
    let holder = Holder::start(memory(), &path);
    connect(&path).await.create_topic(TOPIC, 1).await.unwrap();
    holder.stop().await;
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let (_folder, path) = place();
    fs::write(&path, "a file of somebody").unwrap();
    let refused = socket::serve(memory(), &path, std::future::ready(())).await;
    assert!(matches!(refused, Err(ServeError::Listen { .. })), "{refused:?}");
    assert_eq!(fs::read(&path).unwrap(), b"a file of somebody");
}

#[tokio::test]
async fn without_a_holder_calls_are_unavailable() {
    let (_folder, path) = place();
    let refused = SocketLog::connect(&path).await.unwrap_err();
    assert!(matches!(refused, LogError::Unavailable(_)), "{refused}");
    let holder = Holder::start(memory(), &path);
    let log = connect(&path).await;
    log.create_topic(TOPIC, 1).await.unwrap();
    holder.stop().await;
    let refused = log.describe_topic(TOPIC).await.unwrap_err();
    assert!(matches!(refused, LogError::Unavailable(_)), "{refused}");
}

/// Otherwise a reader of a quiet topic would keep its holder from ending.
#[tokio::test]
async fn a_reader_that_waits_does_not_hold_up_the_end() {
    let (_folder, path) = place();
    let holder = Holder::start(memory(), &path);
    let log = connect(&path).await;
    log.create_topic(TOPIC, 1).await.unwrap();
    let limit = ReadLimit { events: 1, bytes: 1, wait: HANGS * 10 };
    let reading = tokio::spawn(async move { log.read(TOPIC, 0, 0, limit).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    holder.stop().await;
    let refused = timeout(HANGS, reading).await.expect("the read goes on").unwrap().unwrap_err();
    assert!(matches!(refused, LogError::Unavailable(_)), "{refused}");
}

/// Its batches that were under way are sent again, and are there once.
#[tokio::test]
async fn a_publisher_outlives_its_holder() {
    const CALLS: u64 = 300;
    let (_folder, path) = place();
    let store = memory();
    store.create_topic(TOPIC, 1).await.unwrap();
    let mut holder = Holder::start(Arc::clone(&store), &path);
    let publisher = Publisher::new(Arc::new(connect(&path).await), TOPIC);
    let publishing = tokio::spawn(async move {
        for n in 0..CALLS {
            publisher.publish(vec![event(n)]).await.unwrap();
        }
    });
    for until in [50, 100, 150] {
        while store.offsets(TOPIC, 0).await.unwrap().end < until {
            tokio::task::yield_now().await;
        }
        holder.stop().await;
        holder = Holder::start(Arc::clone(&store), &path);
    }
    timeout(HANGS, publishing).await.expect("the publisher hangs").unwrap();
    let limit = ReadLimit { events: 1_000, bytes: 1_000_000, wait: Duration::ZERO };
    let read = store.read(TOPIC, 0, 0, limit).await.unwrap().events;
    let values = read.into_iter().map(|event| event.value);
    assert!(values.eq((0..CALLS).map(|n| event(n).value)), "lost, doubled or out of order");
    holder.stop().await;
}
