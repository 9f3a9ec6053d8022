//! Things that belong together, by plain merging.

use std::collections::BTreeMap;

/// Disjoint groups; each goes by its smallest member.
#[derive(Clone, Debug)]
pub(super) struct Groups<T>(BTreeMap<T, T>);

impl<T: Ord + Clone> Groups<T> {
    /// Everything alone.
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The smallest member of the group of `item`.
    pub(super) fn of(&self, item: &T) -> T {
        let mut smallest = item;
        while let Some(smaller) = self.0.get(smallest) {
            smallest = smaller;
        }
        smallest.clone()
    }

    /// Makes the groups of `a` and `b` one.
    pub(super) fn merge(&mut self, a: &T, b: &T) {
        let (a, b) = (self.of(a), self.of(b));
        if a != b {
            self.0.insert(a.clone().max(b.clone()), a.min(b));
        }
    }
}
