//! `explain`: why these records are one device, why those devices are not, and why a device shows what it shows; why there
//! are as many as there are, and why something is not there.

mod count;
mod missing;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use serviceradar_materializers::{
    explain::{Found, Happened},
    inventory::Inventory,
};
use serviceradar_schemas::time;
use serviceradar_streams::{
    explain::{
        self, AttributeTold, Comparison, Explanation, Head, Known, SpanTold, attribute, compare, names,
    },
    rows::Uid,
    rules::Rules,
};

use super::Context;
use crate::{
    exit::Mistaken,
    lag,
    output::{self, Format},
};

/// Most events of a device's past that are shown.
const TIMELINE_MAX: u32 = 100;
/// Most values of an attribute that are shown in a table; JSON has all.
const RUNNERS_UP_SHOWN: usize = 4;

/// Explains why these records are one device, why two devices are not one, and why a value is shown; why there are as many,
/// and why something is not there
///
/// A device is given by what is known of it: a uid (old ones lead to where they went), the key of a record, an address, a
/// MAC, a claim such as serial:acme:123, a name or a host name. Two of them are compared. One that is called `count` or
/// `missing` is given behind `--`.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true, disable_help_subcommand = true)]
pub(crate) struct Explain {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The device
    #[arg(required = true)]
    device: Option<String>,
    /// Another, to be compared with it
    #[arg(conflicts_with = "attribute")]
    other: Option<String>,
    /// Who offers a value for this attribute, and which is shown, e.g. hostname, ip, tags.owner
    #[arg(long, value_name = "NAME")]
    attribute: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Says why the inventory shows as many devices as it does
    Count(count::Count),
    /// Says why something is not there
    Missing(missing::Missing),
}

impl Explain {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { verb, device, other, attribute } = self;
        let device = match (verb, device) {
            (None, Some(device)) => device,
            (Some(Verb::Count(count)), None) if attribute.is_none() => return count.run(context).await,
            (Some(Verb::Missing(missing)), None) if attribute.is_none() => return missing.run(context).await,
            _ => {
                let why = "`count` and `missing` are asked of no device: leave that out, or put `--` before one of that name";
                return Err(Mistaken(why.to_owned()).into());
            }
        };
        let mut inventory = still(context).await?;
        let rules = inventory.rules().await?.unwrap_or_default();
        let (record, known) = look_up(&mut inventory, &device).await?;
        if let Some(other) = &other {
            let (other_record, of_other) = look_up(&mut inventory, other).await?;
            let comparison = compare((&record, &known), (&other_record, &of_other));
            return tell_comparison(context.format, &comparison);
        }
        if let Some(name) = &attribute {
            return tell_attribute(context.format, &known, &rules, name);
        }
        let explanation = explain::device(&known, &rules).map_err(|error| anyhow!(error))?;
        let uid: Uid = known.device.uid.parse()?;
        let timeline = inventory.timeline(uid, TIMELINE_MAX).await?;
        tell(context.format, &explanation, &timeline)
    }
}

/// The inventory, as it is at this moment.
async fn still(context: &Context) -> anyhow::Result<Inventory> {
    let config = &context.config;
    let url = lag::database_url(config).with_context(|| {
        format!("no database: give --database, or start a pipeline on {}", config.dir.display())
    })?;
    let mut inventory = Inventory::connect(&url, &config.tenant).await?;
    inventory.hold_still().await?;
    Ok(inventory)
}

