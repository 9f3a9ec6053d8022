//! `replay as-of`: the inventory at an instant, made of the log: printed, or in a generation of its own.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use serviceradar_log::LogStore;
use serviceradar_materializers::{
    PostgresViews,
    postgres::{Generation, Past},
    views::Views as _,
};
use serviceradar_ops::config::Config;
use serviceradar_replay::{
    as_of::{AsOf as Inventory, Moment, Then},
    operations::Operations,
};
use serviceradar_schemas::{
    Operation,
    time::{self, Clock as _, SystemClock},
};
use serviceradar_streams::{rows::DeviceRow, rules::Rules};

use super::{
    super::{Context, rules},
    AS_OF, begin, end, operation,
};
use crate::{
    lag, log_store,
    output::{self, Format},
    pipeline::{WORKERS, writer},
    progress::Progress,
    registry,
};

/// Devices that a table shows; JSON has all.
const DEVICES_SHOWN: usize = 1_000;

/// Prints the inventory as it was, or as it was known, at an instant, or makes a generation of it
///
/// The log is read anew, and what the pipeline writes is not touched. By event time: what was so then, by what is known today; only
/// observations and decisions up to then count, and time stands there. With --known-at: what was known then, by what the log
/// had taken in. JSON has a line for each device, in the order of uids, times as RFC 3339.
///
/// With --into-generation it stands in tables of its own, beside those of the pipeline: `replay generations` lists it as
/// `past`, what may be read of it is the schema views_N_read, `replay diff` compares it, and it is never promoted. What was
/// interrupted is listed as `filling`, and gone on with: give the same command again.
#[derive(Debug, Args)]
pub(crate) struct AsOf {
    /// An instant such as 2026-03-01T00:00:00Z
    #[arg(value_parser = instant, required_unless_present = "known_at", conflicts_with = "known_at")]
    at: Option<i64>,
    /// What was known then: an instant, or the number of an epoch
    #[arg(long, value_name = "TIME|EPOCH")]
    known_at: Option<String>,
    /// Leaves out without a word what the log no longer has
    #[arg(long)]
    partial: bool,
    /// Makes a generation of it, and prints no devices
    #[arg(long)]
    into_generation: bool,
    /// Says of how many devices the generation would be, and makes none
    #[arg(long, requires = "into_generation")]
    dry_run: bool,
    /// Rules, a TOML document [default: those of the views, where there are any]
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

pub(super) fn instant(text: &str) -> Result<i64, String> {
    time::parse(text).ok_or_else(|| "give an instant such as 2026-03-01T00:00:00Z".to_owned())
}

impl AsOf {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = &context.config;
        let moment = match (self.at, &self.known_at) {
            (Some(at), _) => Moment::Event(at),
            (None, Some(text)) => Moment::Known(known_at(config, text).await?),
            (None, None) => bail!("give an instant, or --known-at"),
        };
        let rules = self.rules.as_deref().map(rules::read).transpose()?;
        let log = log_store::reach(config).await?;
        let then = then(config, log.clone(), moment, rules, self.partial).await?;
        if self.into_generation {
            return keep(context, log, then, self.dry_run).await;
        }
        let format = context.format;
        tokio::task::spawn_blocking(move || print(then, format)).await?
    }
}

/// The inventory of a moment, by these rules or those of the views.
pub(in crate::verbs) async fn then(
    config: &Config,
    log: Arc<dyn LogStore>,
    moment: Moment,
    rules: Option<Rules>,
    partial: bool,
) -> anyhow::Result<Then> {
    let rules = match rules {
        Some(rules) => rules,
        None => rules_of(config).await?,
    };
    let mut progress = Progress::begin("log", "reading the log");
    let inventory = Inventory {
        tenant: config.tenant.clone(),
        rules,
        workers: WORKERS,
        log,
        writers: registry::register(config).await?.writers,
        clock: Arc::new(SystemClock),
        moment,
        partial,
    };
    Ok(inventory.run(|done, total| progress.at(done, total)).await?)
}

/// The instant that is meant by a text: one itself, or the intake time up to which an epoch took in.
async fn known_at(config: &Config, text: &str) -> anyhow::Result<i64> {
    let Ok(epoch) = text.parse() else {
        return instant(text)
            .map_err(|why| anyhow::anyhow!("--known-at {text:?}: {why}, or the number of an epoch"));
    };
    let url = lag::database_url(config)
        .context("an epoch is a row of the database: give --database, or an instant")?;
    let known = PostgresViews::connect(&url).await?.intake_max(&config.tenant, epoch).await?;
    known.with_context(|| {
        format!("epoch {epoch} is not known: of epochs that are long past one a minute is kept; see serviceradar.pipeline_epochs, or give an instant")
    })
}

