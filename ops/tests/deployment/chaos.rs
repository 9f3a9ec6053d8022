//! Chaos: rebuilds, promotions, rollbacks, archives, restores and reseeds are killed at random points, and so are pipelines, Kafka
//! and PostgreSQL. Afterwards the views are what the log says, read anew, and nothing needs a hand.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serviceradar_schemas::time::{Clock, SystemClock};

use super::{Deployment, RECORDS, Running, SERVERS, services};

/// How often something is killed, where CHAOS_KILLS does not say; 200 is what a release is tried with.
const KILLS: u32 = 20;
/// How often a reseed is.
const RESEED_KILLS: u32 = 8;
/// The longest that something is let run before.
const LIVES_MS: u64 = 4_000;
/// The longest that a restore is let run before: it takes some two seconds here.
const RESTORE_LIVES_MS: u64 = 1_000;
/// What is killed.
const VERBS: [&str; 7] = [
    "serviceradar replay rebuild --promote auto --max-changes 1000000",
    "serviceradar replay rebuild --promote never",
    "serviceradar replay promote",
    "serviceradar replay rollback",
    "serviceradar replay rollback --now",
    "serviceradar replay archive --to archive",
    "serviceradar replay rebuild --rules rules.toml --promote auto --max-changes 1000000",
];

impl Deployment {
    /// As whoever watches over it does: a pipeline that has ended is started again.
    fn see_to_the_pipeline(&mut self) {
        let has_ended = self.pipeline.as_mut().is_none_or(|running| running.0.try_wait().unwrap().is_some());
        if has_ended {
            let mut command = self.command("serviceradar");
            self.pipeline = Some(Running::spawn(command.arg("run").stderr(Stdio::null())));
        }
    }

    /// Lets a verb run for a while, and kills it.
    async fn kill(&mut self, script: &str, lives: Duration) {
        let mut command = self.command("sh");
        command.args(["-ec", &format!("exec {script}")]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running::spawn(&mut command);
        let end = tokio::time::Instant::now() + lives;
        while tokio::time::Instant::now() < end && running.0.try_wait().unwrap().is_none() {
            self.see_to_the_pipeline();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        running.0.kill().unwrap();
        running.0.wait().unwrap();
    }

    /// Runs a verb to its end, as often as it takes while servers come back.
    async fn until_done(&mut self, script: &str) {
        for _ in 0..20 {
            self.see_to_the_pipeline();
            let output = self.try_sh(script);
            if output.status.success() {
                return;
            }
            eprintln!("{script}: {}", super::text(&output.stderr).lines().last().unwrap_or_default());
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        panic!("{script} does not come to its end");
    }

    /// Waits until it writes, with whatever was killed before.
    async fn writes(&mut self) {
        loop {
            self.see_to_the_pipeline();
            let status = self.status();
            if status["phase"] == "running" && status["lag_events"] == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// By the seed of CHAOS_SEED, or by one that is told, so that a run can be had again.
fn random() -> ChaCha8Rng {
    let seed =
        std::env::var("CHAOS_SEED").map_or(SystemClock.now().cast_unsigned(), |seed| seed.parse().unwrap());
    println!("CHAOS_SEED={seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_the_views_are_what_the_log_says() {
    let _servers = SERVERS.write().await;
    let kills = std::env::var("CHAOS_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut random = random();
    let mut of = Deployment::new().await;
    std::fs::write(of.dir.path().join("rules.toml"), "[caps]\nspread_of_a_source = 1\n").unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let publishing = {
        let (publisher, is_over) = (of.publisher(), is_over.clone());
        tokio::spawn(async move {
            let mut at = 0;
            while !is_over.load(Ordering::Relaxed) {
                // A broker that is down takes it later.
                publisher.publish((at..at + 10).map(super::observation)).await.ok();
                at = (at + 10) % (RECORDS * 4);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    for kill in 0..kills {
        let lives = Duration::from_millis(random.random_range(0..LIVES_MS));
        let verb = VERBS[random.random_range(0..VERBS.len())];
        println!("{kill}: {verb}, killed after {lives:?}");
        of.kill(verb, lives).await;
        match random.random_range(0..10) {
            0 => {
                let mut pipeline = of.pipeline.take().unwrap();
                pipeline.0.kill().ok();
                pipeline.0.wait().unwrap();
            }
            1 => {
                let server = ["kafka", "postgres"][random.random_range(0..2)];
                println!("{kill}: {server}, killed");
                services(&["kill", server]);
                services(&["up", server]);
            }
            _ => {}
        }
        of.see_to_the_pipeline();
        if kill % 10 == 9 {
            of.writes().await;
            of.sh("serviceradar replay verify");
        }
    }
    is_over.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
    of.writes().await;
    of.publish(0..RECORDS * 4).await;
    // By the rules of the program, whichever generation is active.
    std::fs::write(of.dir.path().join("default.toml"), "").unwrap();
    of.until_done("serviceradar replay rebuild --rules default.toml --promote auto --max-changes 1000000")
        .await;
    of.writes().await;
    of.sh("serviceradar replay verify");
    let devices = of.devices().await;
    assert_eq!(devices.len(), RECORDS as usize * 2);

    // The archive that was killed so often is whole, and what it has is restored with as many kills.
    of.until_done("serviceradar replay archive --to archive").await;
    of.stop();
    for topic in ["observations", "decisions"] {
        of.log.delete_topic(&format!("{}.{topic}", of.tenant)).await.unwrap();
    }
    let restore = "serviceradar replay restore --from archive";
    let mut is_restored = false;
    for _ in 0..kills / 5 {
        let lives = Duration::from_millis(random.random_range(0..RESTORE_LIVES_MS));
        let mut command = of.command("sh");
        command.args(["-ec", &format!("exec {restore}")]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running::spawn(&mut command);
        tokio::time::sleep(lives).await;
        is_restored = running.0.try_wait().unwrap().is_some_and(|status| status.success());
        if is_restored {
            break;
        }
        running.0.kill().unwrap();
        running.0.wait().unwrap();
    }
    if !is_restored {
        of.sh(restore);
    }
    of.sh("serviceradar replay rebuild --rules default.toml --promote auto --max-changes 1000000 --leave");
    of.start().await;
    assert_eq!(of.devices().await, devices);
    of.end().await;
}

/// A tenant that is emptied and crawled again, killed wherever it is, comes to the devices that it had, by their uids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reseed_that_is_killed_goes_on() {
    let _servers = SERVERS.read().await;
    let mut random = random();
    let mut of = Deployment::new().await;
    let (_faker, right) = of.crawled().await;
    let devices = right.len();
    let reseed = format!(
        "serviceradar reseed --no-archive --expect {devices} --tolerance 0% --yes-i-mean {}",
        of.tenant
    );
    let kills = std::env::var("CHAOS_KILLS").map_or(RESEED_KILLS, |kills| kills.parse().unwrap());
    for kill in 0..kills {
        let lives = Duration::from_millis(random.random_range(0..LIVES_MS));
        println!("{kill}: reseed, killed after {lives:?}");
        of.kill(&reseed, lives).await;
        if random.random_range(0..3) == 0 {
            let mut pipeline = of.pipeline.take().unwrap();
            pipeline.0.kill().ok();
            pipeline.0.wait().unwrap();
        }
        of.see_to_the_pipeline();
    }
    of.writes().await;
    of.sh(&reseed);
    of.caught_up().await;
    assert_eq!(of.devices().await, right);
    of.end().await;
}
