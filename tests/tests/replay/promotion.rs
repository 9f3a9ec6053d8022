//! Generations beside each other: one that is built while the other is written, and takes its place, has all that the log
//! says; consumers of device changes hear of the difference and of nothing else; what is interrupted leaves all as it was.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serviceradar_log::{LogStore, MemoryLog};
use serviceradar_materializers::{
    LAYOUT, Layout, PostgresViews,
    postgres::Kind,
    views::{Frontier, ViewsError},
};
use serviceradar_replay::{
    Driver, DriverConfig, DriverHandle, Phase,
    candidate::{Candidate, CandidateConfig, CandidateError},
    intake_times::offset_at,
    topics::{Partition, read_by},
    verify::{Verdict, Verify, VerifyError},
};
use serviceradar_schemas::{
    Claim, Decoder, DeviceChange, Framings, Observation, Source,
    codec::NoRegistry,
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_streams::rules::Rules;
use serviceradar_tests::{
    database::Database,
    stand::{
        Between, Network, TENANT, config, drive_tenant, make_topics, observation, observations, published,
        read_all,
    },
};
use tokio::task::JoinHandle;

pub(super) const OTHER_TENANT: &str = "other";

/// A log, and views that a pipeline writes from it.
pub(super) struct Stand {
    pub(super) log: Arc<dyn LogStore>,
    pub(super) database: Database,
    pub(super) live: Option<DriverHandle>,
    pub(super) network: Network,
    /// Of the program that whatever is started next is of.
    pub(super) layout: Layout,
}

impl Stand {
    pub(super) async fn new(devices: usize) -> Self {
        Self::at(Database::migrated().await, devices).await
    }

    pub(super) async fn at(database: Database, devices: usize) -> Self {
        let mut stand = Self::unwritten(database, devices).await;
        stand.start_live().await;
        stand.live().caught_up().await.unwrap();
        stand.network.look(&stand.log).await;
        stand.live().caught_up().await.unwrap();
        stand
    }

    /// Whose pipeline has not been started.
    pub(super) async fn unwritten(database: Database, devices: usize) -> Self {
        let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        let network = Network::new(devices).await;
        make_topics(&log).await;
        network.look(&log).await;
        Self { log, database, live: None, network, layout: LAYOUT }
    }

    pub(super) fn live(&self) -> &DriverHandle {
        self.live.as_ref().unwrap()
    }

    pub(super) async fn stop_live(&mut self) {
        self.live.take().unwrap().stop().await.unwrap();
    }

    pub(super) async fn start_live(&mut self) {
        self.live = Some(self.pipeline("live").await);
    }

    /// As `run` has it: by the rules that the views have.
    pub(super) async fn pipeline(&self, name: &str) -> DriverHandle {
        let config = config(TENANT, name, self.log.clone(), self.database.url()).await;
        Driver::start(DriverConfig { rules: None, views: self.views().await, ..config })
    }

    /// Publishes sightings until it is over.
    pub(super) fn publishing(&self, is_over: &Arc<AtomicBool>) -> JoinHandle<()> {
        let (log, is_over) = (self.log.clone(), is_over.clone());
        tokio::spawn(async move {
            let mut number = 0_u32;
            while !is_over.load(Ordering::Relaxed) {
                let seen =
                    (0..20).map(|of| observation(&format!("l{}", (number + of) % 500), SystemClock.now()));
                observations(&log).publish(seen.collect::<Vec<_>>()).await.unwrap();
                number += 20;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    pub(super) async fn views(&self) -> Arc<PostgresViews> {
        Arc::new(self.database.views().await.of_layout(self.layout))
    }

    /// A candidate that has caught up.
    pub(super) async fn candidate(&self, rules: &Rules) -> Candidate {
        let candidate = self.start(rules).await;
        candidate.caught_up(|_| {}).await.unwrap();
        candidate
    }

    async fn start(&self, rules: &Rules) -> Candidate {
        let views = self.views().await;
        let id = views.building(rules).await.unwrap();
        Candidate::start(self.config(views), id, rules.clone()).await.unwrap()
    }

    /// One that is ready already.
    pub(super) async fn again(&self, id: i32) -> Candidate {
        let views = self.views().await;
        let rules = views.rules_of(id).await.unwrap().unwrap();
        let candidate = Candidate::start(self.config(views), id, rules).await.unwrap();
        candidate.caught_up(|_| {}).await.unwrap();
        candidate
    }

    pub(super) fn config(&self, views: Arc<PostgresViews>) -> CandidateConfig {
        CandidateConfig {
            writer: "candidate".to_owned(),
            workers: 1,
            log: self.log.clone(),
            writers: Arc::new(NoRegistry),
            framings: Framings::default(),
            views,
            clock: Arc::new(SystemClock),
            ticks: false,
            journals_kept: None,
        }
    }

    pub(super) async fn count(&self, sql: &str) -> i64 {
        self.database.client().await.query_one(sql, &[]).await.unwrap().get(0)
    }

    pub(super) async fn states(&self) -> Vec<(i32, String)> {
        let generations = self.views().await.generations().await.unwrap();
        generations.into_iter().map(|of| (of.id, of.state)).collect()
    }

    /// Rows, sums and log of the active generation are the same.
    pub(super) async fn assert_verified(&self) -> Verdict {
        let views = self.views().await;
        let verdict = self.verify(&views).await.unwrap();
        assert!(verdict.is_clean(), "{verdict:#?}");
        verdict
    }

    pub(super) async fn verify(&self, views: &PostgresViews) -> Result<Verdict, VerifyError> {
        let verify = Verify {
            tenant: TENANT.to_owned(),
            workers: 1,
            log: self.log.clone(),
            writers: Arc::new(NoRegistry),
            clock: Arc::new(SystemClock),
        };
        verify.run(views, |_| {}).await
    }

    /// Whoever reads all device changes has the devices of the active generation.
    pub(super) async fn assert_consumers_know_all(&self) {
        let client = self.database.client().await;
        published(&client).await;
        let topic = Stream::DeviceChanges.topic(TENANT);
        let mut known: BTreeMap<String, (u64, Option<DeviceChange>)> = BTreeMap::new();
        let mut decoder = Decoder::<DeviceChange>::new();
        for log_partition in 0..self.log.describe_topic(&topic).await.unwrap().log_partitions {
            for event in read_all(&self.log, &topic, log_partition).await {
                let (_, epoch) = event.headers.iter().find(|(name, _)| name == "epoch").unwrap();
                let epoch: u64 = std::str::from_utf8(epoch).unwrap().parse().unwrap();
                let key = String::from_utf8(event.key.unwrap().to_vec()).unwrap();
                let device = event.value.map(|value| decoder.decode(&value).unwrap());
                // As the contract has it: what is older than it has, a consumer drops.
                if known.get(&key).is_none_or(|(before, _)| *before <= epoch) {
                    known.insert(key, (epoch, device));
                }
            }
        }
        let select = "SELECT schema FROM serviceradar_base.pipeline_generations WHERE state = 'active'";
        let schema: String = client.query_one(select, &[]).await.unwrap().get(0);
        let select = format!(
            "SELECT 'sr:' || uid, name, host(ip), state, records FROM {schema}.device_summaries WHERE tenant = '{TENANT}'"
        );
        let rows = client.query(&select, &[]).await.unwrap();
        type Known = (Option<String>, Option<String>, String, i32);
        let of_views: BTreeMap<String, Known> =
            rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3), row.get(4)))).collect();
        let of_log: BTreeMap<String, Known> = known
            .into_iter()
            .filter_map(|(uid, (_, device))| Some((uid, device?)))
            .map(|(uid, device)| (uid, (device.name, device.ip, device.state, device.records)))
            .collect();
        assert_eq!(of_log, of_views);
    }
}

/// By which two records that share a MAC are two devices.
pub(super) fn narrow() -> Rules {
    let mut rules = Rules::default();
    rules.caps.spread_of_a_source = 1;
    rules
}

pub(super) fn with_mac(key: &str, mac: &str) -> Observation {
    let claims = vec![Claim { namespace: "mac".into(), value: mac.into() }];
    let source = Source { kind: "mapper".to_owned(), instance: "m".to_owned() };
    Observation { claims, source, ..observation(key, SystemClock.now()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_built_beside_has_all_rows_and_tells_nobody() {
    let mut stand = Stand::new(200).await;
    published(&stand.database.client().await).await;
    let told = "SELECT (SELECT count(*) FROM serviceradar_base.device_history WHERE generation = 2)
        + (SELECT count(*) FROM serviceradar_base.device_merges WHERE generation = 2)
        + (SELECT count(*) FROM serviceradar_base.pipeline_outbox)";
    let topic = Stream::DeviceChanges.topic(TENANT);
    let end = stand.log.offsets(&topic, 0).await.unwrap().end;
    let candidate = stand.candidate(&Rules::default()).await;
    assert_eq!(stand.states().await, [(1, "active".to_owned()), (2, "ready".to_owned())]);
    // It follows.
    observations(&stand.log).publish([with_mac("late", "00:1b:21:00:00:07")]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    candidate.caught_up(|_| {}).await.unwrap();
    published(&stand.database.client().await).await;
    assert_eq!(stand.count(told).await, 0);
    let late = stand.log.offsets(&topic, 0).await.unwrap().end - end;
    assert!(late <= 1, "{late} device changes, of one device that is new");
    let unsure =
        stand.views().await.diff(1, 2, TENANT, |of| panic!("{of:?}") as Result<(), ViewsError>).await;
    assert_eq!(unsure.unwrap(), 0);
    let rows = "SELECT count(*) FROM views_2.device_summaries";
    assert_eq!(stand.count(rows).await, stand.count("SELECT count(*) FROM views_1.device_summaries").await);
    candidate.stop().await.unwrap();
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_under_load_loses_nothing_and_hands_over_and_back() {
    let mut stand = Stand::new(100).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let publishing = stand.publishing(&is_over);
    // Whoever reads what people read is never refused, and never sees it empty.
    let asked = Arc::new(AtomicUsize::new(0));
    let reading = {
        let (client, asked, is_over) = (stand.database.client().await, asked.clone(), is_over.clone());
        tokio::spawn(async move {
            client
                .batch_execute("SET serviceradar.tenant = 'stand'; SET ROLE serviceradar_reader")
                .await
                .unwrap();
            while !is_over.load(Ordering::Relaxed) {
                let row = client.query_one("SELECT count(*) FROM serviceradar.devices", &[]).await.unwrap();
                assert!(row.get::<_, i64>(0) >= 90);
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let mut former = 1;
    for to in [2, 1, 2] {
        let candidate = match to {
            2 if former == 1 && stand.states().await.len() == 1 => stand.candidate(&Rules::default()).await,
            id => stand.again(id).await,
        };
        let outcome = candidate.promote(None).await.unwrap();
        assert_eq!((outcome.from, outcome.changes), (former, 0), "the same rules, the same log");
        // The pipeline was never told: it stands by, follows, and takes over.
        candidate.relieved().await.unwrap();
        candidate.stop().await.unwrap();
        while stand.live().status().generation != to || stand.live().status().phase != Phase::Running {
            assert!(!stand.live().is_finished(), "{:?}", stand.live().status().phase);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        former = to;
    }
    is_over.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
    reading.await.unwrap();
    assert!(asked.load(Ordering::Relaxed) > 50);
    stand.live().caught_up().await.unwrap();
    assert_eq!(stand.assert_verified().await.generation, 2);
    stand.assert_consumers_know_all().await;
    assert_eq!(stand.count("SELECT count(*) FROM serviceradar_base.pipeline_stops").await, 0);
    // A pipeline that starts now finds it.
    stand.stop_live().await;
    stand.start_live().await;
    stand.network.look(&stand.log).await;
    stand.live().caught_up().await.unwrap();
    assert_eq!(stand.assert_verified().await.generation, 2);
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_rules_are_compared_and_their_promotion_tells_the_difference() {
    let mut stand = Stand::new(50).await;
    let shared = "00:1b:21:00:00:01";
    observations(&stand.log).publish([with_mac("x", shared), with_mac("y", shared)]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    let candidate = stand.candidate(&narrow()).await;
    let mut found = Vec::new();
    let tell = |difference| {
        found.push(difference);
        Ok::<_, ViewsError>(())
    };
    assert_eq!(stand.views().await.diff(1, 2, TENANT, tell).await.unwrap(), 0);
    assert!(!found.is_empty());
    let count = |is: fn(&Kind) -> bool| found.iter().filter(|of| is(&of.kind)).count() as i64;
    let (gone, new) = (
        count(|kind| matches!(kind, Kind::Vanished | Kind::Merged(_))),
        count(|kind| matches!(kind, Kind::Appeared | Kind::Split(_))),
    );
    let [of_1, of_2] = ["views_1", "views_2"].map(|of| format!("SELECT count(*) FROM {of}.device_summaries"));
    assert_eq!(stand.count(&of_2).await - stand.count(&of_1).await, new - gone);

    let refused = candidate.promote(Some(0)).await;
    assert!(matches!(refused, Err(CandidateError::TooMany { most: 0, .. })), "{refused:?}");
    assert_eq!(stand.states().await, [(1, "active".to_owned()), (2, "ready".to_owned())]);
    // Both go on.
    observations(&stand.log).publish([observation("z", SystemClock.now())]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    candidate.caught_up(|_| {}).await.unwrap();
    assert_eq!(stand.live().status().generation, 1);

    let outcome = candidate.promote(None).await.unwrap();
    assert_eq!(outcome.changes, found.len() as u64);
    candidate.relieved().await.unwrap();
    stand.live().caught_up().await.unwrap();
    assert_eq!(stand.assert_verified().await.generation, 2);
    let told = "SELECT count(*) FROM serviceradar_base.device_history WHERE cause = 'generation 2 promoted'
        AND generation = 2 AND epoch = (SELECT min(epoch) FROM serviceradar_base.device_history WHERE generation = 2)";
    assert_eq!(stand.count(told).await, found.len() as i64);
    stand.assert_consumers_know_all().await;
    let shown =
        "SELECT count(*) FROM pg_views WHERE schemaname = 'serviceradar' AND definition LIKE '%views_1.%'";
    assert_eq!(stand.count(shown).await, 0);

    // And back, by the rules that the former generation was built with.
    candidate.stop().await.unwrap();
    let back = stand.again(1).await;
    assert_eq!(back.promote(None).await.unwrap().changes, found.len() as u64);
    back.relieved().await.unwrap();
    back.stop().await.unwrap();
    stand.live().caught_up().await.unwrap();
    assert_eq!(stand.assert_verified().await.generation, 1);
    stand.assert_consumers_know_all().await;

    let views = stand.views().await;
    assert!(views.retire(1).await.is_err(), "the active one");
    views.retire(2).await.unwrap();
    assert_eq!(stand.states().await, [(1, "active".to_owned()), (2, "retired".to_owned())]);
    stand.assert_verified().await;
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_and_goes_away_leaves_all_as_it_was() {
    let mut stand = Stand::new(20).await;
    stand.views().await.ask_to_stop(1, TENANT, &BTreeMap::new()).await.unwrap();
    while stand.live().status().phase != Phase::Holding {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It waits for a while, and goes on.
    observations(&stand.log).publish([observation("z", SystemClock.now())]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    assert_eq!(stand.count("SELECT count(*) FROM serviceradar_base.pipeline_stops").await, 0);
    stand.assert_verified().await;
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_does_not_stop_in_time_is_left_alone() {
    let mut stand = Stand::new(20).await;
    let candidate = stand.candidate(&Rules::default()).await;
    // It waits for a place that the log has not reached.
    let views = stand.views().await;
    let nowhere = BTreeMap::from([((Stream::Observations.topic(TENANT), 0), u64::from(u32::MAX))]);
    views.ask_to_stop(1, TENANT, &nowhere).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stand.live().status().phase, Phase::Running);
    views.ask_no_more(1).await.unwrap();
    // One that is taken away is not waited for: nobody writes, and nothing is lost.
    stand.stop_live().await;
    observations(&stand.log).publish([observation("z", SystemClock.now())]).await.unwrap();
    candidate.caught_up(|_| {}).await.unwrap();
    assert_eq!(
        candidate.promote(None).await.unwrap().changes,
        1,
        "the device that only the candidate has seen"
    );
    let live = stand.pipeline("live").await;
    candidate.relieved().await.unwrap();
    live.caught_up().await.unwrap();
    assert_eq!(stand.assert_verified().await.generation, 2);
    live.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_was_interrupted_goes_on_in_the_same_generation() {
    let mut stand = Stand::new(100).await;
    let whole = stand.log.clone();
    // So slowly that it is interrupted in the middle.
    stand.log = Between::slow(whole.clone(), 5, Duration::from_millis(100));
    let begun = stand.start(&narrow()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(begun.generation(), 2);
    begun.stop().await.unwrap();
    assert_eq!(stand.states().await, [(1, "active".to_owned()), (2, "building".to_owned())]);
    stand.log = whole;
    let again = stand.candidate(&narrow()).await;
    assert_eq!(again.generation(), 2);
    again.stop().await.unwrap();
    // One by other rules is another.
    let other = stand.candidate(&Rules::default()).await;
    assert_eq!(other.generation(), 3);
    other.stop().await.unwrap();
    let states = [(1, "active"), (2, "ready"), (3, "ready")].map(|(id, state)| (id, state.to_owned()));
    assert_eq!(stand.states().await, states);
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tenants_are_promoted_at_once_or_none_is() {
    let mut stand = Stand::new(20).await;
    serviceradar_replay::topics::ensure(&*stand.log, OTHER_TENANT).await.unwrap();
    let of_other = serviceradar_ingest::publish::Observations::new(
        stand.log.clone(),
        Stream::Observations.topic(OTHER_TENANT),
        Default::default(),
    );
    of_other
        .publish((0..30).map(|n| observation(&n.to_string(), SystemClock.now())).collect::<Vec<_>>())
        .await
        .unwrap();
    let other = drive_tenant(OTHER_TENANT, stand.log.clone(), stand.database.url()).await;
    other.caught_up().await.unwrap();
    let candidate = stand.candidate(&Rules::default()).await;
    let outcome = candidate.promote(Some(0)).await.unwrap();
    assert_eq!(outcome.epochs.keys().map(String::as_str).collect::<Vec<_>>(), [OTHER_TENANT, TENANT]);
    candidate.relieved().await.unwrap();
    for driver in [stand.live(), &other] {
        driver.caught_up().await.unwrap();
        assert_eq!(driver.status().generation, 2);
    }
    stand.assert_verified().await;
    // Where one has no topics, nothing is begun.
    other.stop().await.unwrap();
    for topic in stand.log.topics(Some(OTHER_TENANT)).await.unwrap() {
        stand.log.delete_topic(&topic.name).await.unwrap();
    }
    let views = stand.views().await;
    let rules = Rules::default();
    let id = views.building(&rules).await.unwrap();
    let refused = Candidate::start(stand.config(views), id, rules).await;
    assert!(matches!(refused, Err(CandidateError::NoTopics(tenant)) if tenant == OTHER_TENANT));
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_of_a_part_of_the_log_can_be_built_over_what_is_gone_and_is_never_promoted() {
    let mut stand = Stand::new(20).await;
    let from = SystemClock.now();
    observations(&stand.log).publish([observation("since", from)]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    let mut frontiers = Vec::new();
    for partition in read_by(&*stand.log, TENANT).await.unwrap() {
        let next_offset = offset_at(&*stand.log, &partition, from).await.unwrap();
        // What was before is gone, and nobody said that it is lost.
        stand.log.delete_before(&partition.topic, partition.log_partition, next_offset).await.unwrap();
        let Partition { topic, log_partition } = partition;
        frontiers.push(Frontier { topic, log_partition, next_offset, intake_max: i64::MIN, witness: None });
    }
    let (views, rules) = (stand.views().await, Rules::default());
    let frontiers = BTreeMap::from([(TENANT.to_owned(), frontiers)]);
    let id = views.part(&rules, "from then", &frontiers).await.unwrap();
    let part = Candidate::start(stand.config(views.clone()), id, rules.clone()).await.unwrap();
    part.caught_up(|_| {}).await.unwrap();
    assert_eq!(stand.count("SELECT count(*) FROM views_2.device_summaries").await, 1);
    let refused = part.promote(None).await;
    assert!(matches!(refused, Err(CandidateError::Views(ViewsError::Refused(_)))), "{refused:?}");
    part.stop().await.unwrap();
    assert!(views.take_place(1, id).await.is_err());
    let listed = views.generations().await.unwrap();
    assert_eq!(listed[1].partial.as_deref(), Some("from then"));
    // One that is interrupted is no build of the whole, either.
    let id = views.part(&rules, "from then", &frontiers).await.unwrap();
    assert_ne!(views.building(&rules).await.unwrap(), id);
    // The pipeline goes on.
    observations(&stand.log).publish([observation("z", SystemClock.now())]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    assert_eq!(stand.live().status().generation, 1);
    stand.stop_live().await;
}
