//! The snapshot guard: writes its verdicts on fetches as decisions. It judges by
//! `serviceradar_streams::snapshots::judge` and says each thing once.

use std::{collections::BTreeSet, sync::Arc};

use fail::fail_point;
use serviceradar_log::{LogError, LogStore, NewEvent, Publisher};
use serviceradar_schemas::{Decision, Framing, Target, encode_framed, topics::Stream};
use serviceradar_streams::{
    rules,
    snapshots::{Undecided, Verdict, judge},
};

/// The guard of one tenant.
pub struct Guard {
    decisions: Publisher,
    framing: Framing,
    rules: rules::Snapshots,
    /// Ids of verdicts that are in the log and not yet in the views.
    said: BTreeSet<String>,
}

impl Guard {
    /// A guard that writes to the tenant's decisions.
    pub fn new(log: Arc<dyn LogStore>, tenant: &str, framing: Framing, rules: rules::Snapshots) -> Self {
        let decisions = Publisher::new(log, Stream::Decisions.topic(tenant));
        Self { decisions, framing, rules, said: BTreeSet::new() }
    }

    /// Judges the fetches that wait; `now` is the intake time of the last TICK. Returns whether it wrote a verdict.
    pub async fn judge(&mut self, waiting: &[Undecided], now: Option<i64>) -> Result<bool, LogError> {
        let (mut events, mut ids) = (Vec::new(), Vec::new());
        for fetch in waiting {
            let Some(verdict) = judge(fetch, now, &self.rules) else {
                continue;
            };
            let decision = decision(fetch, verdict);
            if !self.said.contains(&decision.id) {
                tracing::info!(id = decision.id, reason = decision.reason, "the guard has judged a fetch");
                events.push(NewEvent {
                    key: Some(decision.key().into_bytes().into()),
                    value: Some(encode_framed(&decision, self.framing).into()),
                    headers: Vec::new(),
                });
                ids.push(decision.id);
            }
        }
        let has_judged = !events.is_empty();
        if has_judged {
            fail_point!("in-guard");
            self.decisions.publish(events).await?;
            self.said.extend(ids);
        }
        if waiting.is_empty() {
            self.said.clear();
        }
        Ok(has_judged)
    }
}

/// The decision that a verdict is: its time is the begin of the fetch, so that an operator's word,
/// whenever given, is the later one; and a hold outweighs an accept by its id.
fn decision(fetch: &Undecided, verdict: Verdict) -> Decision {
    let (action, reason) = match verdict {
        Verdict::Accept(reason) => ("accept_snapshot", reason),
        Verdict::Hold(reason) => ("hold_snapshot", reason),
    };
    let begin = serviceradar_schemas::time::format(fetch.begin);
    Decision {
        id: format!("guard/{action}/{}/{}/{begin}", fetch.partition, fetch.source),
        event_time: fetch.begin,
        partition: fetch.partition.clone(),
        action: action.to_owned(),
        target: Target { source: Some(fetch.source.clone()), begin: Some(fetch.begin), ..Target::default() },
        value: None,
        revokes: None,
        actor: "guard".to_owned(),
        reason,
    }
}
