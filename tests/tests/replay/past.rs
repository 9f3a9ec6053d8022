//! Generations of the past: what stands in one is what is told of its moment, it stays so whatever becomes of the views, and
//! nothing takes it for one that follows the log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serviceradar_log::LogStore;
use serviceradar_materializers::{
    PostgresViews,
    explain::sum,
    inventory::Inventory,
    postgres::{Promotion, Truncation},
    views::ViewsError,
};
use serviceradar_replay::{
    as_of::Moment,
    candidate::{Candidate, CandidateError},
};
use serviceradar_schemas::time::{Clock, DAY, HOUR, SystemClock};
use serviceradar_streams::{rules::Rules, sums::Sums};
use serviceradar_tests::{
    database::Database,
    stand::{TENANT, drive, observations},
};

use super::{
    as_of::{as_of, inventory, new_log, seen, stored},
    promotion::Stand,
};

/// Makes a generation of a moment; returns its number.
async fn fill(log: &Arc<dyn LogStore>, views: &PostgresViews, moment: Moment) -> i32 {
    let then = inventory(log, moment, false).await.unwrap();
    let id = then.generation(views).await.unwrap();
    then.fill(views, id, "past", SystemClock.now()).await.unwrap();
    id
}

fn moment(day: i64) -> Moment {
    Moment::Event(SystemClock.now() - 40 * DAY + day * DAY + 5 * HOUR)
}

async fn log_of_a_month() -> Arc<dyn LogStore> {
    let log = new_log().await;
    let days = (0..30).flat_map(|day| (0..20).map(move |thing| seen(day, thing)));
    observations(&log).publish(days).await.unwrap();
    log
}

/// Its rows are as the sums that were kept of them say.
async fn assert_summed(views: &PostgresViews) {
    let (kept, of_rows) = views.sums(TENANT).await.unwrap();
    let bytes = |sums: &Sums| sums.tables().map(|(name, of)| (name, of.to_bytes()));
    assert!(bytes(&kept) == bytes(&of_rows) && !kept.tables()[0].1.is_empty());
}

