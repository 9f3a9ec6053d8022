//! How long it takes until what is observed is visible, and at which rate that begins to grow.
//!
//! An open-loop generator publishes observations at a steady rate, whether or not the pipeline keeps up: records that are
//! known, each seen whole again, some with another name. A session of a reader asks for the names that it waits for.
//! Generator and reader have a thread each, so that their work is told apart from the pipeline's.

pub(crate) mod cpu;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use serviceradar_ingest::publish::Observations;
use serviceradar_materializers::inventory::Inventory;
use serviceradar_schemas::{
    Action, Claim, Coverage, Observation, Source,
    time::{Clock, SystemClock},
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use cpu::Cpu;

/// The source that is simulated.
const KIND: &str = "netbox";
const INSTANCE: &str = "bench";
const PARTITION: &str = "default";
/// How often the generator sends.
const TICK: Duration = Duration::from_millis(20);
/// How often the reader asks.
const ASK_EVERY: Duration = Duration::from_millis(25);
/// Changes that are waited for, a second: enough for a tail.
const WATCHED_PER_SECOND: u64 = 200;
/// Changes that are waited for at the same time.
const AWAITED_MAX: usize = 50_000;
/// Of them, those that are asked for at a time, the oldest: asking for all costs a database that is behind more than
/// what is measured.
const ASKED_AT_ONCE: usize = 100;
/// How long the last may take.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);
/// What is visible so soon after the last was sent has been kept up with.
const KEPT_UP_WITHIN: Duration = Duration::from_secs(1);

/// Threads of ours, and parts of the work.
const GENERATOR: &str = "generator";
const READER: &str = "reader";

/// What is published.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Records that take turns, in a random order.
    pub(crate) records: u64,
    /// One observation in so many changes something.
    pub(crate) change_every: u64,
    /// Observations a second.
    pub(crate) rate: u64,
    /// For how long.
    pub(crate) seconds: u64,
}

impl Load {
    fn events(&self) -> u64 {
        self.rate * self.seconds
    }

    /// One change in so many is waited for.
    fn watch_every(&self) -> u64 {
        (self.rate / self.change_every / WATCHED_PER_SECOND).max(1)
    }
}

/// What came of a load.
pub(crate) struct Measured {
    load: Load,
    /// From when each should have been sent to when it was seen, sorted.
    latencies: Vec<Duration>,
    /// From the end of the sending until all was seen.
    behind: Duration,
    /// Seconds of processor time by part.
    cpu: BTreeMap<&'static str, f64>,
    /// Bytes that the database wrote to its journal.
    journal_bytes: i64,
}

impl Measured {
    /// Whether the pipeline kept up.
    pub(crate) fn kept_up(&self) -> bool {
        self.behind <= KEPT_UP_WITHIN
    }

    fn at(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share) as usize;
        self.latencies.get(at).map_or(0.0, |latency| (latency.as_secs_f64() * 1_000.0).round())
    }

    /// Columns of `row`.
    pub(crate) const COLUMNS: [&'static str; 9] = [
        "observations/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "greatest ms",
        "behind ms",
        "cores",
        "cores of",
        "bytes per change",
    ];

    /// As a row for people and programs.
    pub(crate) fn row(&self) -> Vec<Value> {
        let seconds = self.load.seconds as f64;
        let cores = |spent: f64| (spent / seconds * 100.0).round() / 100.0;
        let parts: Map<String, Value> =
            self.cpu.iter().map(|(part, spent)| ((*part).to_owned(), json!(cores(*spent)))).collect();
        let changes = (self.load.events() / self.load.change_every).max(1);
        vec![
            json!(self.load.rate),
            json!(self.at(0.5)),
            json!(self.at(0.99)),
            json!(self.at(0.999)),
            json!(self.at(1.0)),
            json!(self.behind.as_millis() as u64),
            json!(cores(self.cpu.values().sum())),
            Value::Object(parts),
            json!(self.journal_bytes / changes.cast_signed()),
        ]
    }
}

/// A name that is to be seen: of which record, its number, and when it should have been sent.
struct Awaited {
    record: u64,
    number: u64,
    intended: Instant,
}

/// A pipeline that is measured.
pub(crate) struct Bench {
    pub(crate) observations: Arc<Observations>,
    pub(crate) database_url: String,
    pub(crate) tenant: String,
    /// The private server's process.
    pub(crate) postgres: Option<u32>,
    /// Numbers of the names given so far.
    pub(crate) next_number: u64,
}

impl Bench {
    /// Publishes a load, and measures until all of it is visible.
    pub(crate) async fn measure(&mut self, load: Load) -> anyhow::Result<Measured> {
        let mut inventory = Inventory::connect(&self.database_url, &self.tenant).await?;
        let journal = inventory.journal_bytes().await?;
        let cpu = Cpu::now(self.postgres);
        let (put, take) = mpsc::channel(AWAITED_MAX);
        let first_number = self.next_number;
        self.next_number += load.events();
        let (observations, sent) = (self.observations.clone(), load.clone());
        let generating =
            on_thread(GENERATOR, async move || generate(&observations, &sent, first_number, put).await)?;
        let reading = on_thread(READER, async move || read(inventory, take).await)?;
        let (ended, by_generator) = generating.await.context("the generator ended")??;
        let ((mut inventory, mut latencies, seen), by_reader) =
            reading.await.context("the reader ended")??;
        let mut spent = Cpu::now(self.postgres).since(&cpu);
        spent.extend([(GENERATOR, by_generator), (READER, by_reader)]);
        latencies.sort_unstable();
        let journal_bytes = inventory.journal_bytes().await? - journal;
        let behind = seen.saturating_duration_since(ended);
        Ok(Measured { load, latencies, behind, cpu: spent, journal_bytes })
    }
}

