//! The journals tell what became of each device: the story that the tables' change tells too.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serviceradar_streams::{
    engine::Closed,
    rows::{DeviceRow, Placement},
};
use serviceradar_tests::worlds::{World, worlds};

use crate::{
    Checked, cases,
    run::{Run, epochs},
    tables::Tables,
};

/// Records that went from one uid to another.
type Moved = BTreeMap<(String, String), BTreeSet<String>>;

fn moved(before: &Tables, after: &Tables) -> Moved {
    let mut moved = Moved::new();
    for (key, row) in &after.records {
        let from = before.records.get(key).and_then(|row| row.uid);
        if let (Some(from), Some(to)) = (from, row.uid)
            && from != to
        {
            moved.entry((from.to_string(), to.to_string())).or_default().insert(key.to_string());
        }
    }
    moved
}

/// One row of history for each device that changed by more than sightings, and the right one.
fn history(before: &Tables, after: &Tables, closed: &Closed) -> Checked {
    let moved = moved(before, after);
    let mut told: BTreeMap<String, &str> = BTreeMap::new();
    for row in &closed.output.history {
        let twice = told.insert(row.uid.to_string(), row.change);
        prop_assert!(twice.is_none(), "{row:?} is not alone");
    }
    let seen: BTreeSet<String> = closed.output.devices.seen.iter().map(|seen| seen.uid.to_string()).collect();
    let uids: BTreeSet<&String> = before.devices.keys().chain(after.devices.keys()).collect();
    for uid in uids {
        let retired = |tables: &Tables| tables.devices.get(uid).is_some_and(|row| row.state == "retired");
        let change = match (before.devices.get(uid), after.devices.get(uid)) {
            (None, _) if moved.keys().any(|(_, to)| to == uid) => Some("split"),
            (None, _) => Some("created"),
            (_, None) if moved.keys().any(|(from, _)| from == uid) => Some("merged"),
            (_, None) => Some("forgotten"),
            (Some(old), Some(new)) if said(old) == said(new) || seen.contains(uid) => None,
            _ if retired(after) && !retired(before) => Some("retired"),
            _ => Some("changed"),
        };
        prop_assert_eq!(told.remove(uid), change, "of {}", uid);
    }
    prop_assert!(told.is_empty(), "of no device: {told:?}");
    Ok(())
}

/// A row but for when each of its sources last saw it: the views make that of the records.
fn said(row: &DeviceRow) -> DeviceRow {
    let mut row = row.clone();
    for source in &mut row.sources {
        source.last_seen = 0;
    }
    row
}

/// A row for each pair of uids between which records went, with these records.
fn merges(before: &Tables, after: &Tables, closed: &Closed) -> Checked {
    let mut moved = moved(before, after);
    for row in &closed.output.merges {
        let (from, to) = (row.from_uid.to_string(), row.to_uid.to_string());
        let kind = if after.devices.contains_key(&from) { "split" } else { "merge" };
        prop_assert_eq!(row.kind, kind, "{:?}", row);
        let records: BTreeSet<String> = row.records.iter().map(|key| key.to_string()).collect();
        let anchored = records
            .iter()
            .any(|key| after.records.get(&**key).is_some_and(|row| row.placement == Placement::Anchored));
        prop_assert_eq!(row.rule == "attach", !anchored, "{:?}", row);
        if let Some(claim) = &row.claim {
            let holds = after.evidence.values().any(|row| {
                records.contains(&*row.record_key) && *claim == format!("{}:{}", row.namespace, row.value)
            });
            prop_assert!(holds, "none of its records has the claim of {row:?}");
        }
        prop_assert_eq!(moved.remove(&(from, to)), Some(records));
    }
    prop_assert!(moved.is_empty(), "not told: {moved:?}");
    Ok(())
}

/// Checks the journals of every epoch.
pub(crate) fn journals(world: &World) -> Checked {
    let mut run = Run::start(world, 1)?;
    for epoch in epochs(&world.events, world) {
        let before = run.tables.clone();
        let closed = run.epoch(epoch)?;
        history(&before, &run.tables, &closed)?;
        merges(&before, &run.tables, &closed)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn history_and_merges_tell_what_became_of_each_device(world in worlds()) {
        journals(&world)?;
    }
}
