//! The truth: which records are one device, for those who check what identity makes of them.

use std::collections::BTreeMap;

use super::{
    network::Network,
    others::{self, Others},
    population::Population,
};

/// Where a record belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belongs {
    /// To the device of this record of Armis, by its key.
    To(String),
    /// Its MACs cannot tell and it has no address: it is left out.
    CannotTell,
}

/// Per record key, where it belongs. There are as many devices as records of Armis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// By record key.
    pub records: BTreeMap<String, Belongs>,
    /// How many devices there are.
    pub devices: usize,
}

impl Truth {
    /// Where the record of this key belongs; `None` where the faker knows no such record.
    pub fn of(&self, record_key: &str) -> Option<&Belongs> {
        self.records.get(record_key)
    }
}

/// The truth at this moment.
pub(super) fn truth(population: &Population, network: &Network) -> Truth {
    let armis = |device: u32| Belongs::To(armis_key(population, device));
    let mut records: BTreeMap<String, Belongs> = (0..population.devices.len() as u32)
        .map(|device| (armis_key(population, device), armis(device)))
        .collect();
    let others = Others::new(population, network);
    for seen in others.mapper() {
        let belongs = seen.device.map_or(Belongs::CannotTell, armis);
        records.insert(others::record_key("mapper", others::MAPPER, &seen.native_key), belongs);
    }
    for (address, device) in others.sweep() {
        let key = others::record_key("sweep", others::SWEEP, &address.to_string());
        records.insert(key, armis(device));
    }
    Truth { records, devices: population.devices.len() }
}

fn armis_key(population: &Population, device: u32) -> String {
    let id = population.devices[device as usize].id;
    others::record_key("armis", super::INSTANCE, &id.to_string())
}
