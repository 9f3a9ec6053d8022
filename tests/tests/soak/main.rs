//! Kills of which nothing may be seen afterwards: `ops/soak KILLS [SEED]`.
//!
//! A process looks at a network again and again and runs the pipeline of what it sees. It kills itself in a phase of
//! its work, or is killed from outside at any moment, or goes on while PostgreSQL is stopped at once or the broker
//! killed. After the last kill the views are what a run that nothing disturbs makes of the same log, their journals
//! tell their story, and `device-changes` folds to the devices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod story;
mod victim;

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Lines},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serviceradar_ops::postgres::PrivatePostgres;
use serviceradar_tests::{
    database::Database,
    services,
    stand::{TENANT, Views, drive, make_topics},
};
use tempfile::TempDir;

use victim::{COMMITTED, Log, POINTS, Victim};

/// How often a phase is met at least.
const TIMES_MIN: usize = 3;
/// Kills of a run, where nobody says.
const KILLS: usize = 40;
/// Killed from outside, whatever it is at.
const ANYWHERE: &str = "anywhere";
/// It goes on, and PostgreSQL is stopped under it, or the broker killed; then it is killed.
const POSTGRES: &str = "postgres";
const BROKER: &str = "broker";
/// Of a phase, the time from the first word to the kill, or to a server's end, milliseconds.
const WITHIN_MS: u64 = 500;
/// How long the process may take to its next word; a broker needs a while to come back.
const WORD_WITHIN: Duration = Duration::from_secs(120);
const SIGKILL: i32 = 9;

/// The servers of a run, and what is on them.
enum Stand {
    Embedded { postgres: PrivatePostgres, dir: TempDir },
    Kafka { database: Database, dir: TempDir },
}