/// Runs on a thread and runtime of its own. Says what came of it, and how many seconds of a processor it took.
fn on_thread<T: Send + 'static, F: Future<Output = anyhow::Result<T>>>(
    name: &str,
    work: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<oneshot::Receiver<anyhow::Result<(T, f64)>>> {
    let (says, said) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
            let done = runtime.block_on(work())?;
            Ok((done, cpu::of_this_thread()))
        });
        // Who no longer waits does not want it.
        _ = says.send(result);
    })?;
    Ok(said)
}

/// Publishes at the load's rate. Returns when the last should have been sent.
async fn generate(
    observations: &Arc<Observations>,
    load: &Load,
    first_number: u64,
    put: mpsc::Sender<Awaited>,
) -> anyhow::Result<Instant> {
    let begin = Instant::now() + TICK;
    let mut names: Vec<Option<u64>> = vec![None; usize::try_from(load.records)?];
    let (mut number, mut ticks, mut random) = (0, 0_u32, ChaCha8Rng::seed_from_u64(first_number));
    let mut sending = tokio::task::JoinSet::new();
    while number < load.events() {
        tokio::time::sleep_until((begin + TICK * ticks).into()).await;
        ticks += 1;
        let upto = (load.rate * u64::from(ticks) * TICK.as_millis() as u64 / 1_000).min(load.events());
        let mut events = Vec::new();
        for number in number..upto {
            // Each has its own time, within the tick that sends it.
            let intended = begin + Duration::from_secs_f64(number as f64 / load.rate as f64) - TICK;
            let record = random.random_range(0..load.records);
            let name = &mut names[usize::try_from(record)?];
            if number % load.change_every == 0 {
                *name = Some(first_number + number);
            }
            events.push(observation(record, *name));
            if number % (load.change_every * load.watch_every()) == 0 {
                let awaited = Awaited { record, number: first_number + number, intended };
                put.try_send(awaited).map_err(|error| anyhow!("the reader cannot follow: {error}"))?;
            }
        }
        number = upto;
        // Whoever is slow keeps nobody waiting.
        let observations = observations.clone();
        sending.spawn(async move { observations.publish(events).await });
    }
    let ended = Instant::now();
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    Ok(ended)
}

/// What one source sees of a record, all of it, as an agent or an integration tells it again and again.
pub(crate) fn observation(record: u64, name: Option<u64>) -> Observation {
    let [.., a, b, c] = record.to_be_bytes();
    let mac = format!("00:1b:{a:02x}:{b:02x}:{c:02x}:01");
    Observation {
        event_time: SystemClock.now(),
        partition: PARTITION.to_owned(),
        source: Source { kind: KIND.to_owned(), instance: INSTANCE.to_owned() },
        native_key: record.to_string(),
        action: Action::Assert,
        coverage: Coverage::Full,
        claims: vec![Claim { namespace: "mac".into(), value: mac.into() }],
        hostname: Some(format!("host-{record}")),
        name: Some(name.map_or("first".to_owned(), |number| format!("name-{number}"))),
        ..Observation::default()
    }
}

/// Names are numbered in the order of their sending; the first have none.
fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("name-")?.parse().ok()
}

/// Asks for what is awaited until all of it was seen, and says when that was. A name that a later one of the same
/// record took the place of before it was asked for counts as seen then.
async fn read(
    mut inventory: Inventory,
    mut take: mpsc::Receiver<Awaited>,
) -> anyhow::Result<(Inventory, Vec<Duration>, Instant)> {
    // Known by a MAC address each, records keep their devices.
    let mut devices = HashMap::new();
    for (record_key, uid) in inventory.uids(KIND).await? {
        let record = record_key.rsplit('/').next().and_then(|key| key.parse::<u64>().ok());
        devices.extend(record.zip(uid));
    }
    let (mut awaited, mut latencies) = (VecDeque::<(Uuid, Awaited)>::new(), Vec::new());
    let (mut seen, mut waiting_since) = (Instant::now(), Instant::now());
    loop {
        let is_over = loop {
            match take.try_recv() {
                Ok(one) => {
                    let uid = devices.get(&one.record).context("a record of the load has no device")?;
                    awaited.push_back((*uid, one));
                }
                Err(error) => break error == mpsc::error::TryRecvError::Disconnected,
            }
        };
        if awaited.is_empty() {
            if is_over {
                return Ok((inventory, latencies, seen));
            }
            waiting_since = Instant::now();
            tokio::time::sleep(ASK_EVERY).await;
            continue;
        }
        if waiting_since.elapsed() > GIVE_UP_AFTER {
            bail!("{} changes were not visible within {GIVE_UP_AFTER:?}", awaited.len());
        }
        let asked = awaited.len().min(ASKED_AT_ONCE);
        let uids: Vec<Uuid> = awaited.iter().take(asked).map(|(uid, _)| *uid).collect();
        let names: HashMap<Uuid, String> = inventory.names(&uids).await?.into_iter().collect();
        let now = Instant::now();
        let (mut waits, before) = (VecDeque::new(), latencies.len());
        for (uid, one) in awaited.drain(..asked) {
            if names.get(&uid).and_then(|name| number_of(name)) >= Some(one.number) {
                latencies.push(now - one.intended);
                (seen, waiting_since) = (now, now);
            } else {
                waits.push_back((uid, one));
            }
        }
        waits.append(&mut awaited);
        awaited = waits;
        // Where some had come, more may have.
        if latencies.len() == before {
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}
