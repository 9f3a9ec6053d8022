//! `decide`: an operator says what evidence cannot.

use std::sync::Arc;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::Value;
use serviceradar_log::{LogStore, NewEvent, Publisher};
use serviceradar_schemas::{
    Claim, Decision, Source, Target, encode_framed,
    time::{self, Clock, SystemClock},
    topics::Stream,
};
use serviceradar_streams::decisions::Taken;

use super::{Context, topics};
use crate::{log_store, output, registry};

/// Publishes a decision: what evidence cannot say
///
/// It holds for all history, until another outweighs it: of one action and target the latest counts. `revoke` makes one
/// as if it had never been.
#[derive(Debug, Args)]
pub(crate) struct Decide {
    #[command(subcommand)]
    verb: Verb,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT", global = true)]
    reason: Option<String>,
    /// Who decides [default: who is logged in]
    #[arg(long, value_name = "NAME", global = true)]
    actor: Option<String>,
    /// The partition it holds in
    #[arg(long, value_name = "P", global = true, default_value = "default")]
    partition: String,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Do(Act),
    /// Makes an action as if it had never been decided
    Revoke {
        #[command(subcommand)]
        act: Act,
    },
}

#[derive(Debug, Subcommand)]
enum Act {
    /// The claim links nothing
    Block {
        /// namespace:value, e.g. mac:00:1b:21:00:00:01 or serial:acme:123
        #[arg(value_parser = claim)]
        claim: Claim,
    },
    /// The claim is never generic, quarantined or ambiguous; an allowed MAC joins all that claim it
    Allow {
        /// namespace:value
        #[arg(value_parser = claim)]
        claim: Claim,
    },
    /// The devices that two claims of tier 1 name are one
    Link {
        /// namespace:value, e.g. armis/hq:7
        #[arg(value_parser = claim)]
        claim: Claim,
        /// namespace:value, e.g. netbox/prod:9
        #[arg(value_parser = claim)]
        other: Claim,
    },
    /// None of the record's claims links: it is a device of its own
    Detach {
        /// partition/kind/instance/native key
        record: String,
    },
    /// The claim names its device
    PinUid {
        /// namespace:value
        #[arg(value_parser = claim)]
        claim: Claim,
    },
    /// The value that the device of a claim shows
    PinValue {
        /// namespace:value
        #[arg(value_parser = claim)]
        claim: Claim,
        /// The attribute, e.g. name
        attribute: String,
        /// The value; not of a revocation
        value: Option<String>,
    },
    /// The fetch ends what it did not list
    AcceptSnapshot {
        #[command(flatten)]
        fetch: Fetch,
    },
    /// The fetch ends nothing
    HoldSnapshot {
        #[command(flatten)]
        fetch: Fetch,
    },
}

#[derive(Debug, Args)]
struct Fetch {
    /// kind/instance, e.g. armis/hq
    #[arg(value_parser = source)]
    source: Source,
    /// When it began, as `status` shows it: RFC 3339
    #[arg(value_parser = instant)]
    begin: i64,
}

fn claim(text: &str) -> Result<Claim, String> {
    let (namespace, value) =
        text.split_once(':').ok_or("give namespace:value, e.g. mac:00:1b:21:00:00:01")?;
    Ok(Claim { namespace: namespace.into(), value: value.into() })
}

/// A source by its text, kind/instance.
pub(crate) fn source(text: &str) -> Result<Source, String> {
    let (kind, instance) = text.split_once('/').ok_or("give kind/instance, e.g. armis/hq")?;
    Ok(Source { kind: kind.to_owned(), instance: instance.to_owned() })
}

fn instant(text: &str) -> Result<i64, String> {
    time::parse(text).ok_or_else(|| "give an instant such as 2026-03-01T00:00:00Z".to_owned())
}

impl Act {
    /// The action's name, what it is about, and its value.
    fn parts(self) -> (&'static str, Target, Option<String>) {
        let of_claim = |claim| Target { claim: Some(claim), ..Target::default() };
        let of_fetch = |fetch: Fetch| Target {
            source: Some(fetch.source),
            begin: Some(fetch.begin),
            ..Target::default()
        };
        match self {
            Self::Block { claim } => ("block", of_claim(claim), None),
            Self::Allow { claim } => ("allow", of_claim(claim), None),
            Self::Link { claim, other } => {
                ("link", Target { claims: Some(vec![claim, other]), ..Target::default() }, None)
            }
            Self::Detach { record } => ("detach", Target { record: Some(record), ..Target::default() }, None),
            Self::PinUid { claim } => ("pin_uid", of_claim(claim), None),
            Self::PinValue { claim, attribute, value } => {
                ("pin_value", Target { attribute: Some(attribute), ..of_claim(claim) }, value)
            }
            Self::AcceptSnapshot { fetch } => ("accept_snapshot", of_fetch(fetch), None),
            Self::HoldSnapshot { fetch } => ("hold_snapshot", of_fetch(fetch), None),
        }
    }
}

impl Decide {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Some(reason) = self.reason.filter(|reason| !reason.trim().is_empty()) else {
            bail!("a decision needs a reason, for whoever asks later: give --reason");
        };
        let (act, is_revoked) = match self.verb {
            Verb::Do(act) => (act, false),
            Verb::Revoke { act } => (act, true),
        };
        let (action, target, value) = act.parts();
        if action == "pin_value" && value.is_none() != is_revoked {
            bail!("pin-value needs a value, and a revocation of it none");
        }
        let mut decision = decision(&self.partition, action, target, value, &reason);
        if is_revoked {
            decision.revokes = Some(std::mem::replace(&mut decision.action, "revoke".to_owned()));
        }
        if let Some(actor) = self.actor {
            decision.actor = actor;
        }
        Taken::read(decision.clone(), None)?;
        let config = &context.config;
        let log = log_store::reach(config).await?;
        topics::create(log.as_ref(), config).await?;
        publish(context, log, vec![decision]).await
    }
}

/// The name of whoever is logged in.
pub(crate) fn actor() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    user.map_or_else(|| "operator".to_owned(), |user| user.name)
}

/// A decision of whoever is logged in, now.
pub(crate) fn decision(
    partition: &str,
    action: &str,
    target: Target,
    value: Option<String>,
    reason: &str,
) -> Decision {
    Decision {
        id: format!("operator/{:032x}", rand::random::<u128>()),
        event_time: SystemClock.now(),
        partition: partition.to_owned(),
        action: action.to_owned(),
        target,
        value,
        revokes: None,
        actor: actor(),
        reason: reason.to_owned(),
    }
}

/// Publishes decisions, and says so.
pub(crate) async fn publish(
    context: &Context,
    log: Arc<dyn LogStore>,
    decisions: Vec<Decision>,
) -> anyhow::Result<()> {
    let config = &context.config;
    let framing = registry::register(config).await?.framings.decisions;
    let event = |decision: &Decision| NewEvent {
        key: Some(decision.key().into_bytes().into()),
        value: Some(encode_framed(decision, framing).into()),
        headers: Vec::new(),
    };
    let events = decisions.iter().map(event).collect();
    Publisher::new(log, Stream::Decisions.topic(&config.tenant)).publish(events).await?;
    let row = |decision: Decision| {
        let Decision { id, action, revokes, partition, target, actor, .. } = decision;
        let target = Value::from(target.to_string());
        vec![id.into(), action.into(), revokes.into(), partition.into(), target, actor.into()]
    };
    let rows: Vec<_> = decisions.into_iter().map(row).collect();
    let columns = ["decision", "action", "revokes", "partition", "target", "actor"];
    Ok(output::rows(context.format, &columns, &rows)?)
}
