//! `resolve`: what a file of observations would become.

use std::{
    collections::BTreeSet,
    fmt::Display,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use futures_util::{StreamExt, stream};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use serviceradar_streams::{
    decisions::Taken,
    resolve::{Placed, Resolver},
    rules::Rules,
};
use tokio::runtime::Handle;

use super::Context;
use crate::{
    json_lines::{self, At, Pieces, Refused},
    output::{self, Format},
};

/// Pieces of a file that are being read, or wait for those before.
const CHUNKS_UNDER_WAY: usize = 4;
/// Records whose lines are written at a time, and how long a line is, bytes, about.
const RECORDS_WRITTEN: usize = 20_000;
const LINE_BYTES: usize = 128;

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
            let mut resolver = self.read(&tenant)?;
            match format {
                Format::Json => print_json(&mut resolver)?,
                Format::Table => print_table(&mut resolver)?,
            }
            // The program is about to end: to take a million records apart takes a second.
            std::mem::forget(resolver);
            Ok(())
        })
        .await?
    }

    fn read(&self, tenant: &str) -> anyhow::Result<Resolver> {
        let rules = match &self.rules {
            Some(path) => super::rules::read(path)?,
            None => Rules::default(),
        };
        let mut resolver = Resolver::start(tenant, rules)?;
        let mut refused = Refused::default();
        // One event is not more work to take in than to read: both cores read, while the dataflow takes in.
        each_chunk(
            &self.file,
            Resolver::prepare,
            |sightings| Ok(resolver.observe(sightings)?),
            &mut refused,
        )?;
        if let Some(path) = &self.decisions {
            let decide = |decisions| {
                resolver.decide(decisions);
                Ok(())
            };
            each_chunk(path, |decision| Taken::read(decision, None), decide, &mut refused)?;
        }
        refused.tell_all();
        Ok(resolver)
    }
}

/// Reads the events of a file on several threads, chunk by chunk, and gives what `read` makes of them to `take`, in the
/// order of the file.
fn each_chunk<E: DeserializeOwned, T: Send + 'static, R: Display + Send + 'static>(
    path: &Path,
    read: impl Fn(E) -> Result<T, R> + Copy + Send + 'static,
    mut take: impl FnMut(Vec<T>) -> anyhow::Result<()>,
    refused: &mut Refused,
) -> anyhow::Result<()> {
    let mut chunks = stream::iter(pieces(path)?)
        .map(|text| tokio::task::spawn_blocking(move || Ok::<_, anyhow::Error>(read_lines(&text?, read))))
        .buffered(CHUNKS_UNDER_WAY);
    let mut line = 0;
    Handle::current().block_on(async {
        while let Some(chunk) = chunks.next().await {
            let Chunk { lines, events, refused: some, failed } =
                chunk?.with_context(|| format!("{}, after line {line}", path.display()))?;
            for (of_chunk, why) in some {
                refused.tell(path, At::Line(line + of_chunk), &why);
            }
            if let Some((of_chunk, why)) = failed {
                return Err(why.context(format!("{}, line {}", path.display(), line + of_chunk)));
            }
            take(events)?;
            line += lines;
        }
        Ok(())
    })
}

/// A file in pieces of whole lines.
fn pieces(path: &Path) -> anyhow::Result<Pieces<Box<dyn Read + Send>>> {
    let file: Box<dyn Read + Send> = match path.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?),
    };
    Ok(Pieces::of(file))
}

/// What some lines of a file hold. Lines count from 1 in each chunk.
struct Chunk<T, R> {
    lines: usize,
    events: Vec<T>,
    /// By line, why.
    refused: Vec<(usize, R)>,
    /// The line that could not be read, and why: what is behind it was not looked at.
    failed: Option<(usize, anyhow::Error)>,
}

fn read_lines<E: DeserializeOwned, T, R>(text: &[u8], read: impl Fn(E) -> Result<T, R>) -> Chunk<T, R> {
    let mut chunk = Chunk { lines: 0, events: Vec::new(), refused: Vec::new(), failed: None };
    for line in json_lines::lines(text) {
        chunk.lines += 1;
        match json_lines::event::<E>(line).map(|event| event.map(&read)) {
            None => {}
            Some(Ok(Ok(event))) => chunk.events.push(event),
            Some(Ok(Err(why))) => chunk.refused.push((chunk.lines, why)),
            Some(Err(error)) => {
                chunk.failed = Some((chunk.lines, error.into()));
                break;
            }
        }
    }
    chunk
}

/// What is told of a record.
#[derive(Serialize)]
struct Line<'a> {
    record_key: &'a str,
    placement: &'a str,
    uid: Option<String>,
}

fn print_json(resolver: &mut Resolver) -> anyhow::Result<()> {
    let (printed, outcome) = resolver.outcome(print_records)?;
    printed?;
    let mut out = io::BufWriter::new(io::stdout().lock());
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

/// Prints a line of each record. Several threads write the lines, some each.
fn print_records(records: Vec<Placed>) -> anyhow::Result<()> {
    let records = Arc::new(records);
    let chunks = (0..records.len()).step_by(RECORDS_WRITTEN).map(|from| (records.clone(), from));
    let mut texts = stream::iter(chunks)
        .map(|(records, from)| {
            tokio::task::spawn_blocking(move || {
                lines_of(&records[from..records.len().min(from + RECORDS_WRITTEN)])
            })
        })
        .buffered(CHUNKS_UNDER_WAY);
    let mut out = io::stdout().lock();
    Handle::current().block_on(async {
        while let Some(text) = texts.next().await {
            out.write_all(&text??)?;
        }
        Ok(())
    })
}

fn lines_of(records: &[Placed]) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(records.len() * LINE_BYTES);
    for row in records {
        let uid = row.uid.map(|uid| uid.to_string());
        let line = Line { record_key: &row.record_key, placement: row.placement.as_str(), uid };
        serde_json::to_writer(&mut text, &line)?;
        text.push(b'\n');
    }
    Ok(text)
}

fn print_table(resolver: &mut Resolver) -> anyhow::Result<()> {
    let (records, outcome) = resolver.outcome(|records| records)?;
    let uid = |uid: &serviceradar_streams::rows::Uid| Value::String(uid.to_string());
    let records: Vec<Vec<Value>> = records
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
