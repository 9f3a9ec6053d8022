//! The devices there are, made from a seed: the same seed and number give the same devices.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::catalogue::{DOCK_OUI, KINDS, Kind, LAPTOP, Model, SITES, TAGS, USERS};

/// Most devices: their addresses fit 10.0.0.0/8 and their MACs fit the vendors' ranges.
pub const DEVICES_MAX: usize = 500_000;
/// Armis id of the first device.
const ID_FIRST: u64 = 1_000;
/// One dock for so many devices.
const DEVICES_PER_DOCK: usize = 100;
/// Spreads counted MACs over a vendor's range; odd, so that no two of them meet.
const MAC_STRIDE: u32 = 0x9e_3779;
/// Seconds in a day.
const DAY_SECONDS: u32 = 86_400;
/// Seconds in an hour.
const HOUR_SECONDS: u32 = 3_600;

/// Stream of random numbers that the devices are drawn from; shuffles have the others.
const STREAM_DEVICES: u64 = 0;
/// Stream of random numbers that the choices of mapper and sweep are drawn from.
const STREAM_SEEN: u64 = u64::MAX;

/// Random numbers of one purpose; `stream` keeps purposes apart.
pub(super) fn random(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// A device, without what changes: its first address and when it was last seen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Device {
    /// Armis id.
    pub(super) id: u64,
    kind: u8,
    model: u8,
    version: u8,
    site: u8,
    /// Armis `riskLevel`, 1 to 10.
    pub(super) risk: u8,
    /// 48 bits each; its own first, then those of docks.
    pub(super) macs: Vec<u64>,
    /// How many of `macs` no other device has.
    pub(super) own_macs: usize,
    /// Slots of the pool that it has beside its first address, and keeps.
    pub(super) more_slots: Vec<u32>,
    /// Whether it is on the network now; what is not keeps its address and its last sighting.
    pub(super) online: bool,
    /// How long before the faker's beginning it was first seen, seconds.
    pub(super) first_seen_age: u32,
    /// How long before that it was last seen if it is not online, seconds.
    pub(super) last_seen_age: u32,
    /// When in the hour Armis hears of it if it is, seconds.
    pub(super) heard_at: u32,
    /// Random bits for what has no say in identity: tags, user, switch port.
    pub(super) bits: u64,
}

impl Device {
    pub(super) fn kind(&self) -> &'static Kind {
        &KINDS[usize::from(self.kind)]
    }

    pub(super) fn model(&self) -> &'static Model {
        &self.kind().models[usize::from(self.model)]
    }

    pub(super) fn os_version(&self) -> &'static str {
        self.model().versions[usize::from(self.version)]
    }

    /// Name and location.
    pub(super) fn site(&self) -> (&'static str, &'static str) {
        SITES[usize::from(self.site)]
    }

    pub(super) fn name(&self) -> String {
        format!("{}-{:06}", self.kind().prefix, self.id)
    }

    pub(super) fn user(&self) -> Option<&'static str> {
        self.kind().personal.then(|| USERS[self.bits as usize % USERS.len()])
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = &'static str> {
        let bits = self.bits >> 32;
        TAGS.iter().enumerate().filter(move |(i, _)| bits >> (2 * i) & 3 == 3).map(|(_, tag)| *tag)
    }
}

/// Writes a MAC as `AA:BB:CC:DD:EE:FF`, as Armis does.
pub(super) fn mac_text(mac: u64) -> String {
    let [_, _, a, b, c, d, e, f] = mac.to_be_bytes();
    format!("{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{f:02X}")
}

/// All devices, their addresses, and what the other sources get to see of them.
#[derive(Debug, PartialEq)]
pub(super) struct Population {
    /// In order of their ids.
    pub(super) devices: Vec<Device>,
    /// Every address there is. The first ones, as many as devices, are first addresses and move.
    pub(super) pool: Vec<IpAddr>,
    /// MAC of each dock and the devices (by index) that share it.
    pub(super) docks: Vec<(u64, Vec<u32>)>,
    /// Devices (by index) that the mapper saw by their own MACs, with how many of these.
    pub(super) mapped: Vec<(u32, usize)>,
    /// Slots of the pool that the sweep asks, all held by devices that are online.
    pub(super) swept: Vec<u32>,
}

