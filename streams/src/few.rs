//! Lists of labels, mostly of three or fewer, which lie in the list itself: as wide as a pointer and its tag.

use std::ops::{Deref, DerefMut};

/// As many labels as fit where a pointer must.
const FEW: usize = 3;

/// A list of labels.
#[derive(Clone, Debug)]
pub enum Few {
    /// How many, and those.
    Here(u8, [u32; FEW]),
    /// More than fit.
    Apart(Box<Vec<u32>>),
}

impl Few {
    /// Empty.
    pub const NONE: Few = Few::Here(0, [0; FEW]);

    /// Adds a label at the end.
    pub fn push(&mut self, label: u32) {
        match self {
            Few::Here(len, few) if usize::from(*len) < FEW => {
                few[usize::from(*len)] = label;
                *len += 1;
            }
            Few::Here(..) => *self = Few::Apart(Box::new([&**self, &[label]].concat())),
            Few::Apart(many) => many.push(label),
        }
    }

    /// Adds a label to a sorted list, once.
    pub fn insert_sorted(&mut self, label: u32) {
        if let Err(at) = self.binary_search(&label) {
            self.push(label);
            self[at..].rotate_right(1);
        }
    }

    /// Takes a label out of a sorted list.
    pub fn remove_sorted(&mut self, label: u32) {
        let Ok(at) = self.binary_search(&label) else {
            return;
        };
        match self {
            Few::Here(len, few) => {
                few.copy_within(at + 1.., at);
                *len -= 1;
            }
            Few::Apart(many) => {
                many.remove(at);
                self.draw_in();
            }
        }
    }

    /// Keeps those labels alone.
    pub fn retain(&mut self, stays: impl Fn(&u32) -> bool) {
        match self {
            Few::Apart(many) => {
                many.retain(stays);
                self.draw_in();
            }
            Few::Here(len, few) => {
                let mut kept = 0;
                for at in 0..usize::from(*len) {
                    if stays(&few[at]) {
                        few[kept] = few[at];
                        kept += 1;
                    }
                }
                *len = kept as u8;
            }
        }
    }
}

impl Few {
    /// What fits again lies here again.
    fn draw_in(&mut self) {
        if self.len() <= FEW {
            *self = Few::from(&self[..]);
        }
    }
}

impl Default for Few {
    fn default() -> Self {
        Few::NONE
    }
}

impl From<&[u32]> for Few {
    fn from(labels: &[u32]) -> Self {
        if labels.len() > FEW {
            return Few::Apart(Box::new(labels.to_vec()));
        }
        let mut few = [0; FEW];
        few[..labels.len()].copy_from_slice(labels);
        Few::Here(labels.len() as u8, few)
    }
}

impl Deref for Few {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match self {
            Few::Here(len, few) => &few[..usize::from(*len)],
            Few::Apart(many) => many,
        }
    }
}

impl DerefMut for Few {
    fn deref_mut(&mut self) -> &mut [u32] {
        match self {
            Few::Here(len, few) => &mut few[..usize::from(*len)],
            Few::Apart(many) => many,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever comes and goes, it lists what a set does.
        #[test]
        fn it_lists_what_came_and_did_not_go(changes in prop::collection::vec((0u32..8, any::<bool>()), 0..40)) {
            let (mut few, mut set) = (Few::NONE, BTreeSet::new());
            for (label, comes) in changes {
                if comes {
                    few.insert_sorted(label);
                    set.insert(label);
                } else {
                    few.remove_sorted(label);
                    set.remove(&label);
                }
                prop_assert_eq!(few.to_vec(), set.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(matches!(few, Few::Here(..)), set.len() <= FEW);
            }
        }
    }

    #[test]
    fn it_is_no_wider_than_two_pointers() {
        assert_eq!(size_of::<Few>(), 2 * size_of::<usize>());
    }
}
