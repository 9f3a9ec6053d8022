//! Step 3, MAC edges: each MAC judged by the cores that claim it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    cores::Cores,
    decide::InForce,
    fold::Record,
    judge::{Links, Standing},
    normalise::Claim,
};

/// The MAC edges that survive the judgement.
#[derive(Default)]
pub(super) struct Edges {
    /// Edges (record, MAC) of allowed MACs, which nothing judges.
    pub(super) allowed: BTreeSet<(String, Claim)>,
    /// Edges (record, MAC) of records in cores and of MAC-only records.
    pub(super) judged: BTreeMap<(String, Claim), Standing>,
    /// MACs that link nothing, for two that clash claim them currently.
    pub(super) ambiguous: BTreeSet<Claim>,
    /// MAC-only records that speak of two that clash.
    pub(super) left_out: BTreeSet<String>,
}

/// How a core claims a MAC: currently, if one of its records does.
type OfCores = BTreeMap<Claim, BTreeMap<String, Standing>>;

impl Edges {
    pub(super) fn new(
        records: &BTreeMap<String, Record>,
        links: &Links,
        cores: &Cores,
        decisions: &InForce,
    ) -> Self {
        let mut edges = Self::default();
        let mut of_cores = OfCores::new();
        for (record, mac, standing) in mac_edges(links) {
            if decisions.allowed.contains(mac) {
                edges.allowed.insert((record.clone(), mac.clone()));
                continue;
            }
            edges.judged.insert((record.clone(), mac.clone()), standing);
            if let Some(core) = cores.of.get(record) {
                let held = of_cores.entry(mac.clone()).or_default().entry(core.clone());
                let held = held.or_insert(standing);
                *held = (*held).max(standing);
            }
        }
        edges.drop_ambiguous(&mut of_cores, cores);
        drop_lapsed_that_clash(&mut of_cores, cores);
        edges.leave_out(&of_cores, cores);
        let loose = edges.loose_claims(cores);
        drop_of_the_gone(&mut of_cores, records, cores, &loose);
        edges.judged.retain(|(record, mac), _| {
            let survives = |core| of_cores.get(mac).is_some_and(|by| by.contains_key(core));
            cores.of.get(record).map_or(!edges.left_out.contains(record), survives)
        });
        edges
    }

    fn drop_ambiguous(&mut self, of_cores: &mut OfCores, cores: &Cores) {
        of_cores.retain(|mac, by| {
            let current = || by.iter().filter(|(_, s)| **s == Standing::Current).map(|(c, _)| c);
            let ambiguous = current().any(|a| current().any(|b| cores.clash(a, b)));
            if ambiguous {
                self.ambiguous.insert(mac.clone());
            }
            !ambiguous
        });
        self.judged.retain(|(_, mac), _| !self.ambiguous.contains(mac));
    }

    /// Leaves out the MAC-only records that currently claim MACs of two cores that clash.
    fn leave_out(&mut self, of_cores: &OfCores, cores: &Cores) {
        for (record, macs) in self.loose_claims(cores) {
            let claimers = macs.iter().filter_map(|mac| of_cores.get(mac)).flatten();
            let claimers: BTreeSet<&String> =
                claimers.filter(|(_, s)| **s == Standing::Current).map(|(core, _)| core).collect();
            if claimers.iter().any(|a| claimers.iter().any(|b| cores.clash(a, b))) {
                self.left_out.insert(record);
            }
        }
    }

    /// The MACs that each MAC-only record currently claims.
    fn loose_claims(&self, cores: &Cores) -> BTreeMap<String, BTreeSet<Claim>> {
        let mut claims: BTreeMap<String, BTreeSet<Claim>> = BTreeMap::new();
        for ((record, mac), standing) in &self.judged {
            if !cores.of.contains_key(record) && *standing == Standing::Current {
                claims.entry(record.clone()).or_default().insert(mac.clone());
            }
        }
        claims
    }
}

fn mac_edges(links: &Links) -> impl Iterator<Item = (&String, &Claim, Standing)> {
    links.iter().flat_map(|(record, claims)| {
        let macs = claims.iter().filter(|(claim, _)| claim.0 == "mac");
        macs.map(move |(mac, standing)| (record, mac, *standing))
    })
}

/// The lapsed edges of cores that clash with another core that claims the MAC fall.
fn drop_lapsed_that_clash(of_cores: &mut OfCores, cores: &Cores) {
    for by in of_cores.values_mut() {
        let claimers: Vec<String> = by.keys().cloned().collect();
        by.retain(|core, standing| {
            *standing == Standing::Current || !claimers.iter().any(|c| cores.clash(core, c))
        });
    }
}

/// A core without an open record keeps its MAC edges only if one other core or MAC-only record
/// currently claims all the MACs that are left to it: it was re-created there.
fn drop_of_the_gone(
    of_cores: &mut OfCores,
    records: &BTreeMap<String, Record>,
    cores: &Cores,
    loose: &BTreeMap<String, BTreeSet<Claim>>,
) {
    let is_gone = |core: &&String| !cores.members(core).any(|record| records[record].open);
    let gone: Vec<&String> = cores.all().filter(is_gone).collect();
    let judged = of_cores.clone();
    for core in gone {
        let left: BTreeSet<&Claim> =
            judged.iter().filter(|(_, by)| by.contains_key(core)).map(|(mac, _)| mac).collect();
        let claims_all =
            |other: &String| left.iter().all(|mac| judged[*mac].get(other) == Some(&Standing::Current));
        let by_core = cores.all().any(|other| other != core && claims_all(other));
        let by_loose = loose.values().any(|macs| left.iter().all(|mac| macs.contains(*mac)));
        if !by_core && !by_loose {
            of_cores.values_mut().for_each(|by| _ = by.remove(core));
        }
    }
}
