//! `rules`: the rules of identity as a document.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::Value;
use serviceradar_materializers::LAYOUT;
use serviceradar_streams::rules::Rules as Document;

use super::Context;
use crate::output::{self, Format};

/// Checks, shows and compares rules of identity
///
/// Rules are a TOML document: caps, windows, leases, authorities and what is too empty a fetch. What it leaves out has
/// its default. Other rules are another generation of the views.
#[derive(Debug, Args)]
pub(crate) struct Rules {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Says whether a document can be read, and what is wrong with it
    Check {
        /// The document
        file: PathBuf,
    },
    /// Prints rules whole, every default filled in
    Show {
        /// The document [default: the rules of the program]
        file: Option<PathBuf>,
    },
    /// Prints what differs between two documents
    Diff {
        /// The one
        before: PathBuf,
        /// The other [default: the rules of the program]
        after: Option<PathBuf>,
    },
}

impl Rules {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        match self.verb {
            Verb::Check { file } => {
                let fingerprint = read(&file)?.fingerprint(LAYOUT.version);
                let row = vec![file.display().to_string().into(), fingerprint.into()];
                Ok(output::rows(context.format, &["rules", "fingerprint"], &[row])?)
            }
            Verb::Show { file } => show(context.format, &or_default(file.as_deref())?),
            Verb::Diff { before, after } => {
                diff(context.format, &read(&before)?, &or_default(after.as_deref())?)
            }
        }
    }
}

/// Reads a document.
pub(crate) fn read(file: &Path) -> anyhow::Result<Document> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read rules from {}", file.display()))?;
    Document::from_toml(&text).with_context(|| file.display().to_string())
}

fn or_default(file: Option<&Path>) -> anyhow::Result<Document> {
    file.map_or_else(|| Ok(Document::default()), read)
}

fn show(format: Format, rules: &Document) -> anyhow::Result<()> {
    let text = match format {
        Format::Table => toml::to_string(rules)?,
        Format::Json => rules.canonical().to_string(),
    };
    Ok(output::line(text.trim_end())?)
}

fn diff(format: Format, before: &Document, after: &Document) -> anyhow::Result<()> {
    let (before, after) = (leaves(&before.canonical()), leaves(&after.canonical()));
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let side = |of: &BTreeMap<String, Value>, key| of.get(key).cloned().unwrap_or(Value::Null);
    let rows: Vec<Vec<Value>> = keys
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| vec![Value::from(key.as_str()), side(&before, key), side(&after, key)])
        .collect();
    Ok(output::rows(format, &["key", "before", "after"], &rows)?)
}

/// What is not made of parts, by its path.
fn leaves(value: &Value) -> BTreeMap<String, Value> {
    fn put(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(parts) => {
                for (name, part) in parts {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    put(&path, part, into);
                }
            }
            leaf => drop(into.insert(path.to_owned(), leaf.clone())),
        }
    }
    let mut into = BTreeMap::new();
    put("", value, &mut into);
    into
}
