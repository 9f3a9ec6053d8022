//! Texts and lists that recur, kept once while they do.

use std::{
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use hashbrown::DefaultHashBuilder;

/// Slots: some times as many as values of attributes that recur among the records of a network.
const SLOTS: u64 = 1 << 14;

/// The last of each slot: what takes a slot is forgotten by it, and kept by those who hold it.
pub struct Recurring<T: ?Sized> {
    hasher: DefaultHashBuilder,
    slots: Vec<Arc<T>>,
}

impl<T: ?Sized> Default for Recurring<T>
where
    Arc<T>: Default,
{
    fn default() -> Self {
        Self { hasher: DefaultHashBuilder::default(), slots: vec![Arc::default(); SLOTS as usize] }
    }
}

impl<T: Hash + PartialEq + ?Sized> Recurring<T>
where
    Arc<T>: for<'a> From<&'a T>,
{
    /// An equal one, and the same as the last time where nothing has taken its slot since.
    pub fn share(&mut self, value: &T) -> Arc<T> {
        let slot = &mut self.slots[(self.hasher.hash_one(value) % SLOTS) as usize];
        if **slot != *value {
            *slot = value.into();
        }
        slot.clone()
    }
}
