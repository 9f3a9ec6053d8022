//! What changes: who holds which address, and when each device was last seen.

use rand::{RngExt, seq::SliceRandom};
use serde::{Deserialize, Serialize};
use serviceradar_schemas::time::{HOUR, SECOND};

use super::population::{Population, random};

/// One shuffle moves one device in so many.
const DEVICES_PER_MOVE: usize = 20;

/// The pool of addresses is no longer what it was: an address was lost, or given twice.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the pool of {slots} first addresses is not closed: device {device} holds slot {slot}, which \
     another holds or which is none; delete the faker's state to begin anew"
)]
pub struct PoolNotClosed {
    /// How many first addresses there are.
    pub slots: usize,
    /// The device, by index.
    pub device: usize,
    /// What it holds.
    pub slot: u32,
}

/// The present state of the network. All of it is kept across restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    /// When it began, microseconds since the Unix epoch; the ages of devices count from here.
    pub(super) origin: i64,
    /// When Armis last looked: at each start and shuffle.
    pub(super) as_of: i64,
    /// Shuffles done.
    pub(super) shuffles: u64,
    /// Per device, the slot of its first address.
    pub(super) slots: Vec<u32>,
    /// Per device, when its first address last changed; 0 is never.
    pub(super) moved_at: Vec<i64>,
}

impl Network {
    /// Every device with the address it was made with.
    pub(super) fn new(devices: usize, now: i64) -> Self {
        Self {
            origin: now,
            as_of: now,
            shuffles: 0,
            slots: (0..devices as u32).collect(),
            moved_at: vec![0; devices],
        }
    }

    /// Some of the devices that are online swap their first addresses among themselves.
    pub(super) fn shuffle(
        &mut self,
        population: &Population,
        seed: u64,
        now: i64,
    ) -> Result<(), PoolNotClosed> {
        self.shuffles += 1;
        self.as_of = self.as_of.max(now);
        let mut random = random(seed, self.shuffles);
        let mut movers: Vec<usize> =
            (0..self.slots.len()).filter(|i| population.devices[*i].online).collect();
        let count = (self.slots.len() / DEVICES_PER_MOVE).max(2).min(movers.len());
        let (movers, _) = movers.partial_shuffle(&mut random, count);
        // A turn of the whole round by any step but a full one moves everybody.
        if movers.len() > 1 {
            let turn = random.random_range(1..movers.len());
            let held: Vec<u32> = movers.iter().map(|i| self.slots[*i]).collect();
            for (place, device) in movers.iter().enumerate() {
                self.slots[*device] = held[(place + turn) % held.len()];
                self.moved_at[*device] = self.as_of;
            }
        }
        self.check()
    }

    /// Each first address is held by one device.
    pub(super) fn check(&self) -> Result<(), PoolNotClosed> {
        let slots = self.slots.len();
        let mut held = vec![false; slots];
        for (device, slot) in self.slots.iter().enumerate() {
            match held.get_mut(*slot as usize) {
                Some(held) if !*held => *held = true,
                _ => {
                    return Err(PoolNotClosed { slots, device, slot: *slot });
                }
            }
        }
        Ok(())
    }

    /// When a device was first seen, microseconds since the Unix epoch.
    pub(super) fn first_seen(&self, population: &Population, device: usize) -> i64 {
        self.origin - i64::from(population.devices[device].first_seen_age) * SECOND
    }

    /// When Armis last saw a device: once an hour while it is online, and when its address changed.
    pub(super) fn last_seen(&self, population: &Population, device: usize) -> i64 {
        let of = &population.devices[device];
        if !of.online {
            return self.origin - i64::from(of.last_seen_age) * SECOND;
        }
        let heard_at = i64::from(of.heard_at) * SECOND;
        let heard = self.as_of - (self.as_of - heard_at).rem_euclid(HOUR);
        heard.max(self.moved_at[device])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serviceradar_schemas::time::MINUTE;

    use super::*;

    const NOW: i64 = 1_700_000_000 * SECOND;

    #[test]
    fn a_hundred_shuffles_leave_the_pool_closed() {
        let population = Population::new(3_000, 4);
        let mut network = Network::new(3_000, NOW);
        let pool: BTreeSet<u32> = network.slots.iter().copied().collect();
        for minute in 1..=100 {
            network.shuffle(&population, 4, NOW + minute * MINUTE).unwrap();
            assert_eq!(network.slots.iter().copied().collect::<BTreeSet<u32>>(), pool);
        }
    }

    #[test]
    fn a_shuffle_moves_five_in_a_hundred_and_only_those_online() {
        let population = Population::new(3_000, 4);
        let before = Network::new(3_000, NOW);
        let mut after = before.clone();
        after.shuffle(&population, 4, NOW + MINUTE).unwrap();
        let moved: Vec<usize> = (0..3_000).filter(|i| before.slots[*i] != after.slots[*i]).collect();
        assert_eq!(moved.len(), 150);
        for device in moved {
            assert!(population.devices[device].online);
            assert_eq!(after.last_seen(&population, device), NOW + MINUTE);
        }
    }

    #[test]
    fn an_address_given_twice_is_found() {
        let mut network = Network::new(10, NOW);
        network.slots[3] = 7;
        assert_eq!(network.check(), Err(PoolNotClosed { slots: 10, device: 7, slot: 7 }));
        network.slots[3] = 10;
        assert_eq!(network.check(), Err(PoolNotClosed { slots: 10, device: 3, slot: 10 }));
    }

    #[test]
    fn last_seen_never_falls_and_is_fresh_for_those_online() {
        let population = Population::new(500, 4);
        let mut network = Network::new(500, NOW);
        let mut before: Vec<i64> = (0..500).map(|i| network.last_seen(&population, i)).collect();
        for shuffle in 1..=30 {
            network.shuffle(&population, 4, NOW + shuffle * 7 * MINUTE).unwrap();
            for (i, before) in before.iter_mut().enumerate() {
                let after = network.last_seen(&population, i);
                assert!(*before <= after && after <= network.as_of);
                assert!(network.first_seen(&population, i) <= after);
                assert!(!population.devices[i].online || network.as_of - after < HOUR);
                *before = after;
            }
        }
    }
}
