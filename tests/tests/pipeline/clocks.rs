//! Clocks that are an hour off, or leap: nobody's devices expire wrongly, and `status` names whose it is.
//!
//! Each story is half an hour in which every minute an agent sees its device up, at the right time, and the story's other
//! agent, the log and two publishers of TICKs have clocks of their own. Nothing is waited for but the pipeline.

use std::{collections::BTreeMap, sync::Arc};

use serviceradar_log::{LogStore, MemoryLog};
use serviceradar_materializers::MemoryViews;
use serviceradar_replay::{Driver, DriverConfig, DriverHandle, clocks::THIS_MACHINE, goal::Goal};
use serviceradar_schemas::{
    Action, Claim, Framings, Observation, Probe, Source,
    codec::NoRegistry,
    time::{HOUR, MINUTE, ManualClock, SECOND},
};
use serviceradar_streams::{normalise::AHEAD_MAX, rules::Rules};
use serviceradar_tests::stand::{TENANT, make_topics, observations};

/// When the stories begin.
const BEGIN: i64 = 1_767_225_600_000_000;
const MINUTES: i64 = 30;
/// The driver's own name.
const OWN: &str = "stand";

/// How far clocks are ahead in a minute, microseconds.
#[derive(Clone, Copy, Default)]
struct Off {
    agent: i64,
    log: i64,
    /// The pipeline's machine: its driver and its TICKs.
    machine: i64,
    /// Another publisher of TICKs.
    other: i64,
}

struct World {
    log: Arc<dyn LogStore>,
    log_clock: Arc<ManualClock>,
    machine: Arc<ManualClock>,
    views: MemoryViews,
    driver: DriverHandle,
    events: usize,
}

impl World {
    async fn new() -> Self {
        let (log_clock, machine) = (Arc::new(ManualClock::new(BEGIN)), Arc::new(ManualClock::new(BEGIN)));
        let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(log_clock.clone()));
        make_topics(&log).await;
        let views = MemoryViews::default();
        let driver = Driver::start(DriverConfig {
            tenant: TENANT.to_owned(),
            writer: OWN.to_owned(),
            workers: 1,
            rules: Some(Rules::default()),
            log: log.clone(),
            writers: Arc::new(NoRegistry),
            framings: Framings::default(),
            views: Arc::new(views.clone()),
            clock: machine.clone(),
            ticks: false,
            journals_kept: None,
            goal: Goal::none(),
        });
        Self { log, log_clock, machine, views, driver, events: 0 }
    }

    fn event(&mut self, kind: &str, instance: &str, event_time: i64) -> Observation {
        self.events += 1;
        Observation {
            id: self.events.to_string(),
            event_time,
            partition: "default".to_owned(),
            source: Source { kind: kind.to_owned(), instance: instance.to_owned() },
            native_key: instance.to_owned(),
            ..Observation::default()
        }
    }

    fn verdict(&mut self, agent: &str, event_time: i64) -> Observation {
        Observation {
            action: Action::Assert,
            probe: Probe::Up,
            claims: vec![Claim { namespace: "serial".into(), value: format!("SN-{agent}").into() }],
            ..self.event("agent", agent, event_time)
        }
    }

    fn tick(&mut self, publisher: &str, event_time: i64) -> Observation {
        Observation { action: Action::Tick, ..self.event("serviceradar", publisher, event_time) }
    }

    /// A minute in which everybody speaks, and is heard.
    async fn minute(&mut self, now: i64, off: Off) {
        self.log_clock.set(now + off.log);
        self.machine.set(now + off.machine);
        let said = [
            self.verdict("right", now),
            self.verdict("off", now + off.agent),
            self.tick(OWN, now + off.machine),
            self.tick("other", now + off.other),
        ];
        observations(&self.log).publish(said).await.unwrap();
        self.driver.caught_up().await.unwrap();
    }

    /// Whether the devices of the two agents are said to be up: the right one's, and the other's.
    fn up(&self) -> (Option<bool>, Option<bool>) {
        let tables = self.views.tables(TENANT);
        let of = |agent: &str| {
            let key = format!("default/agent/{agent}/{agent}");
            let record = tables.records.get(key.as_str()).unwrap();
            assert!(record.open, "{agent}");
            tables.devices[&record.uid.unwrap().to_string()].is_available
        };
        (of("right"), of("off"))
    }

    /// Whose clocks are off, and how far ahead, seconds.
    fn told(&self) -> BTreeMap<String, i64> {
        let told = self.driver.status().clocks_off;
        told.into_iter().map(|(name, off)| (name, off.ahead_seconds)).collect()
    }
}

