//! How an epoch changes a table: rows that are new, changed, only seen again, and gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

/// A row that has a key.
pub trait Row: Clone + Send + Sync {
    /// The key, without the tenant.
    type Key: Clone + std::fmt::Debug + Ord + std::hash::Hash + Send + Sync;
    /// What of a row a sighting alone changes; `Infallible` where sightings are nothing special.
    type Seen: Seen<Self>;
    /// The key of this row.
    fn key(&self) -> Self::Key;
}

/// What of a row a sighting alone changes, as it is now.
pub trait Seen<R: Row>: Clone + std::fmt::Debug + PartialEq + Send + Sync {
    /// The key of its row.
    fn key(&self) -> R::Key;
    /// Writes it into its row.
    fn write(self, row: &mut R);
}

impl<R: Row> Seen<R> for Infallible {
    fn key(&self) -> R::Key {
        match *self {}
    }
    fn write(self, _: &mut R) {
        match self {}
    }
}

/// How an epoch changes one table. A key is in one of the four at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes<R: Row> {
    /// Rows whose key was not there.
    pub new: Vec<R>,
    /// Rows that were there and are different now, by more than sightings.
    pub changed: Vec<R>,
    /// Of rows that only sightings changed, what those changed.
    pub seen: Vec<R::Seen>,
    /// Keys that are no more.
    pub gone: Vec<R::Key>,
}

impl<R: Row> Default for Changes<R> {
    fn default() -> Self {
        Self { new: Vec::new(), changed: Vec::new(), seen: Vec::new(), gone: Vec::new() }
    }
}

impl<R: Row> Changes<R> {
    /// How many keys it touches.
    pub fn len(&self) -> usize {
        self.new.len() + self.changed.len() + self.seen.len() + self.gone.len()
    }

    /// Whether it touches none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds what changed after this: the two are then one change.
    pub fn then(&mut self, later: Self) {
        if self.is_empty() {
            *self = later;
            return;
        }
        let mut gone: BTreeSet<R::Key> = later.gone.into_iter().collect();
        let mut seen: BTreeMap<R::Key, R::Seen> =
            later.seen.into_iter().map(|seen| (seen.key(), seen)).collect();
        let mut changed: BTreeMap<R::Key, R> =
            later.changed.into_iter().map(|row| (row.key(), row)).collect();
        let mut new: BTreeMap<R::Key, R> = later.new.into_iter().map(|row| (row.key(), row)).collect();
        // Of what came only now nothing was there before: gone, it leaves nothing.
        self.new.retain(|row| !gone.remove(&row.key()));
        self.changed.retain(|row| !gone.contains(&row.key()));
        for row in self.new.iter_mut().chain(&mut self.changed) {
            let key = row.key();
            if let Some(later) = changed.remove(&key) {
                *row = later;
            } else if let Some(later) = seen.remove(&key) {
                later.write(row);
            }
        }
        self.seen.retain(|known| {
            let key = known.key();
            !gone.contains(&key) && !changed.contains_key(&key) && !seen.contains_key(&key)
        });
        self.gone.retain(|key| match new.remove(key) {
            None => true,
            Some(back) => {
                self.changed.push(back);
                false
            }
        });
        self.new.extend(new.into_values());
        self.changed.extend(changed.into_values());
        self.seen.extend(seen.into_values());
        self.gone.extend(gone);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::rows::{DeviceRow, DeviceSeen, Uid};

    fn device(n: u128, name: &str, last_seen: i64) -> DeviceRow {
        let uid = Uid(Uuid::from_u128(n)).to_string();
        DeviceRow { uid, name: Some(name.to_owned()), last_seen, ..DeviceRow::default() }
    }

    fn seen(n: u128, last_seen: i64) -> DeviceSeen {
        let uid = Uid(Uuid::from_u128(n));
        DeviceSeen { uid, last_seen, availability_at: None, agent_id: None, gateway_id: None }
    }

    fn apply(
        mut rows: BTreeMap<String, DeviceRow>,
        changes: Changes<DeviceRow>,
    ) -> BTreeMap<String, DeviceRow> {
        for row in changes.new {
            assert!(rows.insert(row.key(), row).is_none(), "new, and was there");
        }
        for row in changes.changed {
            assert!(rows.insert(row.key(), row).is_some(), "changed, and was not there");
        }
        for seen in changes.seen {
            let key = Seen::<DeviceRow>::key(&seen);
            seen.write(rows.get_mut(&key).expect("seen, and was there"));
        }
        for key in changes.gone {
            assert!(rows.remove(&key).is_some(), "gone, and was not there");
        }
        rows
    }

    /// Of every pair of changes that can follow each other.
    #[test]
    fn two_changes_made_one_do_what_they_do_one_after_the_other() {
        let uid = |n: u128| Uid(Uuid::from_u128(n)).to_string();
        let before: BTreeMap<_, _> =
            (0..20).map(|n| device(n, "old", 1)).map(|row| (row.key(), row)).collect();
        let first = Changes {
            new: (100..104).map(|n| device(n, "new", 2)).collect(),
            changed: (0..4).map(|n| device(n, "changed", 2)).collect(),
            seen: (4..8).map(|n| seen(n, 2)).collect(),
            gone: (8..10).map(uid).collect(),
        };
        let later = Changes {
            new: [8, 200].map(|n| device(n, "back", 3)).into(),
            changed: [100, 0, 4, 10].map(|n| device(n, "later", 3)).into(),
            seen: [101, 1, 5, 11].map(|n| seen(n, 3)).into(),
            gone: [102, 2, 6, 12].map(uid).into(),
        };
        let one_by_one = apply(apply(before.clone(), first.clone()), later.clone());
        let mut both = first;
        both.then(later);
        assert_eq!(apply(before, both), one_by_one);
    }
}
