//! Exclusive claims: how many there are, and how many devices hold one of each namespace. A device has one current value
//! of an exclusive namespace: where more claims come to fewer devices, some that are several were made one; where fewer
//! come to more, some that is one was torn apart.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use crate::{
    by_device::ByDevice,
    dictionary::{ClaimId, Dictionary, ScopeId},
    facts::Facts,
    fold::RecordChange,
    identity::Identity,
    place::Device,
    recurring::Recurring,
    sort_unique,
    spans::{ClaimSpan, Status},
};

/// What a scope has of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExclusiveCount {
    /// Claims of exclusive namespaces that some record asserts now.
    pub claims: u64,
    /// Of each exclusive namespace, the devices that hold a claim of it now: their sum.
    pub holders: u64,
}

/// An exclusive namespace in a scope.
type Held = (ScopeId, u32);

/// The counts, kept as epochs change them.
pub struct Exclusive {
    dictionary: Rc<RefCell<Dictionary>>,
    /// By claim, a bit: whether it was counted.
    counted: Vec<u64>,
    /// By device: what it holds, sorted.
    devices: ByDevice<Arc<[Held]>>,
    held: Recurring<[Held]>,
    counts: BTreeMap<ScopeId, ExclusiveCount>,
}

impl Exclusive {
    /// Of nothing.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>) -> Self {
        Self {
            dictionary,
            counted: Vec::new(),
            devices: ByDevice::default(),
            held: Recurring::default(),
            counts: BTreeMap::new(),
        }
    }

    /// By scope that ever had one.
    pub fn counts(&self) -> &BTreeMap<ScopeId, ExclusiveCount> {
        &self.counts
    }

    /// Takes in an epoch: changes of records, and devices that have other members. What was only seen again costs
    /// nothing.
    pub fn settle(&mut self, identity: &Identity, facts: &Facts, changes: &[RecordChange], moved: &[Device]) {
        let (mut claims, mut devices): (Vec<ClaimId>, Vec<Device>) = (Vec::new(), moved.to_vec());
        for (before, after) in changes {
            let old = before.as_ref().map_or(&[][..], |record| &record.claims);
            if std::ptr::eq(old, &*after.claims) {
                continue;
            }
            devices.extend(identity.placer.placed(after.id).device);
            let dictionary = self.dictionary.borrow();
            let spans = old.iter().chain(after.claims.iter());
            claims.extend(spans.filter_map(|span| held(span, &dictionary).map(|_| span.claim)));
        }
        sort_unique(&mut claims);
        sort_unique(&mut devices);
        claims.into_iter().for_each(|claim| self.count_claim(facts, claim));
        devices.into_iter().for_each(|device| self.count_device(identity, facts, device));
    }

    fn count_claim(&mut self, facts: &Facts, claim: ClaimId) {
        let asserts = |record: &u32| facts.span(*record, claim).is_some_and(is_current);
        let is_asserted = facts.claimants(claim).iter().any(asserts);
        let (word, bit) = (claim as usize / 64, 1 << (claim % 64));
        if self.counted.len() <= word {
            self.counted.resize(word + 1, 0);
        }
        if (self.counted[word] & bit != 0) == is_asserted {
            return;
        }
        self.counted[word] ^= bit;
        let scope = self.dictionary.borrow().class_of(claim).scope;
        let claims = &mut self.counts.entry(scope).or_default().claims;
        *claims = if is_asserted { *claims + 1 } else { *claims - 1 };
    }

    fn count_device(&mut self, identity: &Identity, facts: &Facts, device: Device) {
        let mut now: Vec<Held> = Vec::new();
        {
            let dictionary = self.dictionary.borrow();
            let records = identity.placer.members(device).into_iter().flat_map(|of| of.records.iter());
            for record in records.filter_map(|record| facts.record(*record)) {
                let current = record.claims.iter().filter(|span| is_current(span));
                now.extend(current.filter_map(|span| held(span, &dictionary)));
            }
        }
        sort_unique(&mut now);
        let before = match now.is_empty() {
            true => self.devices.remove(device),
            false => self.devices.insert(device, self.held.share(&now)),
        };
        for (scope, _) in before.iter().flat_map(|held| held.iter()) {
            self.counts.entry(*scope).or_default().holders -= 1;
        }
        for (scope, _) in now {
            self.counts.entry(scope).or_default().holders += 1;
        }
    }
}

fn is_current(span: &ClaimSpan) -> bool {
    span.status == Status::Current
}

/// The exclusive namespace of a claim; none where it is of no such.
fn held(span: &ClaimSpan, dictionary: &Dictionary) -> Option<Held> {
    let class = dictionary.class_of(span.claim);
    class.kind.is_exclusive().then_some((class.scope, class.namespace))
}