/// The device that is meant, and the record by which: where the device itself is meant, the one that it is named by.
async fn look_up(inventory: &mut Inventory, what: &str) -> anyhow::Result<(String, Known)> {
    let found = inventory.find(what).await?;
    let Found { uid, record_key, placement } = match &found[..] {
        [] => bail!(
            "nothing in the inventory is called {what:?}: give a uid (sr:…), the key of a record, an address, a MAC, a claim (namespace:value) or a name"
        ),
        [one] => one,
        several => {
            let mut told = Vec::new();
            for uid in several.iter().filter_map(|found| found.uid) {
                let name = inventory.known(uid).await?.and_then(|known| known.device.name);
                told.push(format!("{uid} ({})", name.as_deref().unwrap_or("no name")));
            }
            bail!("{what:?} is said of several devices: give one of {}", told.join(", "))
        }
    };
    let Some(uid) = uid else {
        let why = match placement.as_str() {
            "closed" => "it is over, and none of its claims links anywhere",
            _ => "it has neither a claim that links nor an address that could be used",
        };
        bail!("the record {what} belongs to no device ({placement}): {why}");
    };
    let gone = || format!("{what} leads to {uid}, which is no device");
    let known = inventory.known(*uid).await?.with_context(gone)?;
    let record = match record_key {
        Some(record) => record.clone(),
        None => explain::root(&known).unwrap_or_default().to_owned(),
    };
    Ok((record, known))
}

fn tell(format: Format, explanation: &Explanation, timeline: &[Happened]) -> anyhow::Result<()> {
    if format == Format::Json {
        let mut told = serde_json::to_value(explanation)?;
        told["timeline"] = serde_json::to_value(timeline)?;
        return Ok(output::line(&told.to_string())?);
    }
    head(&explanation.device)?;
    if let Some(claim) = &explanation.named_by {
        output::line(&format!("named by {claim}"))?;
    }
    let records = explanation.records.iter().map(|record| {
        let open = if record.open { "open" } else { "over" };
        row([
            Value::from(&*record.record_key),
            record.placement.into(),
            open.into(),
            at(record.last_seen),
            Value::from(&*record.why),
        ])
    });
    section("Records, and why they are here", &["record", "placement", "is", "last seen", "why"], records)?;
    let claims = explanation.claims.iter().flat_map(|claim| {
        claim.records.iter().map(|span| {
            row([
                Value::from(&*claim.claim),
                claim.tier.into(),
                span.state.into(),
                at(Some(span.first_seen)),
                at(span.last_seen),
                Value::from(&*span.record_key),
            ])
        })
    });
    let columns = ["claim", "tier", "does", "first seen", "last seen", "record"];
    section("Claims and addresses, and what they do", &columns, claims)?;
    attributes(
        "Values that others would have, or that were pinned",
        &explanation.attributes,
        RUNNERS_UP_SHOWN,
    )?;
    decisions(&explanation.decisions)?;
    issues(&explanation.issues)?;
    let happened = timeline.iter().map(|happened| {
        let moved = happened.moved.iter().map(|moved| {
            let by = moved.claim.as_deref().unwrap_or(&moved.rule);
            let records = moved.records.len();
            format!("{}: {records} records from {} to {} by {by}", moved.kind, moved.from_uid, moved.to_uid)
        });
        let changed = happened.before.as_ref().zip(happened.after.as_ref()).map(changed).unwrap_or_default();
        let words = [happened.cause.clone()].into_iter().chain([changed]).chain(moved);
        let words: Vec<String> = words.filter(|words| !words.is_empty()).collect();
        row([
            at(Some(happened.at)),
            happened.epoch.into(),
            Value::from(&*happened.change),
            words.join("; ").into(),
        ])
    });
    section("What became of it, the latest first", &["at", "epoch", "change", "why and what"], happened)
}

/// What changed, in words.
fn changed((before, after): (&Value, &Value)) -> String {
    let fields = after.as_object().into_iter().flatten();
    let told = fields.map(|(field, now)| format!("{field}: {} → {}", short(&before[field]), short(now)));
    told.collect::<Vec<_>>().join(", ")
}

