//! `status`: how far the views are behind the log.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};
use serviceradar_materializers::{
    PostgresViews,
    inventory::Held,
    postgres::{Generation, Untold},
    views::Frontier,
};
use serviceradar_replay::{
    DriverStatus,
    clocks::ClockOff,
    drift::{Drift, Expectations, Side, drifts},
    lag::look,
    operations::Operations,
    status::ScopeStatus,
    topics::{read_by, setting_problems},
};
use serviceradar_schemas::{
    Operation,
    time::{self, Clock, SystemClock},
    topics,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Context;
use crate::{
    exit::{NotRunning, Wanting},
    http, lag, log_store,
    output::{self, Format},
};

/// A status of some thousand log partitions.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Shows how far the views are behind the log, in events and seconds
///
/// Asks the pipeline of the data folder; where none runs there, the database and the log.
#[derive(Debug, Args)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let status = match ask(context).await {
            Ok(status) => status,
            Err(why) => match outside(context).await? {
                Some(status) => status,
                None => return Err(NotRunning { dir: context.config.dir.clone(), why }.into()),
            },
        };
        let mut status = status;
        // Where the database does not answer, the rest says so.
        let held = lag::held(&context.config).await.unwrap_or_default();
        status["held"] = serde_json::to_value(&held)?;
        let under_way = under_way(context, &mut status).await;
        let drifts = drifts_of(&status, &context.config.expect);
        status["drift"] = serde_json::to_value(&drifts)?;
        let (figures, partitions, problems) = split(&status);
        let mut told = clocks(&status);
        told.extend(held.iter().map(in_words));
        told.extend(under_way);
        match context.format {
            Format::Json => output::line(&status.to_string())?,
            Format::Table => {
                output::rows(context.format, &["what", "value"], &figures)?;
                output::line("")?;
                let columns = ["log partition", "frontier", "end", "lag events", "lag seconds", "stalled"];
                output::rows(context.format, &columns, &partitions)?;
                if !drifts.is_empty() {
                    output::line("")?;
                    output::rows(
                        context.format,
                        &DRIFT_COLUMNS,
                        &drifts.iter().map(drift_row).collect::<Rows>(),
                    )?;
                }
                for problem in problems.iter().copied().chain(told.iter().map(String::as_str)) {
                    output::line(&format!("\n{problem}"))?;
                }
            }
        }
        if let Value::Object(failed) = &status["phase"] {
            return Err(Wanting(format!("the pipeline has stopped: {failed:?}")).into());
        }
        let stalled = partitions.iter().filter(|row| row.last().is_some_and(|why| !why.is_null())).count();
        if stalled > 0 {
            return Err(Wanting(format!("{stalled} log partitions are not being read")).into());
        }
        if !problems.is_empty() {
            return Err(Wanting("the log is set so that it may lose events".to_owned()).into());
        }
        if let Some(why) = alarms(&drifts) {
            return Err(Wanting(why).into());
        }
        Ok(())
    }
}

