//! `resolve`: what a file of observations would become.

use std::{
    collections::BTreeSet,
    fmt::Display,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use serviceradar_schemas::{Decision, json as event_json};
use serviceradar_streams::{
    normalise::{Refusal, Sighting},
    resolve::{Outcome, Resolver},
    rules::Rules,
};

use super::Context;
use crate::output::{self, Format};

/// Longest line that is read, bytes: as long as an event may be, with room for what JSON adds.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Observations that are read while those before are taken in.
const CHUNK: usize = 5_000;
const CHUNKS_WAITING: usize = 2;
/// Refused lines that are told one by one.
const REFUSED_TOLD: u64 = 20;

/// Shows what a file of observations would become, with no log and no database
///
/// Observations and decisions are JSON lines: the fields of their schemas under their names, times as RFC 3339. Prints
/// of each record where it goes, the redirects and the issues. What the pipeline would refuse is told and left out; nothing
/// is printed of a file that cannot be read whole.
#[derive(Debug, Args)]
pub(crate) struct Resolve {
    /// Observations, one a line; `-` for stdin
    file: PathBuf,
    /// Decisions, one a line
    #[arg(long, value_name = "FILE")]
    decisions: Option<PathBuf>,
    /// Rules, a TOML document [default: those of the program]
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

impl Resolve {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let (tenant, format) = (context.config.tenant.clone(), context.format);
        tokio::task::spawn_blocking(move || {
            let outcome = self.resolve(&tenant)?;
            match format {
                Format::Json => print_json(&outcome),
                Format::Table => print_table(&outcome),
            }
        })
        .await?
    }

    fn resolve(&self, tenant: &str) -> anyhow::Result<Outcome> {
        let rules = match &self.rules {
            Some(path) => super::rules::read(path)?,
            None => Rules::default(),
        };
        let mut resolver = Resolver::start(tenant, rules)?;
        let mut refused = Refused(0);
        let (put, take) = mpsc::sync_channel::<Chunk>(CHUNKS_WAITING);
        let path = self.file.clone();
        let reading = thread::Builder::new().name("reading".to_owned()).spawn(move || {
            let mut chunk = Chunk::default();
            read_lines(&path, |line, observation| {
                match Resolver::prepare(observation) {
                    Ok(sighting) => chunk.sightings.push(sighting),
                    Err(why) => chunk.refused.push((line, why)),
                }
                // Who takes no more has failed.
                chunk.sightings.len() + chunk.refused.len() < CHUNK
                    || put.send(std::mem::take(&mut chunk)).is_ok()
            })?;
            _ = put.send(chunk);
            anyhow::Ok(())
        })?;
        for Chunk { sightings, refused: lines } in take {
            resolver.observe(sightings)?;
            for (line, why) in lines {
                refused.tell(&self.file, line, &why);
            }
        }
        reading.join().map_err(|_| anyhow!("{} could not be read", self.file.display()))??;
        if let Some(path) = &self.decisions {
            read_lines(path, |line, decision: Decision| {
                if let Err(why) = resolver.decide(decision) {
                    refused.tell(path, line, &why);
                }
                true
            })?;
        }
        if refused.0 > REFUSED_TOLD {
            tracing::warn!(lines = refused.0, "refused in all");
        }
        let outcome = resolver.outcome()?;
        // The program is about to end: to take a million records apart takes a second.
        std::mem::forget(resolver);
        Ok(outcome)
    }
}

/// Some lines of a file, read.
#[derive(Default)]
struct Chunk {
    sightings: Vec<Sighting>,
    /// By line, why.
    refused: Vec<(usize, Refusal)>,
}

/// Lines that the pipeline would put among the dead letters: how many.
struct Refused(u64);

impl Refused {
    fn tell(&mut self, file: &Path, line: usize, why: &dyn Display) {
        self.0 += 1;
        if self.0 <= REFUSED_TOLD {
            tracing::warn!(file = %file.display(), line, %why, "refused, as the pipeline would");
        }
    }
}

/// Gives each event of a file to `take`, with the number of its line, until that wants no more.
fn read_lines<E: DeserializeOwned>(
    path: &Path,
    mut take: impl FnMut(usize, E) -> bool,
) -> anyhow::Result<()> {
    let file: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?),
    };
    let mut lines = BufReader::with_capacity(1 << 20, file);
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let at = || format!("{}, line {line}", path.display());
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text).with_context(at)?;
        if read == 0 {
            break;
        }
        if read as u64 == LINE_BYTES_MAX {
            bail!("{}: longer than {LINE_BYTES_MAX} bytes: one event is one line", at());
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        if !take(line, event_json::read(&text).with_context(at)?) {
            break;
        }
    }
    Ok(())
}

/// What is told of a record.
#[derive(Serialize)]
struct Line<'a> {
    record_key: &'a str,
    placement: &'a str,
    uid: Option<String>,
}

fn print_json(outcome: &Outcome) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let uid = |uid: &serviceradar_streams::rows::Uid| uid.to_string();
    for row in &outcome.records {
        let (record_key, placement) = (&*row.record_key, row.placement.as_str());
        let line = Line { record_key, placement, uid: row.uid.as_ref().map(uid) };
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    // One object, but as long as the file: written as it goes.
    out.write_all(b"{\"redirects\":{")?;
    for (at, (from, to)) in outcome.redirects.iter().enumerate() {
        write!(out, "{}\"{from}\":\"{to}\"", if at > 0 { "," } else { "" })?;
    }
    out.write_all(b"}}\n")?;
    let of_identity = outcome.issues.iter().filter(|issue| issue.kind != "quality");
    let issues: BTreeSet<[&str; 4]> =
        of_identity.map(|issue| [issue.kind, &*issue.partition, &*issue.namespace, &*issue.value]).collect();
    writeln!(out, "{}", json!({ "issues": issues }))?;
    Ok(out.flush()?)
}

fn print_table(outcome: &Outcome) -> anyhow::Result<()> {
    let uid = |uid: &serviceradar_streams::rows::Uid| Value::String(uid.to_string());
    let records: Vec<Vec<Value>> = outcome
        .records
        .iter()
        .map(|row| {
            let device = row.uid.as_ref().map_or(Value::Null, uid);
            vec![json!(*row.record_key), json!(row.placement.as_str()), device]
        })
        .collect();
    output::rows(Format::Table, &["record", "placement", "device"], &records)?;
    let elsewhere = outcome.redirects.iter().filter(|(from, to)| from != to);
    let redirects: Vec<Vec<Value>> = elsewhere.map(|(from, to)| vec![uid(from), uid(to)]).collect();
    if !redirects.is_empty() {
        output::line("")?;
        output::rows(Format::Table, &["uid", "leads to"], &redirects)?;
    }
    let issues: Vec<Vec<Value>> = outcome
        .issues
        .iter()
        .map(|issue| {
            let texts = [issue.kind, &issue.partition, &issue.namespace, &issue.value, &issue.detail];
            texts.into_iter().map(Value::from).collect()
        })
        .collect();
    if !issues.is_empty() {
        output::line("")?;
        output::rows(Format::Table, &["issue", "partition", "of", "value", "detail"], &issues)?;
    }
    Ok(())
}
