//! Two programs with two layouts at one TimescaleDB: each writes generations of its own layout alone, builds them beside those
//! of the other, and lets them take their place, while nothing is lost in what people read and consumers hear.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serviceradar_materializers::{
    LAYOUT, Layout,
    views::{Views, ViewsError},
};
use serviceradar_replay::{
    DriverError, DriverHandle,
    candidate::{Candidate, CandidateError},
    verify::VerifyError,
};
use serviceradar_schemas::time::{Clock, SystemClock};
use serviceradar_streams::rules::Rules;
use serviceradar_tests::{
    database::Database,
    stand::{TENANT, observation, observations},
};

use super::promotion::Stand;

/// What a program says of views of another layout.
const WHAT_TO_DO: &str = "use the program and rules that built them";
/// What it says of those that nobody has written.
const MIGRATE: &str = "run `serviceradar migrate`, which makes it anew";

/// The layout of the next program: a column more, which has a default and is read by people, and an index more.
fn next() -> Layout {
    let views = LAYOUT.views.replace("s.modified_at, s.epoch\n", "s.modified_at, s.epoch, s.tier\n");
    assert_ne!(views, LAYOUT.views);
    let column = "ALTER TABLE device_summaries ADD COLUMN tier integer NOT NULL DEFAULT 7;";
    let index = "CREATE INDEX device_summaries_tier ON device_summaries (tenant, tier);";
    Layout {
        version: LAYOUT.version + 1,
        tables: format!("{}\n{column}\n", LAYOUT.tables).leak(),
        indexes: format!("{}\n{index}\n", LAYOUT.indexes).leak(),
        views: views.leak(),
    }
}

