//! Things that belong together, by plain merging.

use std::collections::BTreeMap;

/// Disjoint groups.
pub(crate) struct Groups<T>(BTreeMap<T, T>);

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Clone> Groups<T> {
    /// Whether it was joined with anything.
    pub(crate) fn contains(&self, item: &T) -> bool {
        self.0.contains_key(item)
    }

    /// What the group of `item` goes by.
    pub(crate) fn of(&self, item: &T) -> T {
        let mut item = item;
        while let Some(other) = self.0.get(item).filter(|other| *other != item) {
            item = other;
        }
        item.clone()
    }

    /// Makes the groups of `a` and `b` one.
    pub(crate) fn join(&mut self, a: T, b: T) {
        let (of_a, of_b) = (self.of(&a), self.of(&b));
        self.0.entry(a).or_insert_with(|| of_a.clone());
        self.0.entry(b).or_insert_with(|| of_b.clone());
        self.0.insert(of_a, of_b.clone());
        self.0.insert(of_b.clone(), of_b);
    }
}