/// What the process that runs on the data folder says.
async fn ask(context: &Context) -> anyhow::Result<Value> {
    let address = tokio::fs::read_to_string(context.config.dir.join(http::ADDRESS_FILE)).await?;
    let mut connection = TcpStream::connect(&*address).await?;
    // In HTTP/1.0 the answer is all that comes until the end.
    connection.write_all(b"GET /status HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    connection.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("what answers there is no pipeline")?;
    let status: Value = serde_json::from_str(body).context("what answers there is no pipeline")?;
    ensure!(
        status["dir"] == *context.config.dir.canonicalize()?.to_string_lossy(),
        "another pipeline answers there"
    );
    Ok(status)
}

/// Tells which generations there are, which events are known to be lost, and, in words, what operators began and did not
/// end, or a pipeline has not yet. Where log or database do not answer, the rest says so.
async fn under_way(context: &Context, status: &mut Value) -> Vec<String> {
    let config = &context.config;
    let generations = async {
        let url = lag::database_url(config).context("no database")?;
        let views = PostgresViews::connect(&url).await?;
        anyhow::Ok((views.generations().await?, views.untold().await?))
    };
    let there = |of: &Generation| of.state != "retired";
    let row = |of: &Generation| json!({"generation": of.id, "state": of.state, "bytes": of.bytes});
    let (generations, untold) = generations.await.unwrap_or_default();
    status["generations"] = generations.iter().filter(|of| there(of)).map(row).collect();
    let operations = async { anyhow::Ok(Operations::read(&*log_store::reach(config).await?).await?) };
    let operations = match log_store::is_there(config) {
        true => operations.await.unwrap_or_default(),
        false => Operations::default(),
    };
    let lost = operations.all().iter().filter(|of| of.action == "accept_gap");
    let lost = lost
        .flat_map(|of| &of.ranges)
        .filter(|range| topics::split(&range.topic).is_some_and(|(tenant, _)| tenant == config.tenant));
    status["gaps_accepted"] = lost.map(|range| json!(range.to_string())).collect();
    let unfinished = operations.unfinished().map(|of| {
        let Operation { action, actor, event_time, .. } = of;
        let whose = of.tenant.as_ref().map_or_else(String::new, |tenant| format!(" of tenant {tenant}"));
        let at = time::format(*event_time);
        format!(
            "{action}{whose}, begun by {actor} at {at}, did not come to its end: give the same command again"
        )
    });
    let untold = untold.iter().map(|Untold { tenant, generation, told }| {
        format!(
            "generation {generation} took its place at once: journals and consumers know tenant {tenant} as generation {told} left it, until a pipeline has caught up with that"
        )
    });
    unfinished.chain(untold).collect()
}

/// What the database and the log say, where both can be asked without a pipeline. What only the pipeline knows is
/// left out.
async fn outside(context: &Context) -> anyhow::Result<Option<Value>> {
    let config = &context.config;
    if !log_store::is_there(config) {
        return Ok(None);
    }
    let Some(standing) = lag::standing(config, &config.tenant).await? else {
        return Ok(None);
    };
    let log = log_store::reach(config).await?;
    let mut status =
        DriverStatus { generation: standing.generation, epoch: standing.epoch, ..DriverStatus::default() };
    let problems = setting_problems(&*log, &config.tenant).await?;
    status.setting_problems = problems.iter().map(ToString::to_string).collect();
    for partition in read_by(&*log, &config.tenant).await? {
        let frontier = Frontier::of(&standing.frontiers, &partition.topic, partition.log_partition);
        status.partitions.insert(partition.to_string(), look(&*log, &frontier).await?);
    }
    status.scopes = lag::scopes(config).await?;
    let mut told = lag::told(&status, SystemClock.now());
    if let Some(told) = told.as_object_mut() {
        let known =
            ["generation", "epoch", "lag_events", "lag_seconds", "setting_problems", "partitions", "scopes"];
        told.retain(|name, _| known.contains(&&**name));
        told.insert("phase".to_owned(), Value::Null);
    }
    Ok(Some(told))
}

/// How each partition stands; nothing while views are being filled or read back.
fn drifts_of(status: &Value, expect: &Expectations) -> Vec<Drift> {
    let is_known = status["phase"].is_null() || status["phase"] == "running";
    let scopes: BTreeMap<String, ScopeStatus> =
        serde_json::from_value(status["scopes"].clone()).unwrap_or_default();
    if is_known { drifts(&scopes, expect) } else { Vec::new() }
}

const DRIFT_COLUMNS: [&str; 7] =
    ["partition", "expected", "found", "deviation", "devices alarm", "ratio", "ratio alarm"];

fn drift_row(drift: &Drift) -> Vec<Value> {
    let percent = |share: f64| format!("{:+.2}%", share * 100.0);
    let word = |side: Option<Side>| serde_json::to_value(side).unwrap_or_default();
    vec![
        drift.partition.as_str().into(),
        drift.expected.into(),
        drift.found.into(),
        drift.deviation.map(percent).into(),
        word(drift.devices_alarm),
        drift.ratio.map(|ratio| format!("{ratio:.4}")).into(),
        word(drift.ratio_alarm),
    ]
}

/// Which alarms are on, and where to look; none where none is.
fn alarms(drifts: &[Drift]) -> Option<String> {
    let mut told = Vec::new();
    for drift in drifts {
        let of = &drift.partition;
        if drift.devices_alarm.is_some() {
            let expected = drift.expected.unwrap_or_default();
            told.push(format!("{of} has {} devices, and should have {expected}", drift.found));
        }
        match drift.ratio_alarm {
            Some(Side::Low) => {
                told.push(format!("devices of {of} may be several each: look at the flag `rekeyed`"))
            }
            Some(Side::High) => told.push(format!(
                "devices of {of} may be one: look at identity_issues, generic and quarantined claims"
            )),
            None => {}
        }
    }
    (!told.is_empty()).then(|| told.join("; "))
}

type Rows = Vec<Vec<Value>>;

/// The figures, the log partitions, and the settings that contradict.
fn split(status: &Value) -> (Rows, Rows, Vec<&str>) {
    let (mut figures, mut partitions, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (name, value) in status.as_object().into_iter().flatten() {
        match value {
            Value::Object(of) if name == "partitions" => {
                for (partition, found) in of {
                    let fields = ["next_offset", "end", "lag_events", "lag_seconds", "stalled"];
                    let values = fields.iter().map(|field| found[*field].clone());
                    partitions.push([partition.as_str().into()].into_iter().chain(values).collect());
                }
            }
            // They have a table of their own.
            Value::Object(_) if name == "scopes" => {}
            Value::Array(_) if name == "drift" => {}
            Value::Object(of) if name == "clocks_off" => {
                figures.push(vec![name.as_str().into(), of.len().into()]);
            }
            Value::Array(of) => {
                figures.push(vec![name.as_str().into(), of.len().into()]);
                if name == "setting_problems" {
                    problems.extend(of.iter().filter_map(Value::as_str));
                }
            }
            value => figures.push(vec![name.as_str().into(), value.clone()]),
        }
    }
    (figures, partitions, problems)
}

/// Why a fetch is held, and what to do.
fn in_words(held: &Held) -> String {
    let Held { partition, source, begin, why } = held;
    let begin = time::format(*begin);
    format!(
        "the fetch of {source} in {partition} that began at {begin} is held, and ends nothing: {why}\n  if it is right, accept it: serviceradar decide accept-snapshot {source} {begin} --partition {partition} --reason '…'"
    )
}

/// Whose clocks are off, and what to do.
fn clocks(status: &Value) -> Vec<String> {
    let of = status["clocks_off"].as_object().into_iter().flatten();
    let told = of.filter_map(|(name, off)| {
        let off = ClockOff::by_seconds(off["ahead_seconds"].as_i64()?);
        Some(format!("the clock of {name} is {off}: see which of the two is off, and have it set (NTP)"))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn clocks_are_told_by_name_and_side() {
        let status = json!({"clocks_off": {
            "agent/k1": {"ahead_seconds": -3600}, "this machine": {"ahead_seconds": 3600},
        }});
        let told = clocks(&status);
        assert!(told[0].starts_with("the clock of agent/k1 is 3600 s behind the log's"), "{told:?}");
        assert!(told[1].starts_with("the clock of this machine is 3600 s ahead of the log's"), "{told:?}");
        let (figures, ..) = split(&status);
        assert_eq!(figures, [[Value::from("clocks_off"), 2.into()]]);
    }
}
