//! The devices there are.

use std::net::IpAddr;

use hashbrown::HashMap;

use super::{Device, Members};
use crate::{by_place::ByPlace, dictionary::ScopeId};

/// Devices, by what they are made of.
#[derive(Default)]
pub(super) struct Devices {
    clusters: ByPlace<Option<Members>>,
    addresses: HashMap<(ScopeId, IpAddr), Members>,
}

impl Devices {
    pub(super) fn get(&self, device: Device) -> Option<&Members> {
        match device {
            Device::Cluster(cluster) => self.clusters[cluster].as_ref(),
            Device::Address(scope, ip) => self.addresses.get(&(scope, ip)),
        }
    }

    /// A device, to be changed.
    pub(super) fn slot(&mut self, device: Device) -> &mut Members {
        match device {
            Device::Cluster(cluster) => self.clusters[cluster].get_or_insert_default(),
            Device::Address(scope, ip) => self.addresses.entry((scope, ip)).or_default(),
        }
    }

    /// Forgets a device that has no members.
    pub(super) fn sweep(&mut self, device: Device) {
        if self.get(device).is_some_and(|members| members.records.is_empty()) {
            match device {
                Device::Cluster(cluster) => self.clusters[cluster] = None,
                Device::Address(scope, ip) => drop(self.addresses.remove(&(scope, ip))),
            }
        }
    }

    /// All, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Device, &Members)> {
        let clusters = self.clusters.iter();
        let clusters = clusters.filter_map(|(place, of)| Some((Device::Cluster(place), of.as_ref()?)));
        let addresses = self.addresses.iter();
        clusters.chain(addresses.map(|((scope, ip), of)| (Device::Address(*scope, *ip), of)))
    }
}
