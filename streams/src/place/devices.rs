//! The devices there are.

use hashbrown::HashMap;

use super::{AddressId, Device, Members};
use crate::by_place::ByPlace;

/// Devices, by what they are made of.
#[derive(Default)]
pub(super) struct Devices {
    clusters: ByPlace<Option<Members>>,
    addresses: HashMap<AddressId, Members>,
}

impl Devices {
    pub(super) fn get(&self, device: Device) -> Option<&Members> {
        match device {
            Device::Cluster(cluster) => self.clusters[cluster].as_ref(),
            Device::Address(address) => self.addresses.get(&address),
        }
    }

    /// A device, to be changed.
    pub(super) fn slot(&mut self, device: Device) -> &mut Members {
        match device {
            Device::Cluster(cluster) => self.clusters[cluster].get_or_insert_default(),
            Device::Address(address) => self.addresses.entry(address).or_default(),
        }
    }

    /// Forgets a device that has no members.
    pub(super) fn sweep(&mut self, device: Device) {
        if self.get(device).is_some_and(|members| members.records.is_empty()) {
            match device {
                Device::Cluster(cluster) => self.clusters[cluster] = None,
                Device::Address(address) => drop(self.addresses.remove(&address)),
            }
        }
    }

    /// All, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Device, &Members)> {
        let clusters = self.clusters.iter();
        let clusters = clusters.filter_map(|(place, of)| Some((Device::Cluster(place), of.as_ref()?)));
        let addresses = self.addresses.iter();
        clusters.chain(addresses.map(|(address, of)| (Device::Address(*address), of)))
    }
}
