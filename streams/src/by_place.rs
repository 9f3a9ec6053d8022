//! Something of each node, where it is found by what the node is.

use std::ops::{Index, IndexMut};

use crate::{macs::Place, paged::Paged};

/// Of each core and each MAC-only record one `T`; what was never written is its default.
pub struct ByPlace<T> {
    cores: Paged<T>,
    records: Paged<T>,
}

impl<T: Clone + Default> Default for ByPlace<T> {
    fn default() -> Self {
        Self { cores: Paged::new(T::default()), records: Paged::new(T::default()) }
    }
}

impl<T> ByPlace<T> {
    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Place, &T)> {
        let cores = self.cores.iter().map(|(label, of)| (Place::Core(label), of));
        cores.chain(self.records.iter().map(|(record, of)| (Place::MacOnly(record), of)))
    }
}

impl<T> Index<Place> for ByPlace<T> {
    type Output = T;

    fn index(&self, place: Place) -> &T {
        match place {
            Place::Core(label) => &self.cores[label],
            Place::MacOnly(record) => &self.records[record],
        }
    }
}

impl<T: Clone> IndexMut<Place> for ByPlace<T> {
    fn index_mut(&mut self, place: Place) -> &mut T {
        match place {
            Place::Core(label) => &mut self.cores[label],
            Place::MacOnly(record) => &mut self.records[record],
        }
    }
}
