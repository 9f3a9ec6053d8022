//! What a mapper and a sweep see of the same machines.
//!
//! The mapper walks switches and routers. It knows most machines by some of their own MACs, and
//! the rules join these records with the devices that Armis knows. What it sees of a dock is a MAC
//! that several of them report: it links nothing, so the record goes by a MAC of the machine itself
//! if it was seen too, else with the device that has its address, or nowhere. An ARP table, taken for one machine, claims MACs of devices that
//! cannot be one: it is left out. The sweep knows addresses alone, and goes with who holds them.
//! Neither ever sees a machine that Armis does not know.

use std::net::IpAddr;

use serviceradar_schemas::{
    Action, Address, Claim, Collector, Coverage, Observation, Probe, Source, observation::CLAIMS_MAX,
};

use super::{
    PARTITION,
    armis::addresses,
    network::Network,
    population::{Population, mac_text},
};

/// Instance of the mapper.
pub(super) const MAPPER: &str = "m1";
/// Instance of the sweep.
pub(super) const SWEEP: &str = "k1";
/// Docks are seen in turn in so many ways.
const DOCK_WAYS: usize = 4;

/// The key of a record of one of the faker's sources.
pub(super) fn record_key(kind: &str, instance: &str, native_key: &str) -> String {
    format!("{PARTITION}/{kind}/{instance}/{native_key}")
}

/// A record of the mapper.
pub(super) struct Seen {
    pub(super) native_key: String,
    /// Whose it is, by index; `None` where nothing can tell.
    pub(super) device: Option<u32>,
    macs: Vec<u64>,
    address: Option<IpAddr>,
}

/// The other sources, looking at the network as it is.
pub(super) struct Others<'a> {
    population: &'a Population,
    network: &'a Network,
}

impl<'a> Others<'a> {
    pub(super) fn new(population: &'a Population, network: &'a Network) -> Self {
        Self { population, network }
    }

    /// The records of the mapper.
    pub(super) fn mapper(&self) -> impl Iterator<Item = Seen> {
        self.machines().chain(self.docks()).chain(self.arp_table())
    }

    fn machines(&self) -> impl Iterator<Item = Seen> {
        self.population.mapped.iter().enumerate().map(|(number, (device, macs))| Seen {
            native_key: format!("node-{number:06}"),
            device: Some(*device),
            // The last ones, so that not all of them are the first that Armis lists.
            macs: self.own_macs(*device).iter().rev().take(*macs).copied().collect(),
            address: self.first_address(*device),
        })
    }

    fn docks(&self) -> impl Iterator<Item = Seen> {
        self.population.docks.iter().enumerate().map(|(number, (mac, sharers))| {
            let native_key = format!("dock-{number:06}");
            let seen = Seen { native_key, device: None, macs: vec![*mac], address: None };
            match (number % DOCK_WAYS, sharers.first()) {
                // Alone.
                (0, _) | (_, None) => seen,
                // With the machine, which no address gives away.
                (1, Some(device)) => {
                    let macs = seen.macs.into_iter().chain(self.own_macs(*device).first().copied());
                    Seen { device: Some(*device), macs: macs.collect(), ..seen }
                }
                // At the machine's address.
                (_, Some(device)) => {
                    Seen { device: Some(*device), address: self.first_address(*device), ..seen }
                }
            }
        })
    }

    /// One MAC each of as many devices as an observation has room for, if there are two at all.
    fn arp_table(&self) -> Option<Seen> {
        let macs: Vec<u64> = (0..self.population.devices.len() as u32)
            .filter_map(|device| self.own_macs(device).first().copied())
            .take(CLAIMS_MAX)
            .collect();
        let native_key = "arp-000000".to_owned();
        (macs.len() > 1).then_some(Seen { native_key, device: None, macs, address: None })
    }

    fn own_macs(&self, device: u32) -> &'a [u64] {
        let device = &self.population.devices[device as usize];
        &device.macs[..device.own_macs]
    }

    fn first_address(&self, device: u32) -> Option<IpAddr> {
        addresses(self.population, self.network, device as usize).next()
    }

    /// The addresses that answer the sweep, and who holds each, by index.
    pub(super) fn sweep(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let mut holders = vec![0u32; self.population.pool.len()];
        for (device, slot) in self.network.slots.iter().enumerate() {
            let more = &self.population.devices[device].more_slots;
            for slot in std::iter::once(slot).chain(more) {
                holders[*slot as usize] = device as u32;
            }
        }
        let swept = self.population.swept.iter().map(|slot| *slot as usize);
        swept.map(move |slot| (self.population.pool[slot], holders[slot]))
    }

    /// What both publish when they look at `now`.
    pub(super) fn observations(&self, now: i64) -> impl Iterator<Item = Observation> {
        let mapped = self.mapper().map(move |seen| self.mapper_observation(now, seen));
        let swept = self.sweep().map(move |(address, _)| sweep_observation(now, address));
        mapped.chain(swept)
    }

    fn mapper_observation(&self, now: i64, seen: Seen) -> Observation {
        let claim = |mac: u64| Claim { namespace: "mac".into(), value: mac_text(mac).into() };
        let machine = seen.device.map(|device| &self.population.devices[device as usize]);
        Observation {
            native_key: seen.native_key,
            claims: seen.macs.into_iter().map(claim).collect(),
            hostname: machine.map(|device| device.name()),
            vendor: machine.map(|device| device.model().vendor.to_owned()),
            ..observation(now, "mapper", MAPPER, seen.address)
        }
    }
}

fn sweep_observation(now: i64, address: IpAddr) -> Observation {
    Observation {
        native_key: address.to_string(),
        probe: Probe::Up,
        ..observation(now, "sweep", SWEEP, Some(address))
    }
}

fn observation(now: i64, kind: &str, instance: &str, address: Option<IpAddr>) -> Observation {
    Observation {
        event_time: now,
        partition: PARTITION.to_owned(),
        source: Source { kind: kind.to_owned(), instance: instance.to_owned() },
        action: Action::Assert,
        coverage: Coverage::Full,
        addresses: address
            .map(|ip| Address { ip: ip.to_string(), ..Address::default() })
            .into_iter()
            .collect(),
        collector: Some(Collector { agent: instance.to_owned(), ..Collector::default() }),
        ..Observation::default()
    }
}
