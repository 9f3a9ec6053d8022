//! What is left of the embedded log when its process dies, its file is torn, or its disk is full.
//!
//! The process under test is this program once more, started with `append` or `fill` and a folder.
//! It prints each batch that was acknowledged; what it printed is what must be there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Read},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigSet, Signal},
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serviceradar_log::{
    Batch, BatchId, EmbeddedLog, Event, LogError, LogStore, NewEvent, Offsets, ReadLimit,
};
use serviceradar_schemas::time::SystemClock;
use tokio::runtime::Runtime;

const TOPIC: &str = "t.observations";
const LOG_PARTITIONS: u32 = 2;
/// Producers of a process; each appends to every log partition in turn.
const PRODUCERS: u64 = 3;
/// Rounds in which a process is killed while it makes the log, and while it appends.
const ROUNDS: u64 = 12;

/// Log partition, producer, sequence.
type BatchName = (u32, u64, u64);
/// Where each acknowledged batch is.
type Acknowledged = BTreeMap<BatchName, u64>;

fn main() -> ExitCode {
    // Before any thread is started: a write over the limit of a file's length is then an error.
    let over_length = SigSet::from(Signal::SIGXFSZ);
    over_length.thread_block().unwrap();
    let arguments: Vec<String> = env::args().collect();
    let runtime = Runtime::new().unwrap();
    match arguments.get(1..).unwrap_or_default() {
        [role, folder] if role == "append" => runtime.block_on(append(Path::new(folder))),
        [role, folder] if role == "fill" => runtime.block_on(fill(Path::new(folder))),
        _ => runtime.block_on(all()),
    }
    ExitCode::SUCCESS
}

async fn all() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    killed_while_it_makes_the_log(&mut chance).await;
    let (folder, acknowledged) = killed_while_it_appends(&mut chance).await;
    torn(&fs::read(file(folder.path())).unwrap(), &acknowledged, "killed", &mut chance).await;
    drop(open(folder.path()).unwrap());
    torn(&fs::read(file(folder.path())).unwrap(), &acknowledged, "closed", &mut chance).await;
    full();
}

fn open(folder: &Path) -> Result<EmbeddedLog, LogError> {
    EmbeddedLog::open(folder, Arc::new(SystemClock))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("log.redb")
}

/// The one batch of this name: so whoever reads it knows what it was.
fn batch((log_partition, producer, sequence): BatchName) -> Batch {
    let mut chance = StdRng::seed_from_u64(producer ^ sequence << 8 ^ u64::from(log_partition));
    let size = *[1, 1, 10, 100, 500].choose(&mut chance).unwrap();
    let events = (0..size).map(|n| NewEvent {
        key: Some(format!("{producer}/{sequence}/{n}/{size}").into()),
        value: Some(vec![chance.random(); chance.random_range(0..200)].into()),
        headers: Vec::new(),
    });
    Batch { id: BatchId { producer, sequence }, events: events.collect() }
}

/// The process that is killed: appends until then, and prints what was acknowledged.
async fn append(folder: &Path) {
    let log = Arc::new(open(folder).unwrap());
    log.create_topic(TOPIC, LOG_PARTITIONS).await.unwrap();
    let first: u64 = rand::random();
    let producers = (0..PRODUCERS).map(|n| {
        let (log, producer) = (Arc::clone(&log), first.wrapping_add(n));
        tokio::spawn(async move {
            for sequence in 0.. {
                for at in 0..LOG_PARTITIONS {
                    let appended = log.append(TOPIC, at, batch((at, producer, sequence))).await.unwrap();
                    println!("{at} {producer} {sequence} {} .", appended.first_offset);
                }
            }
        })
    });
    for producer in producers.collect::<Vec<_>>() {
        producer.await.unwrap();
    }
}

/// A process that does not outlive its test.
struct Process(Child);

