//! `schema`: the contract with whoever publishes or reads events.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use serviceradar_schemas::{
    catalogue::{EVENTS, EventSchema, check},
    codec::Unavailable,
    hex,
    registry::Registry,
};

use super::Context;
use crate::{exit::Wanting, output, registry};

/// Longest schema that is read, bytes.
const SCHEMA_BYTES_MAX: u64 = 1 << 20;

/// Lists, shows, exports and checks the schemas of events
#[derive(Debug, Args)]
pub(crate) struct Schema {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the schemas: event, subject in a registry, fingerprint (CRC-64-AVRO), fields
    List,
    /// Prints a schema
    Show {
        /// The event, e.g. Observation or serviceradar.v1.Observation
        #[arg(value_parser = EventSchema::named)]
        event: &'static EventSchema,
    },
    /// Writes each schema to a file of its own; files that are other schemas stay, and are an error
    Export {
        /// The folder
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Looks whether schemas can read all that was ever written (BACKWARD_TRANSITIVE)
    ///
    /// Compares each with every version of its event that this program has and, where one is configured, asks the
    /// schema registry.
    Check {
        /// New versions of a schema, `-` for stdin [default: the ones of this program]
        files: Vec<PathBuf>,
    },
}

impl Schema {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self.verb {
            Verb::List => list(context),
            Verb::Show { event } => Ok(output::line(event.text.trim_end())?),
            Verb::Export { folder } => export(context, &folder),
            Verb::Check { files } => check_all(context, &files).await,
        }
    }
}

fn list(context: &Context) -> anyhow::Result<()> {
    let row = |event: &EventSchema| {
        let subject = event.subject(&context.config.tenant);
        let fingerprint = hex::encode(&event.fingerprint);
        vec![event.name.into(), subject.into(), fingerprint.into(), event.fields().len().into()]
    };
    let rows: Vec<_> = EVENTS.iter().map(row).collect();
    Ok(output::rows(context.format, &["event", "subject", "fingerprint", "fields"], &rows)?)
}

fn export(context: &Context, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut rows = Vec::new();
    let mut missing = Vec::new();
    // All are looked at before one is written.
    for event in &EVENTS {
        let path = folder.join(event.file);
        let state = match std::fs::read(&path) {
            Ok(there) if there == event.text.as_bytes() => "unchanged",
            Ok(_) => bail!(
                "{} is another schema, and nothing was written: delete it, or name another folder",
                path.display()
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.push((path.clone(), event.text));
                "written"
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        rows.push(vec![path.display().to_string().into(), event.name.into(), state.into()]);
    }
    for (path, text) in missing {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(output::rows(context.format, &["file", "event", "state"], &rows)?)
}

/// A schema that may become the next version.
struct Candidate {
    /// Where it is from.
    name: String,
    text: String,
}

async fn check_all(context: &Context, files: &[PathBuf]) -> anyhow::Result<()> {
    let registry = registry::client(&context.config)?;
    let candidates: Vec<Candidate> = match files {
        [] => {
            EVENTS.iter().map(|of| Candidate { name: of.name.to_owned(), text: of.text.to_owned() }).collect()
        }
        files => files.iter().map(|file| read(file)).collect::<Result<_, _>>()?,
    };
    let (mut rows, mut wrong) = (Vec::new(), 0);
    for candidate in &candidates {
        let refused = refusal(context, registry.as_ref(), &candidate.text).await.context(registry::ADVICE)?;
        wrong += usize::from(refused.is_some());
        let state = if refused.is_none() { "fine" } else { "wrong" };
        rows.push(vec![
            candidate.name.as_str().into(),
            state.into(),
            refused.map_or(Value::Null, Value::from),
        ]);
    }
    output::rows(context.format, &["schema", "state", "detail"], &rows)?;
    match wrong {
        0 => Ok(()),
        _ => Err(Wanting(format!(
            "{wrong} of the above cannot be the next version: give new fields a default, and keep the types of others"
        ))
        .into()),
    }
}

fn read(file: &Path) -> anyhow::Result<Candidate> {
    let source: io::Result<Box<dyn Read>> = match file.to_str() {
        Some("-") => Ok(Box::new(io::stdin())),
        _ => std::fs::File::open(file).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let mut text = String::new();
    source
        .and_then(|source| source.take(SCHEMA_BYTES_MAX).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Candidate { name: file.display().to_string(), text })
}

/// Why a candidate cannot be the next version, by ourselves or by the registry.
async fn refusal(
    context: &Context,
    registry: Option<&Registry>,
    candidate: &str,
) -> Result<Option<String>, Unavailable> {
    let event = match check(candidate) {
        Ok(event) => event,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let tenant = &context.config.tenant;
    Ok(match registry {
        Some(registry) if !registry.takes(tenant, event, candidate).await? => {
            Some(format!("the schema registry would refuse it as a version of {}", event.subject(tenant)))
        }
        _ => None,
    })
}
