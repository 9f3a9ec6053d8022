//! Running worlds: epochs go into an engine, what it tells goes into tables.

use std::sync::Arc;

use proptest::prop_assert_eq;
use serviceradar_schemas::time::HOUR;
use serviceradar_streams::{
    decisions::Taken,
    engine::{Batch, Closed, Engine},
    normalise::{clamp_time, normalise},
    rows::{EpochOutput, IssueRow},
    rules::{Caps, Lease, Rules, Subnet},
};
use serviceradar_tests::worlds::{Event, World};

use crate::{
    Checked,
    tables::{Tables, same},
};

/// The tenant of all worlds.
pub(crate) const TENANT: &str = "acme";

/// An engine and what it has told.
pub(crate) struct Run {
    engine: Engine,
    pub(crate) tables: Tables,
}

impl Run {
    /// Nothing has happened.
    pub(crate) fn start(world: &World, workers: usize) -> Checked<Self> {
        Ok(Self { engine: engine(world, workers)?, tables: Tables::default() })
    }

    /// Goes on from what the views hold, with nothing in memory.
    pub(crate) fn resume(world: &World, tables: Tables, workers: usize) -> Checked<Self> {
        let mut run = Self::start(world, workers)?;
        run.engine.restore([tables.state()])?;
        run.tables = tables;
        Ok(run)
    }

    /// Fills empty tables with some events: fed in parts, closed at once, and told in pieces.
    pub(crate) fn load(&mut self, parts: &[&[Event]]) -> Checked {
        let mut decisions = Vec::new();
        for part in parts {
            let batch = batch(part);
            self.engine.feed(batch.sightings)?;
            decisions.extend(batch.decisions);
        }
        // Decisions that come last are those of the guard.
        let last = decisions.split_off(decisions.len() / 2);
        let mut closed = self.engine.load(decisions)?;
        closed.then(self.engine.load(last)?);
        // A writer that fails takes no more; then all is told again.
        let mut taken = 0;
        self.engine.rows(&mut |_| {
            taken += 1;
            taken < 2
        })?;
        closed.then(self.engine.load(Vec::new())?);
        let mut rows = EpochOutput::default();
        self.engine.rows(&mut |piece| {
            rows.then(piece);
            true
        })?;
        closed.then(self.engine.load(Vec::new())?);
        closed.output.then(rows);
        self.tables.take(&closed)
    }

    /// An epoch whose observations come so many at a time.
    pub(crate) fn epoch_in_batches(&mut self, events: &[Event], size: usize) -> Checked {
        let Batch { sightings, decisions } = batch(events);
        for part in sightings.chunks(size) {
            self.engine.feed(part.to_vec())?;
        }
        let closed = self.engine.epoch(Batch { decisions, ..Batch::default() })?;
        self.tables.take(&closed)
    }

    /// An epoch of some events.
    pub(crate) fn epoch(&mut self, events: &[Event]) -> Checked<Closed> {
        let closed = self.engine.epoch(batch(events))?;
        self.tables.take(&closed)?;
        let issues: Vec<IssueRow> = self.tables.issues.values().cloned().collect();
        let mut known = self.engine.issues()?;
        known.sort_by_key(serviceradar_streams::changes::Row::key);
        prop_assert_eq!(known, issues);
        Ok(closed)
    }
}

/// An engine that has seen nothing.
pub(crate) fn engine(world: &World, workers: usize) -> Checked<Engine> {
    Ok(Engine::start(TENANT, &Arc::new(rules(world)), workers)?)
}

/// The tables of some events in one epoch.
pub(crate) fn at_once(world: &World, events: &[Event]) -> Checked<Tables> {
    let mut run = Run::start(world, 1)?;
    run.epoch(events)?;
    Ok(run.tables)
}

/// Fails where what the run has told is not what one epoch of `events` comes to.
pub(crate) fn as_from_scratch(run: &Run, world: &World, events: &[Event], when: &str) -> Checked {
    same(&run.tables, &at_once(world, events)?, when)
}

/// Events as the epochs that begin where the world cuts.
pub(crate) fn epochs<'a>(events: &'a [Event], world: &World) -> Vec<&'a [Event]> {
    let mut epochs = Vec::new();
    let mut begin = 0;
    for at in 1..events.len() {
        if world.steps.get(at % world.steps.len()).is_some_and(|step| step.cut) {
            epochs.push(&events[begin..at]);
            begin = at;
        }
    }
    epochs.push(&events[begin..]);
    epochs
}

/// The events in another order, which begins anew where it ends; intake times stay with their events.
pub(crate) fn reordered(events: &[Event], order: &[u16]) -> Vec<Event> {
    let mut placed: Vec<(u16, &Event)> =
        events.iter().enumerate().map(|(place, event)| (order[place % order.len()], event)).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, event)| event.clone()).collect()
}

/// The event, delivered an hour later; as it is where its times count only as far as the log's.
pub(crate) fn later(event: &Event) -> Event {
    let (mut event, times) = match event.clone() {
        Event::Observation(it, intake) => {
            let times = [Some(it.event_time), it.snapshot.as_ref().map(|fetch| fetch.begin)];
            (Event::Observation(it, intake + HOUR), (times, intake))
        }
        Event::Decision(it, intake) => {
            let times = [Some(it.event_time), it.target.begin];
            (Event::Decision(it, intake + HOUR), (times, intake))
        }
    };
    let (times, intake) = times;
    if times.into_iter().flatten().any(|time| clamp_time(time, Some(intake)) != time) {
        let (Event::Observation(_, at) | Event::Decision(_, at)) = &mut event;
        *at = intake;
    }
    event
}

/// What the reader makes of events; those that it refuses are left out.
pub(crate) fn batch(events: &[Event]) -> Batch {
    let mut batch = Batch::default();
    for event in events.iter().cloned() {
        match event {
            Event::Observation(observation, intake) => {
                batch.sightings.extend(normalise(observation, Some(intake)));
            }
            Event::Decision(decision, intake) => {
                batch.decisions.extend(Taken::read(decision, Some(intake)));
            }
        }
    }
    batch
}

/// The rules of a world: two subnets have leases of their own, and caps may be small.
pub(crate) fn rules(world: &World) -> Rules {
    let subnet = |cidr: &str, lease| Subnet { cidr: cidr.into(), lease };
    let mut rules = Rules::default();
    rules.leases.subnets = vec![subnet("10.8.0.0/16", Lease::Static), subnet("10.9.0.0/16", Lease::Guest)];
    if world.small_caps {
        rules.caps = Caps { spread: 4, spread_of_a_source: 2, exclusive_values: 1, block: 3 };
    }
    rules
}
