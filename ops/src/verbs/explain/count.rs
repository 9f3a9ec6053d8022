//! `explain count`: of what the inventory is made up, and what changed how many devices it has.

use clap::Args;
use serde_json::{Value, json};
use serviceradar_materializers::explain::{Counted, EpochAt, Line, Since, sum};
use serviceradar_replay::as_of::Moment;
use serviceradar_schemas::time;

use super::{Context, at, row, section, still};
use crate::{
    exit::Wanting,
    log_store,
    output::{self, Format},
    verbs::{dlq::since, replay::as_of},
};

/// Says why the inventory shows as many devices as it does
///
/// Devices by state, and all records as a sum: those that are a device each, the others of these devices, those that are
/// attached by an address, and those that make none, each with its reason. With --since: how many devices came and went,
/// by cause, which ones, and by which records. All is of one epoch. With --at: as it was so at an event time, made of the log, as
/// `replay as-of` tells it. What does not add up is said, and makes exit code 4.
#[derive(Debug, Args)]
pub(super) struct Count {
    /// As it was then: an instant, or how long ago, e.g. 2026-03-01T00:00:00Z or 12h
    #[arg(long, value_name = "WHEN", value_parser = since, conflicts_with = "since")]
    at: Option<i64>,
    /// With --at: leaves out without a word what the log no longer has
    #[arg(long, requires = "at")]
    partial: bool,
    /// What changed it since then: an instant, or how long ago, e.g. 2026-03-01T00:00:00Z or 12h
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<i64>,
}

impl Count {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let (epoch, counted, since) = match self.at {
            Some(at) => (None, then(context, at, self.partial).await?, None),
            None => {
                let mut inventory = still(context).await?;
                let epoch = inventory.epoch_at().await?;
                let counted = inventory.counted().await?;
                let since = match self.since {
                    Some(at) => Some(inventory.since(at, counted.devices).await?),
                    None => None,
                };
                (epoch, counted, since)
            }
        };
        let (lines, mut faults) = sum(&counted);
        faults.extend(since.as_ref().and_then(unaccounted));
        match context.format {
            Format::Json => {
                let told = json!({
                    "epoch": epoch, "at": self.at.map(time::format), "devices": counted.devices, "states": counted.states,
                    "records": counted.records, "open": counted.open, "sum": lines,
                    "since": since.as_ref().map(told).transpose()?, "faults": faults,
                });
                output::line(&told.to_string())?;
            }
            Format::Table => {
                output::line(&match (self.at, epoch) {
                    (Some(at), _) => format!("at event time {}", time::format(at)),
                    (None, Some(EpochAt { generation, epoch, closed_at })) => {
                        let closed_at = time::format(closed_at);
                        format!("epoch {epoch} of generation {generation}, closed at {closed_at}")
                    }
                    (None, None) => "no epoch yet".to_owned(),
                })?;
                tell(&counted, &lines)?;
                since.as_ref().map_or(Ok(()), tell_since)?;
            }
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Wanting(format!(
                "it does not add up: {}; see `serviceradar replay verify`",
                faults.join("; ")
            ))
            .into()),
        }
    }
}

fn told(since: &Since) -> serde_json::Result<Value> {
    let (gained, lost) = since.balance();
    let mut told = serde_json::to_value(since)?;
    (told["gained"], told["lost"]) = (gained.into(), lost.into());
    Ok(told)
}

/// Counts what was so at an event time, by the log.
async fn then(context: &Context, at: i64, partial: bool) -> anyhow::Result<Counted> {
    let log = log_store::reach(&context.config).await?;
    let mut then = as_of::then(&context.config, log, Moment::Event(at), None, partial).await?;
    Ok(tokio::task::spawn_blocking(move || then.counted()).await??)
}

fn tell(counted: &Counted, lines: &[Line]) -> anyhow::Result<()> {
    let states: Vec<String> =
        counted.states.iter().map(|(state, devices)| format!("{devices} {state}")).collect();
    output::line(&format!("{} devices: {}", counted.devices, states.join(" + ")))?;
    let rows = lines.iter().map(|line| {
        row([Value::from(&*line.of), line.records.into(), line.open.into(), means(&line.of).into()])
    });
    let all = row([Value::from("all"), counted.records.into(), counted.open.into(), Value::Null]);
    let columns = ["records", "how many", "open", "which are"];
    section("Records, and what became of them", &columns, rows.chain([all]))?;
    let summands: Vec<String> = lines.iter().map(|line| line.records.to_string()).collect();
    Ok(output::line(&format!("{} records = {}", counted.records, summands.join(" + ")))?)
}

/// What a summand means.
fn means(of: &str) -> &'static str {
    match of {
        "first" => "a device each: one record of each device; open: devices that have an open record",
        "further" => "further records of the same devices",
        "attached" => "with the device that has their address: they make none",
        "closed/history" => "over; history of a device",
        "closed/alone" => "over, and none of their claims links anywhere",
        "unplaced/nothing" => "no claim, and no address",
        "unplaced/quarantined" => {
            "a claim of theirs is asserted by records that name too many different devices"
        }
        "unplaced/generic" => "a claim of theirs is in too many records to prove anything",
        "unplaced/ambiguous" => "a MAC of theirs is shared by devices that cannot be one",
        "unplaced/bridging" => "they name too many of a kind",
        "unplaced/blocked" => "an operator blocked a claim of theirs",
        "unplaced/refused" => "a claim of theirs would have joined what must not be joined",
        "unplaced/expired" | "unplaced/lapsed" => "what they had to go by is no longer asserted",
        "unplaced/corroborating" => "their claims never link, and they have no address",
        _ => "no device, for a reason that this program does not know",
    }
}

fn tell_since(since: &Since) -> anyhow::Result<()> {
    let (gained, lost) = since.balance();
    output::line(&format!(
        "\nsince {}: {} devices then + {gained} gained - {lost} lost = {} now",
        time::format(since.at),
        since.then,
        since.now
    ))?;
    if let Some(fault) = unaccounted(since) {
        output::line(&format!("THAT IS NOT SO: {fault}"))?;
    }
    let causes = since
        .causes
        .iter()
        .map(|cause| row([Value::from(&*cause.change), cause.devices.into(), Value::from(&*cause.cause)]));
    section("Why, by the journal", &["change", "devices", "cause"], causes)?;
    for cause in &since.causes {
        let rows = cause.told.iter().map(|told| {
            let by = told.claim.iter().cloned().chain(told.other.map(|other| other.to_string()));
            row([
                at(Some(told.at)),
                told.uid.to_string().into(),
                told.name.as_deref().into(),
                by.collect::<Vec<_>>().join(", ").into(),
                told.records.join(", ").into(),
            ])
        });
        let (shown, all) = (cause.told.len(), cause.devices);
        let title = format!("{}, {}: {shown} of {all}, the latest first", cause.change, cause.cause);
        section(&title, &["at", "device", "name", "by, and other device", "records"], rows)?;
    }
    Ok(())
}

/// What the journal does not account for, in words.
fn unaccounted(since: &Since) -> Option<String> {
    let wanted = since.fault()?;
    let begins = match since.begins {
        Some(begins) => format!("begins at {}", time::format(begins)),
        None => "is empty".to_owned(),
    };
    Some(format!(
        "by the journal there would be {wanted} devices, and there are {}: rows of it are gone; it {begins} (see retention.journals_d)",
        since.now
    ))
}
