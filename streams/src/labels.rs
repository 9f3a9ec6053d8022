//! Labels, found by the hash of what they stand for, which is kept elsewhere.

use hashbrown::HashTable;

/// Labels by hash. The hash is kept, so that growth looks at nothing that they stand for.
#[derive(Default)]
pub struct Labels {
    table: HashTable<(u32, u32)>,
}

/// Half of a hash: all that is kept of it.
fn half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// As a table wants it: it looks at the first bits, and at the last. Source: Knuth, The Art of Computer Programming 3,
/// 6.4, multiplicative hashing by the golden ratio.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Labels {
    /// The label of which this holds, among those of a hash.
    pub fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let half = half(hash);
        let found = self.table.find(spread(half), |(other, label)| *other == half && is(*label));
        found.map(|(_, label)| *label)
    }

    /// Adds a label that is not there.
    pub fn insert(&mut self, hash: u64, label: u32) {
        let half = half(hash);
        self.table.insert_unique(spread(half), (half, label), |(half, _)| spread(*half));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_one_hash_are_told_apart() {
        let mut labels = Labels::default();
        for label in 0..1_000 {
            labels.insert(u64::from(label % 3) << 40, label);
        }
        assert_eq!(labels.find(1 << 40, |label| label == 4), Some(4));
        assert_eq!(labels.find(1 << 40, |label| label == 5), None);
        assert_eq!(labels.find(3 << 40, |_| true), None);
    }
}
