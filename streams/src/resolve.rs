//! Resolve: what observations and decisions would become, with no log and no views.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashMap;
use serviceradar_schemas::{Decision, Observation};

use crate::{
    decisions::{DecisionRefusal, Taken},
    engine::{Engine, EngineError},
    normalise::{Refusal, normalise},
    rows::{IssueRow, Placement, Uid},
    rules::Rules,
};

/// What they became.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Records, by key.
    pub records: Vec<Placed>,
    /// uid(claim) to the uid of its device.
    pub redirects: BTreeMap<Uid, Uid>,
    /// Issues, in order.
    pub issues: Vec<IssueRow>,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// `partition/kind/instance/native key`.
    pub record_key: Arc<str>,
    /// Its place.
    pub placement: Placement,
    /// Its device.
    pub uid: Option<Uid>,
}

/// Takes in observations and decisions, in any order, as one epoch. Event times are taken as they are, and stand for
/// intake times; the snapshot guard takes no part.
pub struct Resolver {
    engine: Engine,
    decisions: Vec<Taken>,
}

impl Resolver {
    /// With nothing taken in.
    pub fn start(tenant: &str, rules: Rules) -> Result<Self, EngineError> {
        Ok(Self { engine: Engine::start(tenant, &Arc::new(rules), 1)?, decisions: Vec::new() })
    }

    /// Takes in observations; returns those that were refused, by their place among them, and why.
    pub fn observe(
        &mut self,
        observations: impl IntoIterator<Item = Observation>,
    ) -> Result<Vec<(usize, Refusal)>, EngineError> {
        let (mut sightings, mut refused) = (Vec::new(), Vec::new());
        for (at, observation) in observations.into_iter().enumerate() {
            match normalise(observation, None) {
                Ok(sighting) => sightings.push(sighting),
                Err(refusal) => refused.push((at, refusal)),
            }
        }
        self.engine.feed(sightings)?;
        Ok(refused)
    }

    /// Takes in a decision.
    pub fn decide(&mut self, decision: Decision) -> Result<(), DecisionRefusal> {
        self.decisions.push(Taken::read(decision, None)?);
        Ok(())
    }

    /// What all that was taken in becomes.
    pub fn outcome(mut self) -> Result<Outcome, EngineError> {
        self.engine.load(self.decisions)?;
        let (mut records, mut leads) = (Vec::new(), Vec::new());
        self.engine.rows(&mut |piece| {
            let placed = piece.records.new.into_iter().map(|row| Placed {
                record_key: row.record_key,
                placement: row.placement,
                uid: row.uid,
            });
            records.extend(placed);
            let led = piece.evidence.new.into_iter().filter(|row| row.leads);
            leads.extend(led.filter_map(|row| Some((row.claim_uid?, row.record_key))));
            true
        })?;
        let uids: HashMap<Arc<str>, Uid> =
            records.iter().filter_map(|row: &Placed| Some((row.record_key.clone(), row.uid?))).collect();
        let redirect = |(claim, record): (_, Arc<str>)| Some((Uid(claim), *uids.get(&record)?));
        let redirects = leads.into_iter().filter_map(redirect).collect();
        records.sort_unstable();
        Ok(Outcome { records, redirects, issues: self.engine.issues()? })
    }
}