impl Population {
    /// Makes `devices` devices from `seed`.
    pub(super) fn new(devices: usize, seed: u64) -> Self {
        let mut random_devices = random(seed, STREAM_DEVICES);
        let mut macs = Macs { salt: random_devices.random(), next: BTreeMap::new() };
        let mut all: Vec<Device> = (0..devices).map(|i| device(i, &mut macs, &mut random_devices)).collect();
        let docks = share_docks(&mut all, &mut macs, &mut random_devices);
        let pool = give_addresses(&mut all, &mut random_devices);
        let mut random_seen = random(seed, STREAM_SEEN);
        let mapped = choose_mapped(&all, &mut random_seen);
        let swept = choose_swept(&all, pool.len(), &mut random_seen);
        Self { devices: all, pool, docks, mapped, swept }
    }
}

/// Gives out MACs, never one twice.
struct Macs {
    salt: u32,
    next: BTreeMap<u32, u32>,
}

impl Macs {
    fn take(&mut self, oui: u32) -> u64 {
        let next = self.next.entry(oui).or_default();
        *next += 1;
        let low = next.wrapping_mul(MAC_STRIDE).wrapping_add(self.salt) & 0xff_ffff;
        u64::from(oui) << 24 | u64::from(low)
    }
}

fn device(index: usize, macs: &mut Macs, random: &mut ChaCha8Rng) -> Device {
    let kind = draw_kind(random.random_range(0..1000));
    let of = &KINDS[kind];
    let model = random.random_range(0..of.models.len());
    let (fewest, most) = of.macs;
    // The cube of a uniform number: few MACs are common, many are rare.
    let skewed = random.random::<f64>().powi(3);
    let count = fewest + (skewed * f64::from(most - fewest + 1)) as u32;
    let macs: Vec<u64> = (0..count).map(|_| macs.take(of.models[model].oui)).collect();
    let online = random.random_ratio(9, 10);
    let last_seen_age = random.random_range(DAY_SECONDS..60 * DAY_SECONDS);
    Device {
        id: ID_FIRST + index as u64,
        kind: kind as u8,
        model: model as u8,
        version: random.random_range(0..of.models[model].versions.len()) as u8,
        site: random.random_range(0..SITES.len()) as u8,
        risk: random.random_range(of.risk.0..=of.risk.1),
        own_macs: macs.len(),
        macs,
        more_slots: Vec::new(),
        online,
        first_seen_age: last_seen_age + random.random_range(0..700 * DAY_SECONDS),
        last_seen_age,
        heard_at: random.random_range(0..HOUR_SECONDS),
        bits: random.random(),
    }
}

fn draw_kind(mut of_a_thousand: u32) -> usize {
    for (i, kind) in KINDS.iter().enumerate() {
        match of_a_thousand.checked_sub(kind.per_mille) {
            Some(rest) => of_a_thousand = rest,
            None => return i,
        }
    }
    0
}

/// Two or three laptops to a dock, whose MAC all of them report.
fn share_docks(devices: &mut [Device], macs: &mut Macs, random: &mut ChaCha8Rng) -> Vec<(u64, Vec<u32>)> {
    let mut laptops: Vec<u32> = (0..devices.len() as u32)
        .filter(|i| devices[*i as usize].online && devices[*i as usize].kind().name == LAPTOP)
        .collect();
    laptops.shuffle(random);
    let mut docks = Vec::new();
    while docks.len() < devices.len() / DEVICES_PER_DOCK {
        let sharers = random.random_range(2..=3).min(laptops.len());
        if sharers < 2 {
            break;
        }
        let sharers = laptops.split_off(laptops.len() - sharers);
        let mac = macs.take(DOCK_OUI);
        for laptop in &sharers {
            devices[*laptop as usize].macs.push(mac);
        }
        docks.push((mac, sharers));
    }
    docks
}

/// One address each, in slots of the pool numbered as the devices are; more for some.
fn give_addresses(devices: &mut [Device], random: &mut ChaCha8Rng) -> Vec<IpAddr> {
    let mut pool: Vec<IpAddr> = (0..devices.len()).map(ipv4).collect();
    let mut next_ipv4 = devices.len();
    for device in devices {
        let (more_ipv4, ipv6) = match random.random_range(0..100) {
            0..6 => (1, 0),
            6..8 => (3, 0),
            8..11 => (0, 1),
            11..12 => (1, 1),
            _ => (0, 0),
        };
        for _ in 0..more_ipv4 {
            device.more_slots.push(pool.len() as u32);
            pool.push(ipv4(next_ipv4));
            next_ipv4 += 1;
        }
        for _ in 0..ipv6 {
            device.more_slots.push(pool.len() as u32);
            let low = device.id as u16;
            let high = (device.id >> 16) as u16;
            pool.push(Ipv6Addr::new(0xfd00, 0x5eed, 0, 0, 0, 0, high, low).into());
        }
    }
    pool
}

