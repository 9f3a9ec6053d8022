//! `explain missing`: every reason why something is not there.

use std::{collections::BTreeSet, sync::Arc};

use clap::Args;
use serde_json::{Value, json};
use serviceradar_log::LogStore;
use serviceradar_materializers::{
    explain::{NotWanted, Over, Standing, Trace, Wanted},
    views::{Frontier, Resume},
};
use serviceradar_replay::{
    lag::look,
    letters::{Letter, Scan, marks},
    topics::read_by,
};
use serviceradar_schemas::{excerpt, time};
use serviceradar_streams::rows::IssueRow;

use super::{Context, row, section, still};
use crate::{
    exit::Mistaken,
    log_store,
    output::{self, Format},
};

/// Dead letters that are told; the last ones.
const LETTERS_TOLD: usize = 20;

/// Says why something is not there
///
/// Every reason that applies: it has ended or expired; its record is attached elsewhere, or placed nowhere; the rules
/// refused it; it is in another partition; it is in a dead letter; events are not in the views yet; it was never seen.
/// Where it is there, the device is told.
#[derive(Debug, Args)]
pub(super) struct Missing {
    /// A claim (namespace:value, e.g. serial:acme:123 or armis/hq:7), an address or a MAC
    claim: String,
    /// The partition in which it is missing
    #[arg(long, value_name = "P", default_value = "default")]
    partition: String,
}

/// A reason: its word, and what to say.
struct Reason {
    word: &'static str,
    why: String,
    /// What it is made from, for programs.
    of: Value,
}

impl Missing {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let wanted = match Wanted::read(&self.claim) {
            Ok(wanted) => wanted,
            Err(error @ NotWanted::Unreadable(_)) => return Err(Mistaken(error.to_string()).into()),
            Err(error @ NotWanted::Dropped { .. }) => {
                let reason = Reason { word: "refused", why: error.to_string(), of: Value::Null };
                return self.tell(context.format, None, &[], &[reason]);
            }
        };
        let mut inventory = still(context).await?;
        let traces = inventory.traces(&wanted, &self.partition).await?;
        let standing = |trace: &Trace| trace.standing(&self.partition);
        let there: Vec<&Trace> = traces.iter().filter(|&trace| standing(trace) == Standing::There).collect();
        if !there.is_empty() {
            return self.tell(context.format, Some(&wanted), &there, &[]);
        }
        let mut reasons = Vec::new();
        let of = |wanted: Standing| traces.iter().filter(move |&trace| standing(trace) == wanted);
        reasons.extend(of(Standing::Over).map(over));
        reasons.extend(of(Standing::Elsewhere).map(elsewhere));
        reasons.extend(of(Standing::Refused).map(refused));
        let issues = inventory.issues(&wanted, &self.partition, &traces).await?;
        // Of what was dropped of a record the claim is none.
        reasons.extend(issues.iter().filter(|issue| issue.kind != "quality").map(issue));
        reasons.extend(of(Standing::OtherPartition).map(other_partition));
        let views = inventory.standing().await?;
        let mut is_lettered = false;
        if log_store::is_there(&context.config) {
            let log = log_store::reach(&context.config).await?;
            let tenant = &context.config.tenant;
            let lettered = lettered(log.clone(), tenant, &wanted.spellings(&self.claim)).await?;
            is_lettered = lettered.is_some();
            reasons.extend(lettered);
            reasons.extend(behind(&*log, tenant, &views).await?);
        }
        if traces.is_empty() && !is_lettered {
            let why = "no event that is in the views ever said it, in any partition".to_owned();
            reasons.push(Reason { word: "never_seen", why, of: Value::Null });
        }
        self.tell(context.format, Some(&wanted), &[], &reasons)
    }

    fn tell(
        &self,
        format: Format,
        wanted: Option<&Wanted>,
        there: &[&Trace],
        reasons: &[Reason],
    ) -> anyhow::Result<()> {
        let is_there = !there.is_empty();
        if format == Format::Json {
            let reason = |reason: &Reason| json!({"reason": reason.word, "why": reason.why, "of": reason.of});
            let told = json!({
                "claim": self.claim, "wanted": wanted, "partition": self.partition, "there": is_there,
                "devices": there, "reasons": reasons.iter().map(reason).collect::<Vec<_>>(),
            });
            return Ok(output::line(&told.to_string())?);
        }
        let Self { claim, partition } = self;
        if is_there {
            output::line(&format!("{claim} is there, in partition {partition}"))?;
            let rows = there.iter().map(|trace| {
                let uid = trace.uid.map(|uid| uid.to_string());
                let over = trace.over.map(in_words);
                row([
                    uid.into(),
                    trace.name.as_deref().into(),
                    trace.device_state.as_deref().into(),
                    Value::from(&*trace.record_key),
                    Value::from(&*trace.state),
                    over.into(),
                ])
            });
            let columns = ["device", "name", "is", "by the record", "the claim is", "over"];
            return section("Devices that have it", &columns, rows);
        }
        output::line(&format!("{claim} is not there, in partition {partition}"))?;
        let rows = reasons.iter().map(|reason| row([Value::from(reason.word), Value::from(&*reason.why)]));
        section("Why", &["reason", "why"], rows)
    }
}

