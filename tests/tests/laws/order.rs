//! Laws of order: what was said decides, not when it came, in which company, how often, or to whom.

use proptest::prelude::*;
use serviceradar_tests::worlds::{Event, PARTITIONS, STEPS_MAX, World, orders, worlds};

use crate::{
    Checked, cases,
    run::{Run, as_from_scratch, at_once, epochs, later, reordered},
    tables::{Tables, same},
};

/// The tables after many epochs.
fn over(world: &World, events: &[Event], workers: usize) -> Checked<Tables> {
    let mut run = Run::start(world, workers)?;
    for epoch in epochs(events, world) {
        run.epoch(epoch)?;
    }
    Ok(run.tables)
}

/// Any order within what epochs allow, any batching: the same tables.
pub(crate) fn permutation(world: &World, order: &[u16]) -> Checked {
    let events = reordered(&world.events, order);
    let reordered = over(world, &events, 1)?;
    same(&reordered, &at_once(world, &world.events)?, "in another order")
}

/// Whatever is delivered again, in the same or a later epoch, changes nothing.
pub(crate) fn duplicates(world: &World, order: &[u16]) -> Checked {
    let again: Vec<Event> = reordered(&world.events, order).iter().map(later).collect();
    let twice: Vec<Event> = [&world.events[..], &again].concat();
    let doubled = over(world, &twice, 1)?;
    same(&doubled, &at_once(world, &world.events)?, "all of it twice")
}

/// Wherever epochs are cut, and however much of one comes at a time: the same tables.
pub(crate) fn split(world: &World, cuts: &[u16], batch: usize) -> Checked {
    let mut run = Run::start(world, 1)?;
    let mut begin = 0;
    for end in 1..=world.events.len() {
        if end == world.events.len() || cuts[end % cuts.len()].is_multiple_of(4) {
            run.epoch_in_batches(&world.events[begin..end], batch)?;
            begin = end;
        }
    }
    as_from_scratch(&run, world, &world.events, "cut elsewhere")
}

/// After each epoch the tables are those of all events so far.
pub(crate) fn incremental(world: &World) -> Checked {
    let mut run = Run::start(world, 1)?;
    let mut so_far = 0;
    for epoch in epochs(&world.events, world) {
        run.epoch(epoch)?;
        so_far += epoch.len();
        let events = &world.events[..so_far];
        as_from_scratch(&run, world, events, &format!("after {so_far} events"))?;
    }
    Ok(())
}

/// An engine that reads the views back goes on as the one that wrote them.
pub(crate) fn reload(world: &World, at: usize) -> Checked {
    let epochs = epochs(&world.events, world);
    let (before, after) = epochs.split_at(at % (epochs.len() + 1));
    let mut run = Run::start(world, 1)?;
    for epoch in before {
        run.epoch(epoch)?;
    }
    let mut run = Run::resume(world, run.tables, 1)?;
    // Nothing happens: what the guard is asked comes back too.
    let nothing = run.epoch(&[])?;
    prop_assert!(nothing.output.history.is_empty() && nothing.output.merges.is_empty());
    let so_far: usize = before.iter().map(|epoch| epoch.len()).sum();
    as_from_scratch(&run, world, &world.events[..so_far], "read back")?;
    for epoch in after {
        run.epoch(epoch)?;
    }
    as_from_scratch(&run, world, &world.events, "gone on")
}

/// Views at any event, and what came after it in one epoch, are all of it: for other workers too.
pub(crate) fn snapshot_plus_tail(world: &World, at: usize) -> Checked {
    let (before, tail) = world.events.split_at(at % (world.events.len() + 1));
    let mut run = Run::resume(world, at_once(world, before)?, 2)?;
    run.epoch(tail)?;
    as_from_scratch(&run, world, &world.events, "snapshot and tail")
}

/// Empty views that are filled by a load hold what one epoch tells, and go on from there.
pub(crate) fn load(world: &World, at: usize) -> Checked {
    let epochs = epochs(&world.events, world);
    let (before, after) = epochs.split_at(at % (epochs.len() + 1));
    let mut run = Run::start(world, 1)?;
    run.load(before)?;
    let so_far: usize = before.iter().map(|epoch| epoch.len()).sum();
    as_from_scratch(&run, world, &world.events[..so_far], "loaded")?;
    for epoch in after {
        run.epoch(epoch)?;
    }
    as_from_scratch(&run, world, &world.events, "gone on")
}

/// A scope is as if it were alone: no uid, and nothing else, depends on another.
pub(crate) fn scopes_apart(world: &World, partition: &str) -> Checked {
    let own = |event: &Event| event.partition().is_none_or(|of| of == partition);
    let alone: Vec<Event> = world.events.iter().filter(|event| own(event)).cloned().collect();
    let mut together = over(world, &world.events, 1)?;
    let prefix = format!("{partition}/");
    together.devices.retain(|_, row| row.partition == partition);
    together.records.retain(|key, _| key.starts_with(&prefix));
    together.evidence.retain(|key, _| key.0.starts_with(&prefix));
    together.issues.retain(|_, row| &*row.partition == partition);
    together.counts.retain(|_, row| &*row.partition == partition);
    together.decisions.retain(|_, row| row.decision.partition == partition);
    together.snapshots.retain(|_, row| &*row.partition == partition);
    together.members.retain(|_, row| &*row.partition == partition);
    together.watermarks.retain(|key, _| key.as_deref().is_none_or(|of| of == partition));
    together.undecided.retain(|fetch| fetch.partition == partition);
    same(&together, &at_once(world, &alone)?, "apart")
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn permutation_changes_nothing(world in worlds(), order in orders()) {
        permutation(&world, &order)?;
    }

    #[test]
    fn duplicates_change_nothing(world in worlds(), order in orders()) {
        duplicates(&world, &order)?;
    }

    #[test]
    fn batch_and_epoch_split_change_nothing(world in worlds(), cuts in orders(), batch in 1..5usize) {
        split(&world, &cuts, batch)?;
    }

    #[test]
    fn incremental_equals_from_scratch_at_every_epoch(world in worlds()) {
        incremental(&world)?;
    }

    #[test]
    fn a_load_tells_what_an_epoch_tells(world in worlds(), at in 0..STEPS_MAX) {
        load(&world, at)?;
    }

    #[test]
    fn reload_at_any_epoch_changes_nothing(world in worlds(), at in 0..STEPS_MAX) {
        reload(&world, at)?;
    }

    #[test]
    fn snapshot_plus_tail_equals_full_replay(world in worlds(), at in 0..STEPS_MAX) {
        snapshot_plus_tail(&world, at)?;
    }

    #[test]
    fn the_number_of_workers_changes_nothing(world in worlds()) {
        let by_one = over(&world, &world.events, 1)?;
        for workers in [2, 4] {
            let by_many = over(&world, &world.events, workers)?;
            same(&by_many, &by_one, &format!("{workers} workers"))?;
        }
    }

    #[test]
    fn a_scope_is_as_if_it_were_alone(world in worlds()) {
        for partition in PARTITIONS {
            scopes_apart(&world, partition)?;
        }
    }
}