impl Stand {
    async fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let postgres = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();
        Self::Embedded { postgres, dir }
    }

    async fn kafka() -> Self {
        let stand =
            Self::Kafka { database: Database::empty_timescale().await, dir: tempfile::tempdir().unwrap() };
        let log = stand.log().await.open();
        for topic in log.topics(Some(TENANT)).await.unwrap() {
            log.delete_topic(&topic.name).await.unwrap();
        }
        stand
    }

    fn url(&self) -> String {
        match self {
            Self::Embedded { postgres, .. } => postgres.url().to_owned(),
            Self::Kafka { database, .. } => database.url().to_owned(),
        }
    }

    fn dir(&self) -> PathBuf {
        let (Self::Embedded { dir, .. } | Self::Kafka { dir, .. }) = self;
        dir.path().to_owned()
    }

    async fn log(&self) -> Log {
        match self {
            Self::Embedded { dir, .. } => Log::Embedded(dir.path().join("log")),
            Self::Kafka { .. } => Log::Kafka(services::kafka().await),
        }
    }

    /// Stops PostgreSQL as it stops where a machine loses power; it is started again.
    async fn stop_postgres(&self) {
        match self {
            Self::Kafka { .. } => services::kill("postgres").await,
            Self::Embedded { postgres, .. } => {
                let stopped = postgres.pid();
                victim::signal(stopped, nix::sys::signal::Signal::SIGQUIT);
                while postgres.pid() == stopped {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    /// One process, from its start to its kill.
    async fn kill(&mut self, phase: &'static str, random: &mut ChaCha8Rng) {
        let within = Duration::from_millis(random.random_range(0..WITHIN_MS));
        let point = POINTS.iter().find(|(name, _)| *name == phase);
        let point = point.map(|(name, hits_max)| (*name, random.random_range(1..=*hits_max)));
        let victim = Victim {
            log: self.log().await,
            database: self.url(),
            network: self.dir().join("network"),
            point,
        };
        let mut process = Process::start(&victim);
        if let Some((name, hits)) = point {
            process.says(&format!("{} {name}", victim::KILLED)).await;
            println!("killed {name}, at the time number {hits}");
        } else {
            process.says(COMMITTED).await;
            tokio::time::sleep(within).await;
            match phase {
                POSTGRES => self.stop_postgres().await,
                BROKER => services::kill("kafka").await,
                _ => {}
            }
            if phase != ANYWHERE {
                // It goes on by itself. What it said before its servers went does not count.
                process.drain();
                process.says(COMMITTED).await;
                process.says(COMMITTED).await;
            }
            process.child.kill().unwrap();
            println!("killed {phase}, {within:?} after a commit");
        }
        assert_eq!(process.child.wait().unwrap().signal(), Some(SIGKILL), "{phase}: it ended by itself");
    }

    /// After the kills: as if there had been none.
    async fn assert_unharmed(&self, what: &str) {
        let log = self.log().await.open();
        let driver = drive(log.clone(), &self.url()).await;
        driver.caught_up().await.unwrap();
        story::published(&self.url()).await;
        driver.stop().await.unwrap();
        let views = Views::new(story::connect(&self.url()).await).await;
        story::assert_journals_tell(&self.url(), what).await;
        story::assert_changes_fold(&log, &self.url(), what).await;
        views.assert_as_undisturbed(log, TENANT, &self.url(), what).await;
        story::assert_journals_tell(&self.url(), "undisturbed").await;
    }

    async fn end(self) {
        if let Self::Kafka { .. } = &self {
            let log = self.log().await.open();
            for topic in log.topics(Some(TENANT)).await.unwrap() {
                log.delete_topic(&topic.name).await.unwrap();
            }
        }
    }
}

/// The process that is killed, and what it says.
struct Process {
    child: Child,
    said: mpsc::Receiver<String>,
}

impl Process {
    fn start(victim: &Victim) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["kills_leave_no_trace", "--exact", "--nocapture"])
            .envs(victim.variables())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: Lines<BufReader<ChildStdout>> = BufReader::new(child.stdout.take().unwrap()).lines();
        let (says, said) = mpsc::channel();
        // All it says is taken: it is to die of the kill, not of a word that nobody reads.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| _ = says.send(line)));
        Self { child, said }
    }

    /// Waits for a word.
    async fn says(&mut self, word: &str) {
        let until = tokio::time::Instant::now() + WORD_WITHIN;
        let mut last = String::new();
        loop {
            match self.said.try_recv() {
                Ok(line) if line.contains(word) => return,
                Ok(line) => last = line,
                Err(mpsc::TryRecvError::Empty) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => {
                    self.child.kill().ok();
                    panic!(
                        "it did not say {word:?} within {WORD_WITHIN:?}: {error}; the last it said: {last:?}"
                    );
                }
            }
        }
    }

    fn drain(&mut self) {
        while self.said.try_recv().is_ok() {}
    }
}

/// Which phases are met, in which order, and on which stand: embedded, and then Kafka and TimescaleDB.
fn plan(kills: usize, random: &mut ChaCha8Rng) -> [Vec<&'static str>; 2] {
    let of_embedded: Vec<&'static str> =
        POINTS.iter().map(|(name, _)| *name).chain([ANYWHERE, POSTGRES]).collect();
    let (mut embedded, mut kafka) = (Vec::new(), vec![BROKER; TIMES_MIN]);
    for phase in &of_embedded {
        embedded.extend([*phase; TIMES_MIN - 1]);
        kafka.push(phase);
    }
    let all: Vec<&'static str> = of_embedded.iter().copied().chain([BROKER]).collect();
    for _ in embedded.len() + kafka.len()..kills {
        let phase = all[random.random_range(0..all.len())];
        if phase == BROKER || random.random() { &mut kafka } else { &mut embedded }.push(phase);
    }
    embedded.shuffle(random);
    kafka.shuffle(random);
    [embedded, kafka]
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_leave_no_trace() {
    if let Some(victim) = Victim::of_variables() {
        return victim.run().await;
    }
    let kills = number("SOAK_KILLS").map_or(KILLS, |kills| usize::try_from(kills).unwrap());
    let seed = number("SOAK_SEED").unwrap_or_else(rand::random);
    println!("SOAK_KILLS={kills} SOAK_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let plan = plan(kills, &mut random);
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    for (phases, stand) in plan.into_iter().zip([Stand::embedded().await, Stand::kafka().await]) {
        let mut stand = stand;
        serviceradar_materializers::PostgresViews::connect(&stand.url())
            .await
            .unwrap()
            .migrate()
            .await
            .unwrap();
        let log = stand.log().await.open();
        make_topics(&log).await;
        drop(log);
        for phase in phases {
            stand.kill(phase, &mut random).await;
            *met.entry(phase).or_default() += 1;
        }
        stand.assert_unharmed(&format!("SOAK_SEED={seed}")).await;
        stand.end().await;
    }
    println!("killed: {met:?}");
    let phases = POINTS.iter().map(|(name, _)| *name).chain([ANYWHERE, POSTGRES, BROKER]);
    let missed: Vec<&str> =
        phases.filter(|phase| met.get(phase).is_none_or(|times| *times < TIMES_MIN)).collect();
    assert!(missed.is_empty(), "met fewer than {TIMES_MIN} times: {missed:?}");
}
