//! The dataflow from observations to devices, and the rules it applies.

pub mod blocks;
pub mod by_device;
pub mod by_place;
pub mod changes;
pub mod choose;
pub mod claim;
pub mod components;
pub mod cores;
pub mod dataflow;
pub mod decisions;
pub mod describe;
pub mod dictionary;
pub mod engine;
pub mod evidence;
pub mod exclusive;
pub mod explain;
pub mod facts;
pub mod few;
pub mod fold;
pub mod identity;
pub mod issues;
pub mod join;
pub mod judge;
pub mod labels;
pub mod list;
pub mod macs;
pub mod marks;
pub(crate) mod merge;
pub mod normalise;
pub mod paged;
pub mod place;
pub mod record;
pub mod recurring;
pub mod resolve;
pub mod restore;
pub mod rows;
pub mod rules;
pub mod snapshots;
pub mod sources;
pub mod spans;
pub mod sums;
pub mod texts;

/// Sorts what was noted, each thing once: a load notes millions, too many to keep sorted one by one.
pub(crate) fn sort_unique<T: Ord>(noted: &mut Vec<T>) {
    noted.sort_unstable();
    noted.dedup();
}

/// The same of labels, which are dense: of many, as most epochs of a load note, a set of bits knows the order.
pub(crate) fn sort_unique_labels(noted: &mut Vec<u32>) {
    let words = noted.iter().max().map_or(0, |max| *max as usize / 64 + 1);
    if words > noted.len() {
        return sort_unique(noted);
    }
    let mut bits = vec![0u64; words];
    for label in noted.drain(..) {
        bits[label as usize / 64] |= 1 << (label % 64);
    }
    for (at, mut word) in (0u32..).zip(bits) {
        while word != 0 {
            noted.push(at * 64 + word.trailing_zeros());
            word &= word - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn labels_are_sorted_whether_many_or_few() {
        for mut noted in [vec![], vec![900, 7, 900], vec![65, 3, 64, 63, 0, 3, 127, 128]] {
            let mut expected = noted.clone();
            super::sort_unique(&mut expected);
            super::sort_unique_labels(&mut noted);
            assert_eq!(noted, expected);
        }
    }
}
