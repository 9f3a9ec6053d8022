//! The process that is killed: looks at a network again and again, and runs the pipeline of what it sees.

use std::{
    env,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::RngExt;
use serviceradar_log::{EmbeddedLog, KafkaConfig, KafkaLog, LogStore};
use serviceradar_schemas::time::SystemClock;
use serviceradar_tests::stand::{Between, Network, drive};

/// Points in the code where it may kill itself, and which of its passings there are tried: the n-th of so many.
pub(crate) const POINTS: [(&str, u32); 8] = [
    ("before-begin", 6),
    ("between-statements", 40),
    ("in-commit", 6),
    ("after-commit", 6),
    ("in-fold", 12),
    ("in-append", 12),
    ("in-guard", 2),
    ("in-outbox", 4),
];
/// Says that an epoch is committed.
pub(crate) const COMMITTED: &str = "committed epoch";
/// Says where it dies.
pub(crate) const KILLED: &str = "dies";
/// Devices of the network.
const DEVICES: usize = 150;
/// How long a COMMIT may have gone on when it is cut, milliseconds: it takes one or a few.
const COMMIT_MS: u64 = 5;

const EMBEDDED: &str = "SOAK_EMBEDDED";
const KAFKA: &str = "SOAK_KAFKA";
const DATABASE: &str = "SOAK_DATABASE";
const NETWORK: &str = "SOAK_NETWORK";
const POINT: &str = "SOAK_POINT";
const HITS: &str = "SOAK_HITS";

/// Which log it writes and reads.
pub(crate) enum Log {
    /// In this folder.
    Embedded(PathBuf),
    /// Of these servers.
    Kafka(String),
}

impl Log {
    pub(crate) fn open(&self) -> Arc<dyn LogStore> {
        match self {
            Self::Embedded(folder) => Arc::new(EmbeddedLog::open(folder, Arc::new(SystemClock)).unwrap()),
            Self::Kafka(servers) => {
                let config = KafkaConfig { servers: servers.clone(), ..KafkaConfig::default() };
                Arc::new(KafkaLog::new(&config).unwrap())
            }
        }
    }
}

/// What it is told.
pub(crate) struct Victim {
    pub(crate) log: Log,
    pub(crate) database: String,
    /// Where the network's state is.
    pub(crate) network: PathBuf,
    /// The point where it kills itself, and at which passing.
    pub(crate) point: Option<(&'static str, u32)>,
}

impl Victim {
    /// Tells another process.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let log = match &self.log {
            Log::Embedded(folder) => (EMBEDDED, folder.display().to_string()),
            Log::Kafka(servers) => (KAFKA, servers.clone()),
        };
        let network = self.network.display().to_string();
        let mut told = vec![log, (DATABASE, self.database.clone()), (NETWORK, network)];
        if let Some((point, hits)) = self.point {
            told.extend([(POINT, point.to_owned()), (HITS, hits.to_string())]);
        }
        told
    }

    /// What this process was told, where it is one.
    pub(crate) fn of_variables() -> Option<Self> {
        let of = |name| env::var(name).ok();
        let embedded = of(EMBEDDED).map(|folder| Log::Embedded(folder.into()));
        let point = of(POINT).map(|point| {
            let (name, _) = POINTS.iter().find(|(name, _)| *name == point).unwrap();
            (*name, of(HITS).unwrap().parse().unwrap())
        });
        Some(Self {
            log: embedded.or_else(|| of(KAFKA).map(Log::Kafka))?,
            database: of(DATABASE)?,
            network: of(NETWORK)?.into(),
            point,
        })
    }

    /// Goes on until it is killed.
    pub(crate) async fn run(self) {
        if let Some((point, hits)) = self.point {
            let left = AtomicU32::new(hits);
            fail::cfg_callback(point, move || {
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    die(point);
                }
            })
            .unwrap();
        }
        let log = self.log.open();
        // In small pieces: an epoch is to be one of many.
        let slow = Between::slow(log.clone(), 40, Duration::from_millis(10));
        let driver = drive(slow, &self.database).await;
        let mut status = driver.watch();
        tokio::spawn(async move {
            let mut told = 0;
            while status.changed().await.is_ok() {
                let epoch = status.borrow_and_update().epoch;
                if epoch > told {
                    told = epoch;
                    println!("{COMMITTED} {told}");
                }
            }
            println!("the driver has ended: {:?}", status.borrow().phase);
            signal(std::process::id(), Signal::SIGTERM);
        });
        let network = Network::at(&self.network, DEVICES).await;
        loop {
            network.faker.shuffle().unwrap();
            if let Err(error) = network.try_to_look(&log).await {
                println!("a look failed: {error:#}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A COMMIT is cut while it goes on, elsewhere the process ends where it is.
fn die(point: &'static str) {
    println!("{KILLED} {point}");
    if point == "in-commit" {
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_micros(rand::rng().random_range(0..COMMIT_MS * 1_000)));
            signal(std::process::id(), Signal::SIGKILL);
        });
    } else {
        signal(std::process::id(), Signal::SIGKILL);
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}
