//! Something of each device, where it is found by what the device is made of.

use hashbrown::HashMap;

use crate::{
    by_place::ByPlace,
    place::{AddressId, Device},
};

/// Of each device that has one, a `T`.
pub struct ByDevice<T> {
    clusters: ByPlace<Option<T>>,
    addresses: HashMap<AddressId, T>,
}

impl<T: Clone> Default for ByDevice<T> {
    fn default() -> Self {
        Self { clusters: ByPlace::default(), addresses: HashMap::new() }
    }
}

impl<T: Clone> ByDevice<T> {
    /// That of a device.
    pub fn get(&self, device: Device) -> Option<&T> {
        match device {
            Device::Cluster(cluster) => self.clusters[cluster].as_ref(),
            Device::Address(address) => self.addresses.get(&address),
        }
    }

    /// That of a device, to be changed.
    pub fn get_mut(&mut self, device: Device) -> Option<&mut T> {
        match device {
            Device::Cluster(cluster) => self.clusters[cluster].as_mut(),
            Device::Address(address) => self.addresses.get_mut(&address),
        }
    }

    /// That of a device, to be changed; made where there is none.
    pub fn slot(&mut self, device: Device) -> &mut T
    where
        T: Default,
    {
        match device {
            Device::Cluster(cluster) => self.clusters[cluster].get_or_insert_default(),
            Device::Address(address) => self.addresses.entry(address).or_default(),
        }
    }

    /// Puts one in the place of another, which is returned.
    pub fn insert(&mut self, device: Device, of: T) -> Option<T> {
        match device {
            Device::Cluster(cluster) => self.clusters[cluster].replace(of),
            Device::Address(address) => self.addresses.insert(address, of),
        }
    }

    /// Takes out that of a device.
    pub fn remove(&mut self, device: Device) -> Option<T> {
        match device {
            // A look first: a page is not made for what was never there.
            Device::Cluster(cluster) => {
                self.clusters[cluster].is_some().then(|| self.clusters[cluster].take())?
            }
            Device::Address(address) => self.addresses.remove(&address),
        }
    }

    /// All, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Device, &T)> {
        let clusters = self.clusters.iter();
        let clusters = clusters.filter_map(|(place, of)| Some((Device::Cluster(place), of.as_ref()?)));
        let addresses = self.addresses.iter();
        clusters.chain(addresses.map(|(address, of)| (Device::Address(*address), of)))
    }
}
