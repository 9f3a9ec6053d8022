//! Rollback at once: the former generation is read as it stands, nothing is told before it has caught up, and then the
//! difference is, once, whoever is killed in between.

use std::time::Duration;

use serviceradar_log::{NewEvent, Publisher};
use serviceradar_materializers::{
    postgres::{Truncation, Untold},
    views::{Views, ViewsError},
};
use serviceradar_replay::{
    Driver, DriverConfig, Phase,
    candidate::{Candidate, CandidateError},
};
use serviceradar_schemas::{
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_streams::rules::Rules;
use serviceradar_tests::stand::{Between, TENANT, config, observation, observations, published};
use tokio::runtime;

use super::promotion::{Stand, narrow, with_mac};

/// Devices that generation 1 has not seen when it is read again.
const LATE: usize = 20;
/// Epochs that told the difference.
const TELLING: &str = "SELECT count(DISTINCT epoch) FROM serviceradar_base.device_history WHERE cause = 'generation 1 promoted'";

/// What has been told, at one moment.
#[derive(Debug)]
struct Told {
    /// Tenants whose difference is untold.
    untold: i64,
    /// Rows of `device_history`, `device_merges` and the outbox.
    history: i64,
    merges: i64,
    outbox: i64,
    /// Epochs of generation 1.
    epochs: i64,
}

impl Told {
    async fn of(stand: &Stand) -> Self {
        let select = "SELECT (SELECT count(*) FROM serviceradar_base.pipeline_untold),
            (SELECT count(*) FROM serviceradar_base.device_history),
            (SELECT count(*) FROM serviceradar_base.device_merges),
            (SELECT count(*) FROM serviceradar_base.pipeline_outbox),
            (SELECT count(*) FROM serviceradar_base.pipeline_epochs WHERE generation = 1)";
        let row = stand.database.client().await.query_one(select, &[]).await.unwrap();
        let [untold, history, merges, outbox, epochs] = [0, 1, 2, 3, 4].map(|at: usize| row.get(at));
        Self { untold, history, merges, outbox, epochs }
    }

    /// Nothing was told since but epochs of generation 1, which nobody hears of.
    fn assert_as(&self, before: &Self) {
        let but_epochs = |of: &Self| (of.history, of.merges, of.outbox);
        assert_eq!(but_epochs(self), but_epochs(before));
    }
}

/// Generation 2, by other rules, has taken the place of 1 and gone on; all is published.
async fn promoted() -> Stand {
    let stand = Stand::new(30).await;
    let shared = "00:1b:21:00:00:01";
    observations(&stand.log).publish([with_mac("x", shared), with_mac("y", shared)]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    let candidate = stand.candidate(&narrow()).await;
    candidate.promote(None).await.unwrap();
    candidate.relieved().await.unwrap();
    candidate.stop().await.unwrap();
    let late = (0..LATE).map(|of| observation(&format!("late{of}"), SystemClock.now()));
    observations(&stand.log).publish(late.collect::<Vec<_>>()).await.unwrap();
    stand.live().caught_up().await.unwrap();
    assert_eq!(stand.live().status().generation, 2);
    published(&stand.database.client().await).await;
    stand
}

fn untold(generation: i32, told: i32) -> Untold {
    Untold { tenant: TENANT.to_owned(), generation, told }
}

/// How many devices differ between generation 2 as it stopped, and 1.
async fn differing(stand: &Stand) -> i64 {
    let mut found = 0;
    let tell = |_| {
        found += 1;
        Ok::<_, ViewsError>(())
    };
    assert_eq!(stand.views().await.diff(2, 1, TENANT, tell).await.unwrap(), 0, "they stand alike");
    assert!(found > 0, "the rules make no difference: this test would prove little");
    found
}

/// How many events a stream has.
async fn events(stand: &Stand, stream: Stream) -> u64 {
    let topic = stream.topic(TENANT);
    let mut ends = 0;
    for log_partition in 0..stand.log.describe_topic(&topic).await.unwrap().log_partitions {
        ends += stand.log.offsets(&topic, log_partition).await.unwrap().end;
    }
    ends
}

/// What comes next is told once, and all is as ever; the pipeline is stopped then.
async fn assert_as_ever(stand: &mut Stand, before: &Told, generation: i32) {
    observations(&stand.log).publish([observation("z", SystemClock.now())]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    assert_eq!(Told::of(stand).await.history - before.history, 1);
    assert_eq!(stand.assert_verified().await.generation, generation);
    stand.assert_consumers_know_all().await;
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_read_at_once_and_tells_one_difference_once_it_has_caught_up() {
    let mut stand = promoted().await;
    stand.stop_live().await;
    // A writer hangs in the middle of a commit, and holds the row that all wait for.
    let hung = stand.database.client().await;
    let token = "SELECT token FROM serviceradar_base.pipeline_writers WHERE generation = 2";
    let token: i64 = hung.query_one(token, &[]).await.unwrap().get(0);
    let hang = format!(
        "SET application_name = 'writer {TENANT} 2.{token}'; BEGIN;
         UPDATE serviceradar_base.pipeline_writers SET writer = 'hung' WHERE generation = 2"
    );
    hung.batch_execute(&hang).await.unwrap();
    let (before, changes) = (Told::of(&stand).await, events(&stand, Stream::DeviceChanges).await);
    let views = stand.views().await;
    views.take_place(2, 1).await.unwrap();
    views.show_active().await.unwrap();
    assert_eq!(views.untold().await.unwrap(), [untold(1, 2)]);

    let reader = stand.database.client().await;
    reader
        .batch_execute(&format!("SET serviceradar.tenant = '{TENANT}'; SET ROLE serviceradar_reader"))
        .await
        .unwrap();
    let row = reader.query_one("SELECT count(*) FROM serviceradar.devices", &[]).await.unwrap();
    let devices = |of: i32| format!("SELECT count(*) FROM views_{of}.device_summaries");
    assert_eq!(row.get::<_, i64>(0), stand.count(&devices(1)).await);
    let late =
        |of: i32| format!("SELECT count(*) FROM views_{of}.record_summaries WHERE native_key LIKE 'late%'");
    assert_eq!([stand.count(&late(1)).await, stand.count(&late(2)).await], [0, LATE as i64]);

    // So slowly that it can be seen to commit, and to tell nobody.
    let whole = stand.log.clone();
    stand.log = Between::slow(whole.clone(), 1, Duration::from_millis(150));
    stand.start_live().await;
    let mut epochs = 0;
    loop {
        let now = Told::of(&stand).await;
        if now.untold == 0 {
            break;
        }
        now.assert_as(&before);
        epochs = now.epochs - before.epochs;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(epochs > 1, "{epochs} epochs");
    stand.live().caught_up().await.unwrap();
    stand.stop_live().await;
    stand.log = whole;
    let found = differing(&stand).await;
    let now = Told::of(&stand).await;
    assert_eq!((now.history - before.history, stand.count(TELLING).await), (found, 1));

    // Whoever comes next publishes what is left, and no more; and all is as ever.
    stand.start_live().await;
    published(&stand.database.client().await).await;
    assert_eq!(events(&stand, Stream::DeviceChanges).await - changes, found.cast_unsigned());
    stand.assert_consumers_know_all().await;
    assert_as_ever(&mut stand, &now, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_before_it_is_told_leaves_it_to_the_next() {
    let mut stand = promoted().await;
    stand.stop_live().await;
    let before = Told::of(&stand).await;
    stand.views().await.take_place(2, 1).await.unwrap();
    let slow = Between::slow(stand.log.clone(), 2, Duration::from_millis(20));
    let (mut kills, mut lives) = (0, Duration::ZERO);
    loop {
        let now = Told::of(&stand).await;
        if now.untold == 0 {
            break;
        }
        now.assert_as(&before);
        lives += Duration::from_millis(50);
        let of_driver = config(TENANT, "live", slow.clone(), stand.database.url()).await;
        // Of its own, so that all it does ends where it stands, as of a process that is killed.
        let process = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        process.spawn(async move {
            let _driver = Driver::start(DriverConfig { rules: None, ..of_driver });
            std::future::pending::<()>().await;
        });
        tokio::time::sleep(lives).await;
        process.shutdown_background();
        kills += 1;
    }
    assert!(kills > 1, "{kills} kills");
    stand.start_live().await;
    stand.live().caught_up().await.unwrap();
    let found = differing(&stand).await;
    assert_eq!((Told::of(&stand).await.history - before.history, stand.count(TELLING).await), (found, 1));
    assert_eq!(stand.assert_verified().await.generation, 1);
    stand.assert_consumers_know_all().await;
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_that_runs_and_whoever_rolls_back_tell_it_once_between_them() {
    let mut stand = promoted().await;
    let (before, views) = (Told::of(&stand).await, stand.views().await);
    views.take_place(2, 1).await.unwrap();
    let rules = views.rules_of(1).await.unwrap().unwrap();
    let candidate = Candidate::start(stand.config(views.clone()), 1, rules).await.unwrap();
    candidate.tell_difference(|_| {}).await.unwrap();
    candidate.relieved().await.unwrap();
    candidate.stop().await.unwrap();
    while stand.live().status().generation != 1 || stand.live().status().phase != Phase::Running {
        assert!(!stand.live().is_finished(), "{:?}", stand.live().status().phase);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stand.live().caught_up().await.unwrap();
    let found = differing(&stand).await;
    assert_eq!((Told::of(&stand).await.history - before.history, stand.count(TELLING).await), (found, 1));
    assert_eq!(stand.assert_verified().await.generation, 1);
    stand.assert_consumers_know_all().await;
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_consumers_know_stays_until_it_is_told_or_is_read_again() {
    let mut stand = promoted().await;
    stand.stop_live().await;
    let other = stand.candidate(&Rules::default()).await;
    assert_eq!(other.generation(), 3);
    let (before, views) = (Told::of(&stand).await, stand.views().await);
    views.take_place(2, 1).await.unwrap();
    let refused = other.promote(None).await;
    assert!(matches!(refused, Err(CandidateError::Untold { active: 1, told: 2, .. })), "{refused:?}");
    other.stop().await.unwrap();
    assert!(views.retire(2).await.is_err(), "consumers know it");
    let (fingerprint, rules) = (narrow().fingerprint(views.layout_version()), narrow().canonical());
    let taken = views.of_generation(2).take(TENANT, "w", &fingerprint, &rules).await;
    assert!(matches!(taken, Err(ViewsError::Refused(_))), "it is what it was");
    assert!(views.take_place(2, 1).await.is_err(), "it has taken the place already");

    // Half the way.
    let slow = Between::slow(stand.log.clone(), 1, Duration::from_millis(150));
    let of_driver = config(TENANT, "live", slow, stand.database.url()).await;
    let driver = Driver::start(DriverConfig { rules: None, ..of_driver });
    while Told::of(&stand).await.epochs == before.epochs {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    driver.stop().await.unwrap();
    assert_eq!(views.untold().await.unwrap(), [untold(1, 2)]);
    // To a third, and back: of what lies between nobody hears.
    views.take_place(1, 3).await.unwrap();
    assert_eq!(views.untold().await.unwrap(), [untold(3, 2)]);
    views.take_place(3, 2).await.unwrap();
    assert!(views.untold().await.unwrap().is_empty());
    Told::of(&stand).await.assert_as(&before);
    stand.start_live().await;
    assert_as_ever(&mut stand, &before, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_since_is_told_as_ever_after_the_difference() {
    let mut stand = promoted().await;
    stand.stop_live().await;
    stand.views().await.take_place(2, 1).await.unwrap();
    observations(&stand.log).publish([observation("z", SystemClock.now())]).await.unwrap();
    let garbage = NewEvent { key: None, value: Some("?".into()), headers: Vec::new() };
    Publisher::new(stand.log.clone(), Stream::Observations.topic(TENANT))
        .publish(vec![garbage])
        .await
        .unwrap();
    stand.start_live().await;
    stand.live().caught_up().await.unwrap();
    let since = "SELECT count(*) FROM serviceradar_base.device_history h
        WHERE generation = 1 AND change = 'created' AND cause <> 'generation 1 promoted' AND epoch > (
            SELECT max(epoch) FROM serviceradar_base.device_history WHERE cause = 'generation 1 promoted')";
    assert_eq!(stand.count(since).await, 1);
    published(&stand.database.client().await).await;
    assert_eq!(events(&stand, Stream::DeadLetters).await, 1);
    assert_eq!(stand.assert_verified().await.generation, 1);
    stand.assert_consumers_know_all().await;
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_is_emptied_meanwhile_forgets_what_consumers_know() {
    let mut stand = promoted().await;
    stand.stop_live().await;
    let views = stand.views().await;
    views.take_place(2, 1).await.unwrap();
    let devices = stand.count("SELECT count(*) FROM views_2.device_summaries").await;
    let truncation = Truncation {
        operation: "t".to_owned(),
        tenant: TENANT.to_owned(),
        actor: "a".to_owned(),
        frontiers: Vec::new(),
        published: 0,
        at: SystemClock.now(),
    };
    views.truncate(&truncation).await.unwrap();
    let forgotten = "SELECT count(*) FROM serviceradar_base.device_history
        WHERE generation = 1 AND change = 'forgotten' AND cause = 'truncated'";
    assert_eq!(stand.count(forgotten).await, devices);
    assert!(views.untold().await.unwrap().is_empty());
    stand.start_live().await;
    stand.live().caught_up().await.unwrap();
    assert_eq!(stand.count(TELLING).await, 0);
    assert_eq!(stand.assert_verified().await.generation, 1);
    stand.assert_consumers_know_all().await;
    stand.stop_live().await;
}