impl Process {
    fn start(role: &str, folder: &Path) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        Self(command.arg(role).arg(folder).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Kills it, and returns what it had acknowledged.
    fn kill(&mut self, mut printed: String) -> Acknowledged {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        self.0.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        let acknowledged = printed.lines().filter_map(|line| {
            // A line may be torn as well.
            let [at, producer, sequence, offset, "."] = line.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            let name = (at.parse().unwrap(), producer.parse().unwrap(), sequence.parse().unwrap());
            Some((name, offset.parse().unwrap()))
        });
        acknowledged.collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn read_all(log: &EmbeddedLog, at: u32) -> Result<Vec<Event>, LogError> {
    let limit = ReadLimit { events: usize::MAX, bytes: usize::MAX, wait: Duration::ZERO };
    let Offsets { start, end } = log.offsets(TOPIC, at).await?;
    let events = log.read(TOPIC, at, start, limit).await?.events;
    assert!(events.iter().map(|event| event.offset).eq(0..end), "offsets of {TOPIC}/{at}");
    Ok(events)
}

/// Where each batch of the log is. Every one is whole, its events as they were appended, and the
/// batches of a producer follow each other without a gap or a double.
async fn batches(log: &EmbeddedLog) -> Result<Acknowledged, LogError> {
    let mut found = Acknowledged::new();
    let mut next: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    for at in 0..LOG_PARTITIONS {
        let events = read_all(log, at).await?;
        let mut rest = &events[..];
        while let Some(first) = rest.first() {
            let key = std::str::from_utf8(first.key.as_deref().unwrap()).unwrap();
            let (producer, _) = key.split_once('/').unwrap();
            let producer = producer.parse().unwrap();
            let sequence = next.entry((at, producer)).or_default();
            let expected = batch((at, producer, *sequence)).events;
            let (events, others) = rest.split_at_checked(expected.len()).expect("a part of a batch");
            let same = events.iter().zip(&expected).all(|(a, b)| a.key == b.key && a.value == b.value);
            assert!(same, "at {at}/{} is not batch {sequence} of {producer}: {key}", first.offset);
            found.insert((at, producer, *sequence), first.offset);
            *sequence += 1;
            rest = others;
        }
    }
    Ok(found)
}

/// That all that was acknowledged is where it was said to be.
fn check(acknowledged: &Acknowledged, found: &Acknowledged, what: &str) {
    for (name, offset) in acknowledged {
        assert_eq!(found.get(name), Some(offset), "{name:?}, {what}");
    }
}

/// At any moment of its first milliseconds: the next process makes the log, or finds it whole.
async fn killed_while_it_makes_the_log(chance: &mut StdRng) {
    for round in 0..ROUNDS {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start("append", folder.path());
        std::thread::sleep(Duration::from_micros(chance.random_range(0..40_000)));
        let acknowledged = process.kill(String::new());
        let log = open(folder.path()).unwrap();
        log.create_topic(TOPIC, LOG_PARTITIONS).await.unwrap();
        check(&acknowledged, &batches(&log).await.unwrap(), &format!("after start {round}"));
    }
}

/// At any moment, again and again in one folder: what was acknowledged is there once, and what was
/// under way is taken once when it is sent again.
async fn killed_while_it_appends(chance: &mut StdRng) -> (tempfile::TempDir, Acknowledged) {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::new();
    for round in 0..ROUNDS {
        let mut process = Process::start("append", folder.path());
        let printed = first_lines(&mut process, chance.random_range(1..40));
        let refused = open(folder.path()).map(drop).unwrap_err();
        assert!(matches!(refused, LogError::Unavailable(_)), "{refused}");
        std::thread::sleep(Duration::from_micros(chance.random_range(0..30_000)));
        let new = process.kill(printed);
        assert!(!new.is_empty(), "nothing was acknowledged in round {round}");
        acknowledged.extend(&new);
        if round + 1 == ROUNDS {
            break;
        }
        let log = open(folder.path()).unwrap();
        let found = batches(&log).await.unwrap();
        check(&acknowledged, &found, &format!("round {round}"));
        assert!(found.len() <= acknowledged.len() + (PRODUCERS * u64::from(LOG_PARTITIONS)) as usize);
        for (at, producer, sequence) in last_of_each(&new) {
            let under_way = (at, producer, sequence + 1);
            // The last one is the acknowledged one, unless the one after it made it as well.
            let last = found.get_key_value(&under_way).map_or((at, producer, sequence), |(name, _)| *name);
            for name in [last, under_way] {
                let offset = log.append(TOPIC, at, batch(name)).await.unwrap().first_offset;
                assert_eq!(found.get(&name).copied().unwrap_or(offset), offset, "{name:?} is doubled");
                acknowledged.insert(name, offset);
            }
        }
        check(&acknowledged, &batches(&log).await.unwrap(), &format!("round {round}, gone on"));
    }
    println!("{} batches survived {ROUNDS} kills", acknowledged.len());
    (folder, acknowledged)
}

/// The lines in which a process acknowledges its first `count` batches.
fn first_lines(process: &mut Process, count: usize) -> String {
    let mut printed = String::new();
    let stdout = process.0.stdout.as_mut().unwrap();
    // One byte at a time, so that the rest stays in the pipe.
    let mut lines = BufReader::with_capacity(1, stdout);
    for _ in 0..count {
        lines.read_line(&mut printed).unwrap();
    }
    printed
}

/// The last batch of each producer in each log partition.
fn last_of_each(batches: &Acknowledged) -> Vec<BatchName> {
    let last: BTreeMap<(u32, u64), u64> =
        batches.keys().map(|(at, producer, sequence)| ((*at, *producer), *sequence)).collect();
    last.into_iter().map(|((at, producer), sequence)| (at, producer, sequence)).collect()
}

/// A file that is cut, longer or overwritten somewhere opens with all that was acknowledged, or is
/// called corrupt: at the start, or when what is damaged is read. Nothing is silently missing.
async fn torn(whole: &[u8], acknowledged: &Acknowledged, state: &str, chance: &mut StdRng) {
    let end = whole.len();
    let mut tears: Vec<(String, Vec<u8>)> = Vec::new();
    for cut in [0, 1, 4_095, end / 2, end / 2 / 4_096 * 4_096, end - 65_536, end - 4_096, end - 100, end - 1]
    {
        tears.push((format!("cut at {cut} of {end}"), whole[..cut].to_vec()));
    }
    for more in [1, 100, 4_096, 65_536, 1 << 20] {
        let mut longer = whole.to_vec();
        longer.extend((0..more).map(|_| chance.random::<u8>()));
        tears.push((format!("{more} more than {end}"), longer));
    }
    let mut overwrite = |range: Range<usize>| {
        let mut other = whole.to_vec();
        chance.fill(&mut other[range.clone()]);
        tears.push((format!("noise at {range:?} of {end}"), other));
    };
    for noise in [1, 100, 4_096, 65_536, end / 2] {
        overwrite(end - noise..end);
    }
    let pages = end / 4_096;
    for page in (0..60).map(|n| n * pages / 60) {
        overwrite(page * 4_096..(page + 1) * 4_096);
    }
    let (count, mut found_corrupt) = (tears.len(), 0);
    for (tear, bytes) in tears {
        let folder = tempfile::tempdir().unwrap();
        fs::write(file(folder.path()), bytes).unwrap();
        let found = match open(folder.path()) {
            Ok(log) => batches(&log).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => check(acknowledged, &found, &format!("{state}, {tear}")),
            Err(LogError::Corrupt(_)) => found_corrupt += 1,
            Err(error) => panic!("{error}, {state}, {tear}"),
        }
    }
    println!("{state}: {found_corrupt} of {count} torn files are corrupt, and the others have all");
    assert!((1..count).contains(&found_corrupt), "{found_corrupt} of {count}");
}

/// In a process of its own, whose files cannot grow.
fn full() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start("fill", folder.path());
    assert!(process.0.wait().unwrap().success(), "see above");
}

/// Appends until the file cannot grow: then reads go on, appends are unavailable, and as soon as
/// there is room the refused batch is taken once, without a restart.
async fn fill(folder: &Path) {
    let log = open(folder).unwrap();
    log.create_topic(TOPIC, LOG_PARTITIONS).await.unwrap();
    let (_, unlimited) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    let mut acknowledged = Acknowledged::new();
    let (mut sequence, mut refusals) = (0, 0);
    for room in [0, 1, 5_000, 100_000, 1_000_000] {
        let length = fs::metadata(file(folder)).unwrap().len();
        setrlimit(Resource::RLIMIT_FSIZE, length + room, unlimited).unwrap();
        let refused = loop {
            let name = (0, 1, sequence);
            match log.append(TOPIC, 0, batch(name)).await {
                Ok(appended) => acknowledged.insert(name, appended.first_offset),
                Err(error) => break error,
            };
            sequence += 1;
        };
        assert!(matches!(refused, LogError::Unavailable(_)), "{refused}");
        let found = batches(&log).await.unwrap();
        check(&acknowledged, &found, "full");
        assert!(found.len() <= acknowledged.len() + 1);
        setrlimit(Resource::RLIMIT_FSIZE, unlimited, unlimited).unwrap();
        refusals += 1;
    }
    log.append(TOPIC, 0, batch((0, 1, sequence))).await.unwrap();
    check(&acknowledged, &batches(&log).await.unwrap(), "with room again");
    drop(log);
    let found = batches(&open(folder).unwrap()).await.unwrap();
    check(&acknowledged, &found, "opened again");
    assert_eq!(found.len() as u64, sequence + 1);
    println!("{refusals} full disks, {} batches", found.len());
}
