//! Attach: where the visitors of an address go. Source: `identity.md`, 7.

use std::{cmp::Ordering, hash::BuildHasher, net::IpAddr};

use hashbrown::DefaultHashBuilder;

use super::{Context, Device, Lead, PlaceChanges, Placed, Placer, claims_of};
use crate::{
    dictionary::{ClaimId, RecordId, ScopeId},
    few::Few,
    labels::Labels,
    record::Record,
    rows::Placement,
    spans::AddressSpan,
};

/// An address that a record had.
pub type AddressId = u32;

struct Address {
    scope: ScopeId,
    ip: IpAddr,
    /// Open records that have it currently.
    there: Few,
}

/// Which records have an address.
#[derive(Default)]
pub(super) struct Addresses {
    hasher: DefaultHashBuilder,
    ids: Labels,
    entries: Vec<Address>,
}

impl Addresses {
    pub(super) fn find(&self, scope: ScopeId, ip: IpAddr) -> Option<AddressId> {
        self.ids.find(self.hasher.hash_one((scope, ip)), |id| self.place(id) == (scope, ip))
    }

    pub(super) fn place(&self, address: AddressId) -> (ScopeId, IpAddr) {
        let entry = &self.entries[address as usize];
        (entry.scope, entry.ip)
    }

    fn enter(&mut self, scope: ScopeId, ip: IpAddr) -> AddressId {
        self.find(scope, ip).unwrap_or_else(|| {
            let id = self.entries.len() as AddressId;
            self.entries.push(Address { scope, ip, there: Few::NONE });
            self.ids.insert(self.hasher.hash_one((scope, ip)), id);
            id
        })
    }

    /// Takes in which addresses a record had and has, both sorted, and notes those it has or had currently.
    pub(super) fn take(
        &mut self,
        scope: ScopeId,
        record: RecordId,
        old: &[AddressSpan],
        new: &[AddressSpan],
        noted: &mut Vec<AddressId>,
    ) {
        let lacks = |spans: &[AddressSpan], ip: IpAddr| {
            let found = spans.binary_search_by_key(&ip, |span| span.ip);
            !found.is_ok_and(|at| spans[at].current)
        };
        for span in old.iter().filter(|span| span.current && lacks(new, span.ip)) {
            let id = self.enter(scope, span.ip);
            self.entries[id as usize].there.retain(|other| *other != record);
            noted.push(id);
        }
        for span in new.iter().filter(|span| span.current) {
            let id = self.enter(scope, span.ip);
            if lacks(old, span.ip) {
                self.entries[id as usize].there.push(record);
            }
            // A sighting moves leases even where nothing else changed.
            noted.push(id);
        }
    }
}

impl Placer {
    /// Finds where the visitors of an address go.
    pub(super) fn attach(
        &mut self,
        context: &Context<'_>,
        address: AddressId,
        claims: &mut Vec<ClaimId>,
        out: &mut PlaceChanges,
    ) {
        let Address { scope, ip, ref there } = self.addresses.entries[address as usize];
        let mut visitors: Vec<(i64, RecordId)> = Vec::new();
        let mut holders: Vec<(i64, RecordId, Device)> = Vec::new();
        for id in there.iter() {
            let Some(record) = context.facts().record(*id) else {
                continue;
            };
            let placed = self.placed(*id);
            match (placed.placement, placed.device, record.place_now()) {
                (Placement::Anchored, Some(device), _) => {
                    if let Some(seen) = seen_at(record, ip) {
                        holders.push((seen, *id, device));
                    }
                }
                (_, _, Some((place, seen))) if place == ip => visitors.push((seen, *id)),
                _ => {}
            }
        }
        let lead = if visitors.is_empty() {
            None
        } else {
            let seen = visitors.iter().map(|(seen, _)| *seen).max().unwrap_or(i64::MIN);
            let device = self.holder(ip, seen, &holders);
            let placed = match device {
                Some(device) => Placed { placement: Placement::Attached, device: Some(device) },
                None => Placed { placement: Placement::Provisional, device: Some(Device::Address(address)) },
            };
            let mut moves: Vec<(RecordId, Placed)> =
                visitors.iter().map(|(_, record)| (*record, placed)).collect();
            moves.retain(|(record, placed)| self.placed(*record) != *placed);
            moves.sort_unstable_by_key(|(record, _)| *record);
            moves.iter().for_each(|(record, _)| claims_of(context, *record, claims));
            self.put(&moves, out);
            let dictionary = self.dictionary.borrow();
            let record = visitors.iter().map(|(_, record)| *record);
            let record = record.min_by_key(|record| dictionary.key(*record));
            record.zip(placed.device).map(|(record, device)| Lead { device, record })
        };
        let before = self.leads.get(&address).copied();
        let device = Device::Address(address);
        if let Some(lead) = lead
            && lead.device == device
        {
            let uid = self.dictionary.borrow().address_uid(scope, ip);
            self.devices.slot(device).uid = Some(uid);
        }
        if before != lead {
            out.leads.extend(before.iter().chain(&lead).map(|lead| lead.record));
            match lead {
                Some(lead) => self.leads.insert(address, lead),
                None => self.leads.remove(&address),
            };
        }
    }

    /// The device that has an address at a time: its last holder within the lease, else its only one
    /// within the lease of a fixed address.
    fn holder(&self, ip: IpAddr, seen: i64, holders: &[(i64, RecordId, Device)]) -> Option<Device> {
        let dictionary = self.dictionary.borrow();
        let near = |lease: i64| holders.iter().filter(move |(at, _, _)| at.abs_diff(seen) <= lease as u64);
        let latest = near(self.leases.of(ip)).max_by(|a, b| -> Ordering {
            let key = |record: RecordId| dictionary.key(record);
            a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1)))
        });
        if let Some((_, _, device)) = latest {
            return Some(*device);
        }
        let (_, _, device) = holders.first()?;
        let sole = holders.iter().all(|(_, _, other)| other == device);
        (sole && near(self.leases.sole_holder()).next().is_some()).then_some(*device)
    }
}

fn seen_at(record: &Record, ip: IpAddr) -> Option<i64> {
    let index = record.addresses.binary_search_by_key(&ip, |span| span.ip).ok()?;
    let span = record.addresses.get(index)?;
    span.current.then(|| record.asserted(span).1)
}