/// The address of a number, in 10.0.0.0/8, never ending in 0 or 255.
fn ipv4(number: usize) -> IpAddr {
    let (high, low) = (number / 254, number % 254);
    Ipv4Addr::new(10, (high >> 8) as u8, high as u8, low as u8 + 1).into()
}

/// A fifth of the devices, each by one to four of its own MACs.
fn choose_mapped(devices: &[Device], random: &mut ChaCha8Rng) -> Vec<(u32, usize)> {
    let mut online: Vec<u32> = (0..devices.len() as u32).filter(|i| devices[*i as usize].online).collect();
    online.shuffle(random);
    online.truncate(devices.len() / 5);
    online.sort_unstable();
    online.into_iter().map(|i| (i, random.random_range(1..=devices[i as usize].own_macs.min(4)))).collect()
}

/// Three tenths of the addresses. First addresses move among the devices that are online alone,
/// so what is held by one of them at the beginning always is.
fn choose_swept(devices: &[Device], pool: usize, random: &mut ChaCha8Rng) -> Vec<u32> {
    let mut slots: Vec<u32> = devices
        .iter()
        .enumerate()
        .filter(|(_, device)| device.online)
        .flat_map(|(i, device)| std::iter::once(i as u32).chain(device.more_slots.iter().copied()))
        .collect();
    slots.shuffle(random);
    slots.truncate(pool * 3 / 10);
    slots.sort_unstable();
    slots
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DEVICES: usize = 50_000;

    #[test]
    fn a_seed_gives_one_population_and_another_seed_another() {
        assert_eq!(Population::new(2_000, 7), Population::new(2_000, 7));
        assert_ne!(Population::new(2_000, 7).devices, Population::new(2_000, 8).devices);
    }

    #[test]
    fn macs_are_one_to_two_hundred_thirteen_on_average() {
        let devices = Population::new(DEVICES, 1).devices;
        let counts: Vec<usize> = devices.iter().map(|d| d.macs.len()).collect();
        let mean = counts.iter().sum::<usize>() as f64 / DEVICES as f64;
        assert!((12.5..=13.5).contains(&mean), "mean {mean}");
        assert_eq!(counts.iter().min(), Some(&1));
        assert_eq!(counts.iter().max(), Some(&200));
    }

    #[test]
    fn only_docks_are_shared() {
        let population = Population::new(DEVICES, 1);
        let mut owners = BTreeMap::<u64, Vec<u32>>::new();
        for (i, device) in population.devices.iter().enumerate() {
            for mac in &device.macs {
                owners.entry(*mac).or_default().push(i as u32);
            }
        }
        owners.retain(|_, owners| owners.len() > 1);
        let docks: BTreeMap<u64, Vec<u32>> = population
            .docks
            .iter()
            .map(|(mac, sharers)| {
                let mut sharers = sharers.clone();
                sharers.sort_unstable();
                (*mac, sharers)
            })
            .collect();
        assert_eq!(docks.len(), DEVICES / DEVICES_PER_DOCK);
        assert_eq!(owners, docks);
    }

    #[test]
    fn no_two_slots_are_one_address() {
        let population = Population::new(DEVICES_MAX / 10, 3);
        let distinct: BTreeSet<_> = population.pool.iter().collect();
        assert_eq!(distinct.len(), population.pool.len());
        assert!(population.pool.len() > population.devices.len());
    }

    #[test]
    fn the_others_see_their_parts() {
        let population = Population::new(DEVICES, 1);
        assert_eq!(population.mapped.len(), DEVICES / 5);
        assert_eq!(population.swept.len(), population.pool.len() * 3 / 10);
        assert!(population.mapped.iter().all(|(i, macs)| {
            let device = &population.devices[*i as usize];
            device.online && (1..=device.own_macs).contains(macs)
        }));
    }

    #[test]
    fn the_smallest_populations_are_made() {
        for devices in 0..20 {
            assert_eq!(Population::new(devices, 5).devices.len(), devices);
        }
    }
}
