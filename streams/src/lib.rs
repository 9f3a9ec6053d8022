//! The dataflow from observations to devices, and the rules it applies.

pub mod blocks;
pub mod changes;
pub mod choose;
pub mod claim;
pub mod components;
pub mod dataflow;
pub mod decisions;
pub mod describe;
pub mod dictionary;
pub mod engine;
pub mod evidence;
pub mod facts;
pub mod fold;
pub mod identity;
pub mod issues;
pub mod join;
pub mod judge;
pub mod list;
pub mod macs;
pub mod normalise;
pub mod paged;
pub mod place;
pub mod record;
pub mod resolve;
pub mod restore;
pub mod rows;
pub mod rules;
pub mod snapshots;
pub mod sources;
pub mod sums;

/// Sorts what was noted, each thing once: a load notes millions, too many to keep sorted one by one.
pub(crate) fn sort_unique<T: Ord>(noted: &mut Vec<T>) {
    noted.sort_unstable();
    noted.dedup();
}