/// A value on one line, cut where it is long.
fn short(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn tell_comparison(format: Format, told: &Comparison) -> anyhow::Result<()> {
    if format == Format::Json {
        return Ok(output::line(&serde_json::to_string(told)?)?);
    }
    for device in &told.devices {
        head(device)?;
    }
    let verdict = if told.one_device { "One device" } else { "Not one device" };
    output::line(&format!("\n{verdict}: {}.", told.why))?;
    let path = told.path.iter().map(|step| row([Value::from(&*step.record_key), step.to_string().into()]));
    section("From the one to the other", &["record", "why"], path)?;
    let shared = told.shared.iter().map(|shared| {
        let keys = |spans: &[SpanTold]| {
            Value::from(spans.iter().map(|span| &*span.record_key).collect::<Vec<_>>().join(", "))
        };
        row([
            Value::from(&*shared.claim),
            shared.state.into(),
            shared.why.into(),
            keys(&shared.one),
            keys(&shared.other),
        ])
    });
    let columns = ["claim", "does", "why it joins nothing", "records of the one", "of the other"];
    section("What both have, the nearest to a link first", &columns, shared)?;
    let clashes = told.clashes.iter().map(|clash| {
        let list = |values: &[std::sync::Arc<str>]| Value::from(values.join(", "));
        row([Value::from(&*clash.namespace), list(&clash.one), list(&clash.other)])
    });
    let columns = ["namespace", "the one has", "the other has"];
    section("What a device has one of, and both have", &columns, clashes)?;
    decisions(&told.decisions)?;
    issues(&told.issues)
}

fn tell_attribute(format: Format, known: &Known, rules: &Rules, name: &str) -> anyhow::Result<()> {
    let Some(told) = attribute(known, rules, name).map_err(|error| anyhow!(error))? else {
        let names = names(known, rules).map_err(|error| anyhow!(error))?;
        bail!("nobody offers a value for {name:?} of this device; there are {}", names.join(", "));
    };
    if format == Format::Json {
        return Ok(output::line(
            &json!({ "device": Head::from(&known.device), "attribute": told }).to_string(),
        )?);
    }
    head(&Head::from(&known.device))?;
    attributes("What is offered; the first is shown", &[told], usize::MAX)
}

fn head(device: &Head) -> anyhow::Result<()> {
    let name = device.name.as_deref().unwrap_or("(no name)");
    let Head { uid, partition, r#type, confidence, state, first_seen, last_seen, flags, .. } = device;
    let flags = flags.iter().map(|flag| format!(", {flag}")).collect::<String>();
    output::line(&format!("{uid}  {name}  {type}, {confidence}, {state}{flags}, in {partition}"))?;
    let seen = [*first_seen, *last_seen].map(time::format);
    Ok(output::line(&format!("seen from {} to {}", seen[0], seen[1]))?)
}

fn attributes(title: &str, told: &[AttributeTold], shown: usize) -> anyhow::Result<()> {
    let rows = told.iter().flat_map(|told| {
        told.offers.iter().take(shown).map(|offer| {
            let by = offer.record_key.as_deref().unwrap_or("an operator");
            row([
                Value::from(&*told.attribute),
                short(&Value::from(&*offer.value)).into(),
                Value::from(offer.lost_by.unwrap_or("shown")),
                if offer.pinned { Value::Null } else { offer.authority.into() },
                at(Some(offer.at)),
                by.into(),
            ])
        })
    });
    section(title, &["attribute", "value", "is shown, or not", "authority", "asserted", "by"], rows)
}

fn decisions(told: &[explain::DecisionTold]) -> anyhow::Result<()> {
    let rows = told.iter().map(|told| {
        row([
            Value::from(&*told.action),
            Value::from(&*told.target),
            told.value.as_deref().into(),
            at(Some(told.at)),
            Value::from(&*told.actor),
            Value::from(&*told.reason),
        ])
    });
    section("Decisions that take part", &["action", "target", "value", "at", "actor", "reason"], rows)
}

fn issues(told: &[explain::IssueTold]) -> anyhow::Result<()> {
    let rows =
        told.iter().map(|told| row([told.kind.into(), Value::from(&*told.of), Value::from(&*told.detail)]));
    section("What the rules refused or flagged", &["issue", "of", "detail"], rows)
}

fn row<const N: usize>(values: [Value; N]) -> Vec<Value> {
    values.into()
}

fn at(at: Option<i64>) -> Value {
    at.map(time::format).into()
}

/// A table under its title; nothing where it has no rows.
fn section(title: &str, columns: &[&str], rows: impl Iterator<Item = Vec<Value>>) -> anyhow::Result<()> {
    let rows: Vec<Vec<Value>> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    output::line(&format!("\n{title}"))?;
    Ok(output::rows(Format::Table, columns, &rows)?)
}
