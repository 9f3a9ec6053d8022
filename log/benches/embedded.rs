//! How fast the embedded log appends and reads observations: `cargo bench -p serviceradar-log`.
//!
//! 1,200,000 events of 178 bytes under keys of 21, over six log partitions: appended by the
//! publisher in batches of several sizes, read in pieces of 1 MiB by one reader for each log
//! partition and by one for all, first from the file and then over the socket.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serviceradar_log::{EmbeddedLog, LogError, LogStore, NewEvent, Publisher, ReadLimit, SocketLog, socket};
use serviceradar_schemas::time::SystemClock;

const EVENTS: usize = 1_200_000;
const LOG_PARTITIONS: u32 = 6;
const VALUE_BYTES: usize = 178;

fn event(n: usize) -> NewEvent {
    NewEvent {
        key: Some(Bytes::from(format!("default/armis/hq/{n:04}"))),
        value: Some(Bytes::from(vec![n as u8; VALUE_BYTES])),
        headers: Vec::new(),
    }
}

fn report(what: &str, events: u64, took: Duration) {
    println!("{what:<44} {:>12.0} events/s", events as f64 / took.as_secs_f64());
}

/// Appends all events from calls of `size` events, eight of them at a time.
async fn append(store: Arc<dyn LogStore>, topic: &str, size: usize) -> Result<(), Box<dyn Error>> {
    const CALLS: usize = 8;
    let count = EVENTS.min(size * 6_000);
    store.create_topic(topic, LOG_PARTITIONS).await?;
    let publisher = Arc::new(Publisher::new(store, topic));
    let events: Vec<NewEvent> = (0..count).map(event).collect();
    let started = Instant::now();
    let calls: Vec<_> = events
        .chunks(count / CALLS)
        .map(|share| {
            let (publisher, share) = (Arc::clone(&publisher), share.to_vec());
            tokio::spawn(async move {
                for events in share.chunks(size) {
                    publisher.publish(events.to_vec()).await?;
                }
                Ok::<_, LogError>(())
            })
        })
        .collect();
    for call in calls {
        call.await??;
    }
    report(&format!("append, calls of {size}"), count as u64, started.elapsed());
    Ok(())
}

async fn read_all(store: &dyn LogStore, topic: &str, at: u32) -> Result<u64, LogError> {
    let limit = ReadLimit { events: 50_000, bytes: 1024 * 1024, wait: Duration::ZERO };
    let mut offset = 0;
    loop {
        let read = store.read(topic, at, offset, limit).await?;
        if read.events.is_empty() {
            return Ok(offset);
        }
        offset = read.next_offset;
    }
}

async fn read(what: &str, store: Arc<dyn LogStore>, topic: &str) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut count = 0;
    for at in 0..LOG_PARTITIONS {
        count += read_all(&*store, topic, at).await?;
    }
    report(&format!("read, {what}, one reader"), count, started.elapsed());
    let started = Instant::now();
    let readers: Vec<_> = (0..LOG_PARTITIONS)
        .map(|at| {
            let (store, topic) = (Arc::clone(&store), topic.to_owned());
            tokio::spawn(async move { read_all(&*store, &topic, at).await })
        })
        .collect();
    for reader in readers {
        reader.await??;
    }
    report(&format!("read, {what}, a reader a log partition"), count, started.elapsed());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(SystemClock);
    let store: Arc<dyn LogStore> = Arc::new(EmbeddedLog::open(folder.path(), clock.clone())?);
    for size in [1, 100, 2_000, 20_000] {
        append(store.clone(), &format!("bench.calls-of-{size}"), size).await?;
    }
    drop(store);
    let bytes = std::fs::metadata(folder.path().join("log.redb"))?.len();
    println!("{:<44} {:>12.0} MB", "file", bytes as f64 / 1e6);

    let started = Instant::now();
    let store: Arc<dyn LogStore> = Arc::new(EmbeddedLog::open(folder.path(), clock)?);
    println!("{:<44} {:>12.3} s", "open", started.elapsed().as_secs_f64());
    read("file", store.clone(), "bench.calls-of-2000").await?;

    let path = folder.path().join("log.sock");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (served, at) = (store.clone(), path.clone());
    let server = tokio::spawn(async move { socket::serve(served, &at, async { drop(stopped.await) }).await });
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let remote: Arc<dyn LogStore> = Arc::new(SocketLog::connect(&path).await?);
    read("socket", remote, "bench.calls-of-2000").await?;
    drop(stop);
    Ok(server.await??)
}