/// Half an hour of clocks that are off as `of` says, minute by minute: the right agent's device is up all the time, and
/// the other's where `stays_up`. Returns who was named at the end.
async fn story(of: impl Fn(i64) -> Off, stays_up: bool) -> BTreeMap<String, i64> {
    let mut world = World::new().await;
    for minute in 0..MINUTES {
        world.minute(BEGIN + minute * MINUTE, of(minute)).await;
        let (right, off) = world.up();
        assert_eq!(right, Some(true), "minute {minute}");
        assert_eq!(off == Some(true), stays_up, "minute {minute}: {off:?}");
    }
    let told = world.told();
    world.driver.stop().await.unwrap();
    told
}

fn named<const N: usize>(of: [(&str, i64); N]) -> BTreeMap<String, i64> {
    of.into_iter().map(|(name, ahead)| (name.to_owned(), ahead / SECOND)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clocks_right_names_nobody_and_what_is_silent_does_expire() {
    assert_eq!(story(|_| Off::default(), true).await, named([]));
    // Or the stories would show nothing.
    let mut world = World::new().await;
    world.minute(BEGIN, Off::default()).await;
    world.log_clock.set(BEGIN + HOUR);
    let tick = world.tick(OWN, BEGIN + HOUR);
    observations(&world.log).publish([tick]).await.unwrap();
    world.driver.caught_up().await.unwrap();
    assert_eq!(world.up(), (None, None));
    world.driver.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_ahead_is_bounded_and_named() {
    let told = story(|_| Off { agent: HOUR, ..Off::default() }, true).await;
    assert_eq!(told, named([("agent/off", HOUR)]));
}

/// Its verdicts are an hour old when they come, and say nothing of now: its own devices are neither up nor down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_behind_concerns_its_own_devices_alone_and_is_named() {
    let told = story(|_| Off { agent: -HOUR, ..Off::default() }, false).await;
    assert_eq!(told, named([("agent/off", -HOUR)]));
}

/// All others are behind it: who looks finds the machine among them, and no two others that agree on another time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_ahead_is_named_by_all_others() {
    let told = story(|_| Off { log: HOUR, ..Off::default() }, true).await;
    let behind = ["agent/off", "agent/right", "serviceradar/other", THIS_MACHINE].map(|name| (name, -HOUR));
    assert_eq!(told, named(behind));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_behind_is_named_by_all_others() {
    let told = story(|_| Off { log: -HOUR, ..Off::default() }, true).await;
    let ahead = ["agent/off", "agent/right", "serviceradar/other", THIS_MACHINE].map(|name| (name, HOUR));
    assert_eq!(told, named(ahead));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pipelines_machine_ahead_or_behind_is_named() {
    for machine in [HOUR, -HOUR] {
        let told = story(|_| Off { machine, ..Off::default() }, true).await;
        assert_eq!(told, named([(THIS_MACHINE, machine)]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_publishers_of_ticks_that_disagree_are_told_apart() {
    let told = story(|_| Off { machine: HOUR, other: -HOUR, ..Off::default() }, true).await;
    assert_eq!(told, named([(THIS_MACHINE, HOUR), ("serviceradar/other", -HOUR)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_leap_and_come_back_expire_nothing() {
    let is_leap = |minute| (10..20).contains(&minute);
    for leap in [HOUR, -HOUR] {
        for of in [
            Off { log: leap, ..Off::default() },
            Off { machine: leap, ..Off::default() },
            Off { other: leap, machine: leap, ..Off::default() },
        ] {
            story(|minute| if is_leap(minute) { of } else { Off::default() }, true).await;
        }
    }
}

/// The watermark is never further ahead of the log's clock than an event may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_clock_moves_time_further_than_the_log_allows() {
    let mut world = World::new().await;
    world.minute(BEGIN, Off { agent: HOUR, machine: HOUR, other: 24 * HOUR, ..Off::default() }).await;
    let watermarks = world.views.tables(TENANT).watermarks;
    let greatest = watermarks.values().map(|row| row.at).max();
    assert_eq!(greatest, Some(BEGIN + AHEAD_MAX));
    world.driver.stop().await.unwrap();
}
