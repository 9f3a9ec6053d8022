//! Of what the inventory of an instant is made up, counted as its rows are told: as `explain count` counts the views.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serviceradar_materializers::explain::{Counted, Placed, REASONS};
use serviceradar_streams::rows::{EpochOutput, EvidenceRow, Placement, Uid};

use crate::{as_of::Then, recompute::RecomputeError};

impl Then {
    /// Of what it is made up. Blocks.
    pub fn counted(&mut self) -> Result<Counted, RecomputeError> {
        let mut tally = Tally::default();
        let engine = &mut self.recomputed.engine;
        engine.rows(&mut |piece| {
            tally.add(&piece);
            true
        })?;
        // Again: which claims those make that are not placed is told before or after them.
        engine.rows(&mut |piece| {
            tally.find_reasons(&piece.evidence.new);
            true
        })?;
        Ok(tally.counted())
    }
}

/// Placement, reason, and whether records have a device.
type Alike = (&'static str, Option<&'static str>, bool);

#[derive(Default)]
struct Tally {
    devices: i64,
    states: BTreeMap<String, i64>,
    groups: BTreeMap<Alike, Group>,
    unplaced: HashMap<Arc<str>, Unplaced>,
}

#[derive(Default)]
struct Group {
    records: i64,
    open: i64,
    devices: HashSet<Uid>,
    devices_open: HashSet<Uid>,
}

struct Unplaced {
    uid: Option<Uid>,
    open: bool,
    /// The place among the reasons; behind the last where there is none.
    reason: usize,
}

impl Group {
    fn add(&mut self, uid: Option<Uid>, open: bool) {
        self.records += 1;
        self.devices.extend(uid);
        if open {
            self.open += 1;
            self.devices_open.extend(uid);
        }
    }
}

impl Tally {
    fn add(&mut self, piece: &EpochOutput) {
        for device in &piece.devices.new {
            self.devices += 1;
            *self.states.entry(device.state.to_string()).or_default() += 1;
        }
        for record in &piece.records.new {
            let (uid, open) = (record.uid, record.open);
            if record.placement == Placement::Unplaced {
                self.unplaced
                    .insert(record.record_key.clone(), Unplaced { uid, open, reason: REASONS.len() });
            } else {
                let group = (record.placement.as_str(), None, uid.is_some());
                self.groups.entry(group).or_default().add(uid, open);
            }
        }
    }

    fn find_reasons(&mut self, evidence: &[EvidenceRow]) {
        for row in evidence {
            if let Some(unplaced) = self.unplaced.get_mut(&row.record_key)
                && let Some(place) = REASONS.iter().position(|word| *word == row.state.as_str())
            {
                unplaced.reason = unplaced.reason.min(place);
            }
        }
    }

    fn counted(mut self) -> Counted {
        for Unplaced { uid, open, reason } in self.unplaced.into_values() {
            let reason = REASONS.get(reason).copied().unwrap_or("nothing");
            let group = (Placement::Unplaced.as_str(), Some(reason), uid.is_some());
            self.groups.entry(group).or_default().add(uid, open);
        }
        let placed = |((placement, reason, with_device), of): (Alike, Group)| Placed {
            placement: placement.to_owned(),
            reason: reason.map(str::to_owned),
            with_device,
            records: of.records,
            open: of.open,
            devices: of.devices.len() as i64,
            devices_open: of.devices_open.len() as i64,
        };
        Counted {
            devices: self.devices,
            states: self.states,
            records: self.groups.values().map(|of| of.records).sum(),
            open: self.groups.values().map(|of| of.open).sum(),
            placed: self.groups.into_iter().map(placed).collect(),
        }
    }
}