fn in_words(over: Over) -> String {
    match over {
        Over::Ended { at } => format!("its source ended it at {}", time::format(at)),
        Over::NotListed { at } => {
            format!("the fetch of its source that began at {} did not list it", time::format(at))
        }
        Over::Unseen { at } => {
            format!("it was last seen at {}, longer ago than `record_ttl`", time::format(at))
        }
        Over::NotAsserted { at } => {
            format!("it goes on, and has not asserted this since {}", time::format(at))
        }
    }
}

/// The trace of a record as a reason.
fn reason(word: &'static str, trace: &Trace, why: String) -> Reason {
    let of = serde_json::to_value(trace).unwrap_or_default();
    Reason { word, why: format!("the record {} {why}", trace.record_key), of }
}

/// A device, as people know it.
fn device(trace: &Trace) -> String {
    match (trace.uid, &trace.name) {
        (Some(uid), Some(name)) => format!("{uid} ({name})"),
        (Some(uid), None) => uid.to_string(),
        (None, _) => "no device".to_owned(),
    }
}

fn over(trace: &Trace) -> Reason {
    let seen = format!("seen from {}", time::format(trace.first_seen));
    let until = trace.last_seen.map(|last| format!(" to {}", time::format(last))).unwrap_or_default();
    let why = trace.over.map_or_else(|| "it is over".to_owned(), in_words);
    reason("ended", trace, format!("said it, {seen}{until}: {why}"))
}

fn elsewhere(trace: &Trace) -> Reason {
    let does = does(&trace.state);
    let others = match trace.others.is_empty() {
        true => String::new(),
        false => format!("; else it has {}", trace.others.join(", ")),
    };
    let (word, how) = match &*trace.placement {
        "attached" => ("attached", format!("is with {}, which has its address", device(trace))),
        "provisional" => ("provisional", format!("is known by its address alone, as {}", device(trace))),
        _ => {
            ("unplaced", "is no device: nothing says whose it is, and it has no address to go by".to_owned())
        }
    };
    reason(word, trace, format!("{how}; the claim {does}{others}"))
}

fn refused(trace: &Trace) -> Reason {
    reason("refused", trace, format!("is {} by other claims; this one {}", device(trace), does(&trace.state)))
}

fn other_partition(trace: &Trace) -> Reason {
    let why = format!("is in partition {}: {}, {}", trace.partition, trace.placement, device(trace));
    reason("other_partition", trace, why)
}

/// What a claim does that has no device, in words.
fn does(state: &str) -> String {
    let why = match state {
        "corroborating" => "never links",
        "quarantined" => "is quarantined: the records that assert it name too many different devices",
        "generic" => "is generic: too many records have it",
        "ambiguous" => "is ambiguous: devices share it that cannot be one",
        "bridging" => "is bridging: its record names too many of a kind, or would join two devices",
        "blocked" => "was blocked by an operator: see `serviceradar decide revoke block`",
        "refused" => "was refused: it would have joined what must not be joined",
        other => return format!("is {other}"),
    };
    why.to_owned()
}

fn issue(issue: &IssueRow) -> Reason {
    let IssueRow { kind, namespace, value, detail, .. } = issue;
    let of = serde_json::to_value(issue).unwrap_or_default();
    Reason { word: "refused", why: format!("{kind}: {namespace}:{value}: {detail}"), of }
}

/// The dead letters that have one of these texts.
async fn lettered(
    log: Arc<dyn LogStore>,
    tenant: &str,
    spellings: &[String],
) -> anyhow::Result<Option<Reason>> {
    let marks = marks(log.clone(), tenant, None).await?;
    let mut scan = Scan::begin(log, tenant, None).await?;
    let (mut count, mut last) = (0_u64, BTreeSet::new());
    while let Some(letters) = scan.next_letters().await? {
        for letter in letters.iter().filter(|letter| letter.mentions(spellings)) {
            let Letter { id, at, reason, .. } = letter;
            count += 1;
            last.insert((*at, id.to_string(), excerpt(reason), marks.of(letter)));
            if last.len() > LETTERS_TOLD {
                last.pop_first();
            }
        }
    }
    let Some((at, id, why, replayed)) = last.last() else {
        return Ok(None);
    };
    let again = match replayed {
        Some(again) => format!(", and was published again at {}", time::format(*again)),
        None => String::new(),
    };
    let at = time::format(*at);
    let why = format!("{count} dead letters have it; the last, {id}, was refused at {at}{again}: {why}");
    let letter = |(at, id, reason, replayed): &(i64, String, String, Option<i64>)| {
        let replayed = replayed.map(time::format);
        json!({"id": id, "at": time::format(*at), "reason": reason, "replayed": replayed})
    };
    let of = json!({"letters": count, "last": last.iter().rev().map(letter).collect::<Vec<_>>()});
    Ok(Some(Reason { word: "dead_lettered", why, of }))
}

/// How many events are not in the views; nothing where all are.
async fn behind(log: &dyn LogStore, tenant: &str, views: &Resume) -> anyhow::Result<Option<Reason>> {
    let mut events = 0;
    for partition in read_by(log, tenant).await? {
        let frontier = Frontier::of(&views.frontiers, &partition.topic, partition.log_partition);
        events += look(log, &frontier).await?.lag_events();
    }
    let why = format!("{events} events are not yet in the views, and may say it: see `serviceradar status`");
    Ok((events > 0).then(|| Reason { word: "behind", why, of: json!({ "events": events }) }))
}
