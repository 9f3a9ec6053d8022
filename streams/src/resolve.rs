//! Resolve: what observations and decisions would become, with no log and no views.

use std::sync::Arc;

use serviceradar_schemas::Observation;

use crate::{
    decisions::Taken,
    engine::{Engine, EngineError},
    normalise::{Refusal, Sighting, normalise},
    rows::{IssueRow, Placement, Uid},
    rules::Rules,
};

/// What they became, besides records.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Of claims and addresses, in order.
    pub redirects: Vec<Redirect>,
    /// Issues, in order.
    pub issues: Vec<IssueRow>,
}

/// From the uid of a claim or address to that of the device where it leads.
pub type Redirect = (Uid, Uid);

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

    /// Makes an observation ready, which takes as long as to take it in.
    pub fn prepare(observation: Observation) -> Result<Sighting, Refusal> {
        normalise(observation, None)
    }

    /// Takes in what is ready, while the next is made so.
    pub fn observe(&mut self, sightings: Vec<Sighting>) -> Result<(), EngineError> {
        self.engine.feed(sightings)
    }

    /// Takes in decisions.
    pub fn decide(&mut self, decisions: Vec<Taken>) {
        self.decisions.extend(decisions);
    }

    /// What all that was taken in becomes. The records, by key, are told first, while the rest is found out.
    pub fn outcome<T>(&mut self, tell: impl FnOnce(Vec<Placed>) -> T) -> Result<(T, Outcome), EngineError> {
        self.engine.load(std::mem::take(&mut self.decisions))?;
        let (told, redirects) = self.engine.places(tell)?;
        Ok((told, Outcome { redirects, issues: self.engine.issues()? }))
    }
}