impl Stand {
    /// All devices of a generation, in order, without bookkeeping and what the next layout alone has.
    async fn devices(&self, generation: i32) -> Vec<String> {
        let select = format!(
            "SELECT (to_jsonb(d) - '{{modified_at,epoch,tier}}'::text[])::text
             FROM views_{generation}.devices d ORDER BY d.tenant, d.uid"
        );
        let rows = self.database.client().await.query(&select, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn assert_devices(&self, devices: &[String]) {
        for generation in [1, 2] {
            assert_eq!(self.devices(generation).await, devices, "generation {generation}");
        }
    }

    /// How many columns and indexes of the next layout there are in a schema.
    async fn has_of_next(&self, schema: &str) -> [i64; 2] {
        let columns = format!(
            "SELECT count(*) FROM information_schema.columns
             WHERE table_schema = '{schema}' AND table_name = 'devices' AND column_name = 'tier'"
        );
        let indexes = format!(
            "SELECT count(*) FROM pg_indexes WHERE schemaname = '{schema}' AND indexname = 'device_summaries_tier'"
        );
        [self.count(&columns).await, self.count(&indexes).await]
    }

    /// The pipeline that writes has ended, because the views are of another layout; one of its program ends at once. Then one
    /// of the other program begins.
    async fn assert_live_is_refused(&mut self, other: Layout) {
        assert_refused(self.live.take().unwrap()).await;
        assert_refused(self.pipeline("again").await).await;
        self.layout = other;
        self.start_live().await;
    }

    /// Nobody has written the views, and a program of another layout neither does nor finds them right.
    async fn assert_unwritten_is_refused(&self) {
        let is_told = |error: &ViewsError| matches!(error, ViewsError::Schema(why) if why.contains(MIGRATE));
        let error = ended(self.pipeline("w").await).await;
        assert!(matches!(&error, DriverError::Views(error) if is_told(error)), "{error:?}");
        let views = self.views().await;
        let condition = views.examine(&SystemClock).await.unwrap();
        assert!(matches!(&condition.fingerprint, Err(error) if is_told(error)), "{condition:?}");
        assert_eq!(views.generations().await.unwrap()[0].fingerprint, None, "it was taken");
    }

    /// Migrates, which makes anew what nobody has written, and what people read with it.
    async fn migrate_unwritten(&mut self, layout: Layout, of_next: i64) {
        self.layout = layout;
        let views = self.views().await;
        assert_eq!(views.migrate().await.unwrap(), [""; 0]);
        assert_eq!(self.has_of_next("views_1").await, [of_next; 2]);
        assert_eq!(self.has_of_next("serviceradar").await, [of_next, 0]);
        let condition = views.examine(&SystemClock).await.unwrap();
        assert!(matches!(condition.fingerprint, Ok(None)), "{condition:?}");
    }

    /// Returns once so many sessions wait for a lock.
    async fn waiting_for_locks(&self, sessions: i64) {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while self.count(waiting).await < sessions {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A pipeline ends by itself; returns why.
async fn ended(pipeline: DriverHandle) -> DriverError {
    while !pipeline.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pipeline.stop().await.unwrap_err()
}

/// A pipeline ends, and says why and what to do.
async fn assert_refused(pipeline: DriverHandle) {
    let error = ended(pipeline).await;
    assert!(matches!(error, DriverError::Views(ViewsError::Fingerprint { .. })), "{error:?}");
    assert!(error.to_string().contains(WHAT_TO_DO), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_built_beside_another_that_goes_on_being_written() {
    let mut stand = Stand::at(Database::migrated_timescale().await, 100).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let publishing = stand.publishing(&is_over);
    stand.layout = next();
    let candidate = stand.candidate(&Rules::default()).await;
    let epochs = "SELECT count(*) FROM serviceradar_base.pipeline_epochs WHERE generation = 1";
    let then = stand.count(epochs).await;
    while stand.count(epochs).await == then {
        assert!(!stand.live().is_finished(), "{:?}", stand.live().status().phase);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
    stand.live().caught_up().await.unwrap();
    candidate.caught_up(|_| {}).await.unwrap();
    assert_eq!([stand.has_of_next("views_1").await, stand.has_of_next("views_2").await], [[0, 0], [1, 1]]);
    let devices = stand.devices(1).await;
    assert!(devices.len() > 200, "{} devices", devices.len());
    stand.assert_devices(&devices).await;
    let filled = "SELECT count(*) FROM views_2.device_summaries WHERE tier = 7";
    assert_eq!(stand.count(filled).await, devices.len() as i64);
    // Each by its own program.
    let verdict = stand.verify(&stand.views().await.of_generation(2)).await.unwrap();
    assert!(verdict.is_clean() && verdict.generation == 2, "{verdict:#?}");
    stand.layout = LAYOUT;
    assert_eq!(stand.assert_verified().await.generation, 1);
    candidate.stop().await.unwrap();
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_program_lets_its_own_take_the_place_and_the_pipeline_of_the_other_ends() {
    let mut stand = Stand::at(Database::migrated_timescale().await, 50).await;
    let before = stand.devices(1).await;
    stand.layout = next();
    let candidate = stand.candidate(&Rules::default()).await;
    let outcome = candidate.promote(None).await.unwrap();
    assert_eq!((outcome.from, outcome.changes), (1, 0), "the same rules, the same log");
    stand.layout = LAYOUT;
    stand.assert_live_is_refused(next()).await;
    candidate.relieved().await.unwrap();
    candidate.stop().await.unwrap();
    stand.live().caught_up().await.unwrap();
    stand.assert_devices(&before).await;
    assert_eq!(stand.has_of_next("serviceradar").await, [1, 0]);

    observations(&stand.log).publish([observation("since", SystemClock.now())]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    assert_eq!(stand.assert_verified().await.generation, 2);
    let since = stand.devices(2).await;
    assert_eq!(since.len(), before.len() + 1);

    // Back, by the program that made it: only that one catches it up.
    stand.layout = LAYOUT;
    let back = stand.again(1).await;
    let outcome = back.promote(None).await.unwrap();
    assert_eq!((outcome.from, outcome.changes), (2, 0));
    stand.layout = next();
    stand.assert_live_is_refused(LAYOUT).await;
    back.relieved().await.unwrap();
    back.stop().await.unwrap();
    stand.live().caught_up().await.unwrap();
    stand.assert_devices(&since).await;
    assert_eq!(stand.has_of_next("serviceradar").await, [0, 0]);
    assert_eq!(stand.assert_verified().await.generation, 1);
    stand.assert_consumers_know_all().await;
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_neither_writes_nor_verifies_nor_goes_on_with_views_of_another_layout() {
    let mut stand = Stand::at(Database::migrated_timescale().await, 20).await;
    stand.layout = next();
    stand.candidate(&Rules::default()).await.stop().await.unwrap();
    let (views_of_next, rules) = (stand.views().await, Rules::default());
    let begun = views_of_next.building(&rules).await.unwrap();
    stand.layout = LAYOUT;
    let views = stand.views().await;
    // By the same rules, and still another.
    assert_ne!(views.building(&rules).await.unwrap(), begun);
    assert_eq!(views_of_next.building(&rules).await.unwrap(), begun);

    let [own, other] = [&views, &views_of_next].map(|views| rules.fingerprint(views.layout_version()));
    let taken = views.of_generation(2).take(TENANT, "w", &own, &rules.canonical()).await;
    let Err(ViewsError::Fingerprint { found, wanted }) = taken else { panic!("it is taken") };
    assert_eq!((&found, &wanted), (&other, &own));
    let candidate = Candidate::start(stand.config(views.clone()), 2, rules).await.unwrap();
    let refused = candidate.caught_up(|_| {}).await;
    let Err(CandidateError::Driver { error, .. }) = &refused else { panic!("{refused:?}") };
    assert!(error.contains(&other) && error.contains(WHAT_TO_DO), "{error}");
    let refused = stand.verify(&views.of_generation(2)).await;
    assert!(matches!(refused, Err(VerifyError::Fingerprint { .. })), "it is verified");
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_nobody_has_written_are_of_the_program_that_migrated_last() {
    let mut stand = Stand::unwritten(Database::migrated_timescale().await, 20).await;
    let client = stand.database.client().await;
    let of_people = "CREATE VIEW public.of_people AS SELECT id FROM serviceradar.snapshots";
    client.batch_execute(of_people).await.unwrap();
    // As migration 12 finds it: no program knows what its tables are like.
    let forget = "UPDATE serviceradar_base.pipeline_generations SET layout = NULL";
    client.batch_execute(forget).await.unwrap();
    stand.assert_unwritten_is_refused().await;
    stand.migrate_unwritten(next(), 1).await;
    stand.layout = LAYOUT;
    stand.assert_unwritten_is_refused().await;
    stand.migrate_unwritten(LAYOUT, 0).await;
    stand.layout = next();
    stand.assert_unwritten_is_refused().await;
    stand.migrate_unwritten(next(), 1).await;
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%before%'";
    assert_eq!(stand.count(left).await, 0, "the tables of before");
    let kept = "SELECT count(*) FROM pg_views WHERE schemaname = 'public' AND viewname = 'of_people'";
    assert_eq!(stand.count(kept).await, 1, "what people made over it");

    stand.start_live().await;
    stand.live().caught_up().await.unwrap();
    let devices = stand.devices(1).await;
    assert!(!devices.is_empty(), "nothing was written");
    // What somebody has written stays, whoever migrates.
    stand.layout = LAYOUT;
    stand.views().await.migrate().await.unwrap();
    assert_eq!(stand.devices(1).await, devices);
    assert_refused(stand.pipeline("other").await).await;
    stand.layout = next();
    stand.assert_verified().await;
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_are_taken_are_not_made_anew_and_those_made_anew_can_be_taken_at_once() {
    let mut stand = Stand::unwritten(Database::migrated_timescale().await, 20).await;
    stand.layout = next();
    let (views, other) = (stand.views().await, stand.database.client().await);
    let take = "BEGIN; UPDATE serviceradar_base.pipeline_generations SET fingerprint = 'taken'";
    other.batch_execute(take).await.unwrap();
    let taken = async {
        stand.waiting_for_locks(1).await;
        other.batch_execute("COMMIT").await.unwrap();
    };
    let (migrated, ()) = tokio::join!(views.migrate(), taken);
    migrated.unwrap();
    assert_eq!(stand.has_of_next("views_1").await, [0, 0]);
    let give_back = "UPDATE serviceradar_base.pipeline_generations SET fingerprint = NULL";
    other.batch_execute(give_back).await.unwrap();

    // Somebody reads what is to go: whoever takes it meanwhile looked before it is made anew.
    other.batch_execute("BEGIN; SELECT FROM views_1.snapshots").await.unwrap();
    let (fingerprint, rules) = {
        let rules = Rules::default();
        (rules.fingerprint(views.layout_version()), rules.canonical())
    };
    let taking = async {
        stand.waiting_for_locks(1).await;
        views.take(TENANT, "w", &fingerprint, &rules).await
    };
    let read = async {
        stand.waiting_for_locks(2).await;
        other.batch_execute("COMMIT").await.unwrap();
    };
    let (migrated, taken, ()) = tokio::join!(views.migrate(), taking, read);
    migrated.unwrap();
    taken.map(drop).unwrap();
    assert_eq!(stand.has_of_next("views_1").await[0], 1);
    assert_eq!(views.generations().await.unwrap()[0].fingerprint, Some(fingerprint));
}
