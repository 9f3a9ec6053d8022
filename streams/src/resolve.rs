//! Resolve: what observations and decisions would become, with no log and no views.

use std::{collections::BTreeMap, sync::Arc};

use serviceradar_schemas::{Decision, Observation};

use crate::{
    decisions::{DecisionRefusal, Taken},
    engine::{Batch, Engine, EngineError},
    normalise::{Refusal, normalise},
    rows::{IssueRow, RecordRow, Uid},
    rules::Rules,
};

/// What they became.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Records, by key.
    pub records: Vec<RecordRow>,
    /// uid(claim) to the uid of its device.
    pub redirects: BTreeMap<Uid, Uid>,
    /// Issues, in order.
    pub issues: Vec<IssueRow>,
    /// Observations that were refused, and why.
    pub refused_observations: Vec<(String, Refusal)>,
    /// Decisions that were refused, and why.
    pub refused_decisions: Vec<(String, DecisionRefusal)>,
}

/// Resolves in one epoch. Event times are taken as they are, and stand for intake times; the snapshot
/// guard takes no part.
pub fn resolve(
    tenant: &str,
    observations: impl IntoIterator<Item = Observation>,
    decisions: impl IntoIterator<Item = Decision>,
    rules: Rules,
) -> Result<Outcome, EngineError> {
    let mut outcome = Outcome::default();
    let mut batch = Batch::default();
    for observation in observations {
        let id = observation.id.clone();
        match normalise(observation, None) {
            Ok(sighting) => batch.sightings.push(sighting),
            Err(refusal) => outcome.refused_observations.push((id, refusal)),
        }
    }
    for decision in decisions {
        let id = decision.id.clone();
        match Taken::read(decision, None) {
            Ok(taken) => batch.decisions.push(taken),
            Err(refusal) => outcome.refused_decisions.push((id, refusal)),
        }
    }
    let mut engine = Engine::start(tenant, &Arc::new(rules), 1)?;
    let output = engine.epoch(batch)?.output;
    let uids: BTreeMap<&str, Option<Uid>> =
        output.records.new.iter().map(|row| (&*row.record_key, row.uid)).collect();
    for row in output.evidence.new.iter().filter(|row| row.leads) {
        let device = uids.get(&*row.record_key).copied().flatten();
        if let (Some(claim), Some(device)) = (row.claim_uid, device) {
            outcome.redirects.insert(Uid(claim), device);
        }
    }
    outcome.records = output.records.new;
    outcome.records.sort_unstable_by(|a, b| a.record_key.cmp(&b.record_key));
    outcome.issues = output.issues.new;
    outcome.issues.sort_unstable();
    Ok(outcome)
}
