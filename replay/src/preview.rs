//! Preview: what other rules would make of the same log: which devices would merge, split or have another uid. Nothing is
//! written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;
use serviceradar_materializers::{PostgresViews, views::ViewsError};
use serviceradar_streams::{rows::Uid, rules::Rules};

use crate::{
    recompute::{Recompute, RecomputeError},
    topics::Partition,
    verify::{Verify, each_piece},
};

/// Why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The views refused.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The log could not be recomputed.
    #[error(transparent)]
    Recompute(#[from] RecomputeError),
}

impl PreviewError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Views(error) => error.is_unavailable(),
            Self::Recompute(error) => error.is_unavailable(),
        }
    }
}

/// What would become of devices, by the records that they are made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "becomes")]
pub enum Becomes {
    /// Several would be one.
    Merged {
        /// What they are now.
        uids: Vec<Uid>,
        /// What they would be.
        into: Uid,
    },
    /// One would be several.
    Split {
        /// What it is now.
        uid: Uid,
        /// What it would be.
        into: Vec<Uid>,
    },
    /// It would be the same records under another uid.
    Renamed {
        /// What it is now.
        uid: Uid,
        /// What it would be.
        into: Uid,
    },
    /// None of its records would be of a device.
    Vanished {
        /// What it is now.
        uid: Uid,
    },
    /// Records that are of no device would be one.
    Appeared {
        /// What it would be.
        uid: Uid,
    },
}

/// Devices before and after, each by its records.
#[derive(Debug, Default)]
pub struct Placements {
    /// Records that would be of another device, or of none, or of one at all.
    pub moved: u64,
    into: BTreeMap<Uid, BTreeSet<Option<Uid>>>,
    from: BTreeMap<Uid, BTreeSet<Option<Uid>>>,
}

impl Placements {
    /// A record is of one device, and would be of another.
    pub fn note(&mut self, before: Option<Uid>, after: Option<Uid>) {
        self.moved += u64::from(before != after);
        if let Some(before) = before {
            self.into.entry(before).or_default().insert(after);
        }
        if let Some(after) = after {
            self.from.entry(after).or_default().insert(before);
        }
    }

    /// What becomes of devices, but of those of which nothing does; in order.
    pub fn becomes(&self) -> Vec<Becomes> {
        let uids = |of: &BTreeSet<Option<Uid>>| of.iter().filter_map(|uid| *uid).collect::<Vec<Uid>>();
        let mut becomes = Vec::new();
        for (&uid, into) in &self.into {
            match uids(into)[..] {
                [] => becomes.push(Becomes::Vanished { uid }),
                [into] if into != uid && self.from.get(&into).is_some_and(|of| uids(of) == [uid]) => {
                    becomes.push(Becomes::Renamed { uid, into });
                }
                [_] => {}
                _ => becomes.push(Becomes::Split { uid, into: uids(into) }),
            }
        }
        for (&into, from) in &self.from {
            match uids(from) {
                none if none.is_empty() => becomes.push(Becomes::Appeared { uid: into }),
                one if one.len() == 1 => {}
                uids => becomes.push(Becomes::Merged { uids, into }),
            }
        }
        becomes.sort();
        becomes
    }
}

/// What other rules would make of what the views of a tenant hold now. `told` hears how many events were read, of how many.
pub async fn preview(
    of: &Verify,
    views: &PostgresViews,
    rules: Rules,
    mut told: impl FnMut(u64, u64),
) -> Result<Placements, PreviewError> {
    let mut stored = views.stored(&of.tenant).await?;
    let resume = stored.resume().await?;
    let ends = resume.frontiers.iter().map(|frontier| {
        let partition = Partition { topic: frontier.topic.clone(), log_partition: frontier.log_partition };
        (partition, frontier.events_end())
    });
    let recompute = Recompute {
        tenant: of.tenant.clone(),
        rules,
        workers: of.workers,
        log: of.log.clone(),
        writers: of.writers.clone(),
        clock: of.clock.clone(),
        ends: ends.collect(),
        known_until: None,
        refusals: BTreeSet::new(),
    };
    let events = recompute.events().await?;
    let mut recomputed = recompute.run(Some, |_| true, None, |done| told(done, events)).await?;
    let mut before: BTreeMap<Arc<str>, Option<Uid>> = BTreeMap::new();
    each_piece(&mut stored, |piece| {
        before.extend(piece.records.new.into_iter().map(|record| (record.record_key, record.uid)));
    })
    .await?;
    let comparing = tokio::task::spawn_blocking(move || {
        let mut placements = Placements::default();
        let told = recomputed.rows(&mut |piece| {
            for record in piece.records.new {
                placements.note(before.remove(&record.record_key).flatten(), record.uid);
            }
            true
        });
        // What could be read then and cannot now.
        before.into_values().for_each(|before| placements.note(before, None));
        told.map(|()| placements)
    });
    let placements = comparing.await.map_err(|error| RecomputeError::Task(error.to_string()))?;
    Ok(placements.map_err(RecomputeError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(n: u128) -> Uid {
        format!("sr:00000000-0000-0000-0000-{n:012}").parse().unwrap()
    }

    #[test]
    fn records_tell_what_becomes_of_devices() {
        let of = |records: &[(u128, u128)]| {
            let mut placements = Placements::default();
            let some = |n: u128| (n > 0).then(|| uid(n));
            records.iter().for_each(|(before, after)| placements.note(some(*before), some(*after)));
            placements.becomes()
        };
        assert_eq!(of(&[(1, 1), (1, 1), (2, 2), (0, 0)]), []);
        assert_eq!(of(&[(1, 3), (1, 3)]), [Becomes::Renamed { uid: uid(1), into: uid(3) }]);
        assert_eq!(of(&[(1, 1), (2, 1)]), [Becomes::Merged { uids: vec![uid(1), uid(2)], into: uid(1) }]);
        assert_eq!(of(&[(1, 1), (1, 2)]), [Becomes::Split { uid: uid(1), into: vec![uid(1), uid(2)] }]);
        assert_eq!(of(&[(1, 0)]), [Becomes::Vanished { uid: uid(1) }]);
        assert_eq!(of(&[(0, 1)]), [Becomes::Appeared { uid: uid(1) }]);
        // One of its records goes to another, which is then of two.
        assert_eq!(
            of(&[(1, 1), (1, 2), (2, 2)]),
            [
                Becomes::Merged { uids: vec![uid(1), uid(2)], into: uid(2) },
                Becomes::Split { uid: uid(1), into: vec![uid(1), uid(2)] },
            ]
        );
        // A record of no device joins one: that is no change of its uid.
        assert_eq!(of(&[(1, 1), (0, 1)]), []);
    }
}