/// The devices that differ between two generations, none of them left out.
async fn differing(views: &PostgresViews, from: i32, to: i32) -> Vec<String> {
    let mut found = Vec::new();
    let unsure = views.diff(from, to, TENANT, |difference| {
        found.push(difference.uid.to_string());
        Ok::<_, ViewsError>(())
    });
    assert_eq!(unsure.await.unwrap(), 0, "what changed lately was left out");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_of_an_instant_has_what_is_told_of_it_whatever_becomes_of_the_views() {
    let (log, database) = (log_of_a_month().await, Database::migrated_timescale().await);
    let live = drive(log.clone(), database.url()).await;
    live.caught_up().await.unwrap();
    let (views, client) = (database.views().await, database.client().await);
    let now = stored(&views).await;
    let mut made = Vec::new();
    for day in [3, 17] {
        let moment = moment(day);
        let id = fill(&log, &views, moment).await;
        let (devices, epoch) = stored(&views.of_past(id)).await;
        assert_eq!((&devices, epoch), (&as_of(&log, moment, false).await.unwrap(), 1), "day {day}");
        assert_summed(&views.of_past(id)).await;
        made.push((id, devices));
    }
    assert_eq!(stored(&views).await, now, "the active generation was touched");
    let told: i64 = client
        .query_one(
            "SELECT (SELECT count(*) FROM serviceradar_base.device_history WHERE generation > 1)
                  + (SELECT count(*) FROM serviceradar_base.device_merges WHERE generation > 1)
                  + (SELECT count(*) FROM serviceradar_base.pipeline_outbox WHERE generation > 1)",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(told, 0, "somebody is told");

    let [(one, at_one), (other, at_other)] = &made[..] else { panic!() };
    let found = differing(&views, *one, *other).await;
    let otherwise = at_other.iter().filter(|(uid, device)| at_one.get(*uid) != Some(*device));
    assert!(otherwise.clone().count() > 0);
    for (uid, _) in otherwise.chain(at_one.iter().filter(|(uid, _)| !at_other.contains_key(*uid))) {
        assert!(found.contains(uid), "{uid} differs");
    }
    assert!(!differing(&views, 1, *one).await.is_empty());

    for (tenant, devices) in [(TENANT, at_other.len()), ("other", 0)] {
        let read = format!("SET ROLE serviceradar_reader; SET serviceradar.tenant = '{tenant}'");
        client.batch_execute(&read).await.unwrap();
        let count = format!("SELECT count(*) FROM views_{other}_read.devices");
        let count: i64 = client.query_one(&count, &[]).await.unwrap().get(0);
        assert_eq!(count, devices as i64, "{tenant}");
    }

    live.stop().await.unwrap();
    let truncation = Truncation {
        operation: "t".to_owned(),
        tenant: TENANT.to_owned(),
        actor: "test".to_owned(),
        frontiers: Vec::new(),
        published: 0,
        at: SystemClock.now(),
    };
    views.truncate(&truncation).await.unwrap();
    assert!(stored(&views).await.0.is_empty());
    assert_eq!(&stored(&views.of_past(*one)).await.0, at_one);
    assert_summed(&views.of_past(*one)).await;

    views.retire(*one).await.unwrap();
    views.remove_tenant(TENANT).await.unwrap();
    client.batch_execute("RESET ROLE").await.unwrap();
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^views_[23]'";
    assert_eq!(client.query_one(schemas, &[]).await.unwrap().get::<_, i64>(0), 0);
    let generations = views.generations().await.unwrap();
    let states: Vec<_> = generations.iter().map(|of| (&*of.state, of.past.is_some())).collect();
    assert_eq!(states, [("active", false), ("retired", false), ("retired", false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_of_the_past_is_neither_promoted_nor_written_on_nor_taken_for_a_build() {
    let mut stand = Stand::new(50).await;
    let (views, rules) = (stand.views().await, Rules::default());
    let past = fill(&stand.log, &views, Moment::Known(SystemClock.now())).await;
    let half =
        inventory(&stand.log, Moment::Known(0), false).await.unwrap().generation(&views).await.unwrap();
    let states = |more: &[(i32, &str)]| {
        let all = [(1, "active"), (past, "past"), (half, "filling")];
        all.iter().chain(more).map(|(id, state)| (*id, (*state).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(stand.states().await, states(&[]));
    for id in [past, half] {
        views.set_ready(id).await.unwrap();
        let promotion =
            Promotion { from: 1, to: id, tenants: BTreeMap::new(), at: SystemClock.now(), changes_max: None };
        let refused = views.promote(&promotion).await.unwrap_err();
        assert!(
            matches!(&refused, ViewsError::Refused(why) if why.contains("not ready")),
            "generation {id}: {refused}"
        );
        let candidate = Candidate::start(stand.config(views.clone()), id, rules.clone()).await.unwrap();
        let refused = candidate.caught_up(|_| {}).await.unwrap_err();
        assert!(
            matches!(&refused, CandidateError::Driver { error, .. } if error.contains("of the past")),
            "generation {id}: {refused}"
        );
        candidate.stop().await.unwrap_err();
    }
    assert_eq!(stand.states().await, states(&[]));
    // By the same rules, and yet another.
    let built = stand.candidate(&rules).await;
    assert_eq!(built.generation(), half + 1);
    assert_eq!(stand.states().await, states(&[(half + 1, "ready")]));
    built.stop().await.unwrap();
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filling_that_was_interrupted_is_seen_gone_on_with_or_dropped() {
    let (log, database) = (log_of_a_month().await, Database::migrated().await);
    let (views, moment) = (database.views().await, moment(17));
    let state = async |id: i32| {
        let found = views.generations().await.unwrap().into_iter().find(|of| of.id == id).unwrap();
        (found.state, found.past.unwrap().tenant)
    };
    let then = inventory(&log, moment, false).await.unwrap();
    let id = then.generation(&views).await.unwrap();
    drop(then);
    assert_eq!(state(id).await, ("filling".to_owned(), TENANT.to_owned()));
    for pause in [0, 3, 10, 30, 100] {
        let then = inventory(&log, moment, false).await.unwrap();
        assert_eq!(then.generation(&views).await.unwrap(), id, "another one");
        let views = database.views().await;
        let filling = tokio::spawn(async move { then.fill(&views, id, "past", SystemClock.now()).await });
        tokio::time::sleep(Duration::from_millis(pause)).await;
        filling.abort();
        filling.await.ok();
        if state(id).await.0 == "past" {
            break;
        }
    }
    if state(id).await.0 == "filling" {
        assert_eq!(fill(&log, &views, moment).await, id);
    }
    assert_eq!(stored(&views.of_past(id)).await.0, as_of(&log, moment, false).await.unwrap());
    assert_summed(&views.of_past(id)).await;
    // What is whole is not gone on with.
    let again = inventory(&log, moment, false).await.unwrap();
    let half = again.generation(&views).await.unwrap();
    assert_eq!(half, id + 1);
    views.retire(half).await.unwrap();
    let refused = again.fill(&views, half, "past", SystemClock.now()).await.unwrap_err();
    assert!(refused.to_string().contains("not there any more"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_inventory_is_made_up_of_is_counted_alike_from_the_log_and_in_the_views() {
    let mut stand = Stand::new(200).await;
    let days = (0..30).flat_map(|day| (0..20).map(move |thing| seen(day, thing)));
    observations(&stand.log).publish(days).await.unwrap();
    stand.live().caught_up().await.unwrap();
    stand.stop_live().await;
    let of_views = Inventory::connect(stand.database.url(), TENANT).await.unwrap().counted().await.unwrap();
    let mut then = inventory(&stand.log, Moment::Known(SystemClock.now()), false).await.unwrap();
    let of_log = tokio::task::spawn_blocking(move || then.counted().unwrap()).await.unwrap();
    assert_eq!(of_log, of_views);
    assert_eq!(sum(&of_log).1, [""; 0]);
    let records = |has_reason: bool| {
        let alike = of_log.placed.iter().filter(|of| of.reason.is_some() == has_reason);
        alike.map(|of| of.records).sum::<i64>()
    };
    assert!(records(true) > 0 && records(false) > 100, "{of_log:?}");

    // Nothing was there before the first.
    let early = Moment::Event(SystemClock.now() - 3_000 * DAY);
    let mut then = inventory(&stand.log, early, false).await.unwrap();
    let none = tokio::task::spawn_blocking(move || then.counted().unwrap()).await.unwrap();
    assert_eq!((none.devices, none.records), (0, 0));
}
