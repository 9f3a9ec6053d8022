//! What PostgreSQL holds is all that a restart needs: an engine that is made anew from it before each epoch writes what
//! one writes that lives through all of them.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{prelude::*, test_runner::TestRunner};
use serviceradar_materializers::{
    PostgresViews,
    views::{Epoch, TenantWriter, Views as _},
};
use serviceradar_streams::{dataflow::ScopeGauges, engine::Engine};
use serviceradar_tests::{
    database::Database,
    stand::Views,
    worlds::{World, worlds},
};
use tokio::{runtime::Runtime, sync::mpsc};

use crate::{
    Checked, cases,
    run::{TENANT, batch, engine, epochs},
};

/// Cases of this law, of which each is written to PostgreSQL twice: one in so many of the others'.
const SHARE: u32 = 8;

type Scopes = BTreeMap<Arc<str>, ScopeGauges>;

/// A database of this law's own.
struct Place {
    views: PostgresViews,
    tables: Views,
    _database: Database,
}

impl Place {
    async fn new() -> Self {
        let database = Database::migrated().await;
        let (views, client) = (database.views().await, database.client().await);
        Self { views, tables: Views::new(client).await, _database: database }
    }

    async fn writer(&self) -> Box<dyn TenantWriter> {
        let rules = serde_json::Value::Null;
        self.views.take(TENANT, "w", "of a law", &rules).await.unwrap().0
    }

    /// Writes a world, epoch by epoch; returns all rows of all tables, and what each epoch counts of the scopes.
    async fn write(
        &self,
        world: &World,
        restarts: bool,
    ) -> Checked<(BTreeMap<String, Vec<String>>, Vec<Scopes>)> {
        self.tables.clear().await;
        let mut scopes = Vec::new();
        let mut writer = self.writer().await;
        let mut running = engine(world, 1)?;
        for (number, events) in (1..).zip(epochs(&world.events, world)) {
            if restarts {
                writer = self.writer().await;
                running = engine(world, 1)?;
                let (put, mut pieces) = mpsc::channel(1);
                let taking = std::thread::spawn(move || {
                    running.restore(std::iter::from_fn(|| pieces.blocking_recv()))?;
                    Ok::<Engine, serviceradar_streams::engine::EngineError>(running)
                });
                writer.state(put).await.unwrap();
                running = taking.join().unwrap()?;
            }
            let closed = running.epoch(batch(events))?;
            scopes.push(closed.gauges.scopes);
            let epoch = Epoch {
                number,
                follows: number - 1,
                closed_at: 0,
                events: events.len() as u64,
                intake_max: 0,
                frontiers: Vec::new(),
                output: closed.output,
                dead_letters: Vec::new(),
            };
            writer.commit(&epoch).await.unwrap();
        }
        Ok((self.tables.rows().await, scopes))
    }
}

#[test]
fn a_restart_before_every_epoch_changes_no_row() {
    let runtime = Runtime::new().unwrap();
    let (restarting, lasting) = runtime.block_on(async { (Place::new().await, Place::new().await) });
    let config = ProptestConfig { cases: cases().cases.div_ceil(SHARE), ..cases() };
    let checked = TestRunner::new(config).run(&worlds(), |world| {
        let (one, other) = runtime.block_on(async {
            Ok::<_, TestCaseError>((
                restarting.write(&world, true).await?,
                lasting.write(&world, false).await?,
            ))
        })?;
        let ((one, scopes), (other, expected)) = (one, other);
        for (table, expected) in &other {
            prop_assert_eq!(one.get(table), Some(expected), "{}", table);
        }
        // What has gone to nothing may be forgotten.
        let there = |all: Vec<Scopes>| -> Vec<Scopes> {
            let mut all = all;
            all.iter_mut().for_each(|of| of.retain(|_, scope| *scope != ScopeGauges::default()));
            all
        };
        prop_assert_eq!(there(scopes), there(expected));
        Ok(())
    });
    checked.unwrap();
    let rows = runtime.block_on(lasting.tables.rows()).values().map(Vec::len).sum::<usize>();
    assert!(rows > 0, "the last world came to nothing");
}