/// The rules of the configuration, or of the views; where neither are, the program's own.
async fn rules_of(config: &Config) -> anyhow::Result<Rules> {
    if let Some(rules) = &config.rules {
        return Ok(rules.clone());
    }
    match lag::database_url(config) {
        Some(url) => Ok(PostgresViews::connect(&url).await?.rules().await?.unwrap_or_default()),
        None => Ok(Rules::default()),
    }
}

/// Fills a generation with it.
async fn keep(context: &Context, log: Arc<dyn LogStore>, then: Then, dry_run: bool) -> anyhow::Result<()> {
    let (views, devices) = (super::views(context).await?, then.devices());
    let Past { tenant, moment } = then.past().clone();
    if dry_run {
        return Ok(output::line(&format!(
            "would make a generation of {devices} devices: tenant {tenant} at {moment}"
        ))?);
    }
    let writer = writer(&context.config)?;
    let id = match filled(&log, &views, then.past()).await? {
        Some(id) => id,
        None => then.generation(&views).await?,
    };
    let begun = begin(&log, id, operation(AS_OF, Some(&tenant), &moment)).await?;
    let progress = Progress::begin("write", "writing rows and indexes");
    let filled = then.fill(&views, id, &writer, SystemClock.now()).await;
    drop(progress);
    if let Err(error) = filled {
        let reason = format!("{moment}, not done: {error}");
        end(&log, Operation { reason, ..begun }).await?;
        return Err(anyhow::Error::from(error).context(format!(
            "generation {id} is not whole: give the same command again, or drop it (`serviceradar replay generations --drop {id}`)"
        )));
    }
    end(&log, begun).await?;
    // One that was gone on with has those that it was filled with.
    let (devices, retired) = views.of_past(id).devices(&tenant).await?;
    let devices = devices + retired;
    Ok(output::line(&match context.format {
        Format::Json => {
            json!({ "generation": id, "tenant": tenant, "moment": moment, "devices": devices }).to_string()
        }
        Format::Table => format!(
            "generation {id} has the {devices} devices of tenant {tenant} at {moment}: read them in the schema views_{id}_read, compare them (`serviceradar replay diff {id} GENERATION`), drop them when done (`serviceradar replay generations --drop {id}`)"
        ),
    })?)
}

/// One of that moment whose maker was killed between its end and saying so.
async fn filled(log: &Arc<dyn LogStore>, views: &PostgresViews, past: &Past) -> anyhow::Result<Option<i32>> {
    let known = Operations::read(&**log).await?;
    let is_open = |id: i32| known.unfinished().any(|of| of.action == AS_OF && of.generation == Some(id));
    let generations = views.generations().await?;
    let is_it = |of: &&Generation| of.state == "past" && of.past.as_ref() == Some(past) && is_open(of.id);
    Ok(generations.iter().find(is_it).map(|of| of.id))
}

fn print(mut then: Then, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        let mut out = io::BufWriter::new(io::stdout().lock());
        then.tell(|device| anyhow::Ok(writeln!(out, "{}", told(&device)?)?))?;
        return Ok(out.flush()?);
    }
    let mut rows = Vec::new();
    then.tell(|device| {
        if rows.len() < DEVICES_SHOWN {
            let DeviceRow { uid, name, ip, r#type, state, last_seen, .. } = device;
            rows.push(vec![
                Value::from(uid),
                name.into(),
                ip.into(),
                r#type.into(),
                state.into(),
                time::format(last_seen).into(),
            ]);
        }
        anyhow::Ok(())
    })?;
    output::rows(format, &["uid", "name", "ip", "type", "state", "last seen"], &rows)?;
    let more = match then.devices().saturating_sub(rows.len()) {
        0 => String::new(),
        more => format!(", {more} of them not shown: see all with --output json"),
    };
    Ok(output::line(&format!("{} devices{more}", then.devices()))?)
}

/// A device as JSON, its times as RFC 3339.
fn told(device: &DeviceRow) -> serde_json::Result<Value> {
    let mut told = serde_json::to_value(device)?;
    for name in ["first_seen", "last_seen", "availability_at"] {
        if let Some(at) = told[name].as_i64() {
            told[name] = json!(time::format(at));
        }
    }
    for source in told["sources"].as_array_mut().into_iter().flatten() {
        for name in ["first_seen", "last_seen"] {
            if let Some(at) = source[name].as_i64() {
                source[name] = json!(time::format(at));
            }
        }
    }
    Ok(told)
}
