//! `config`: what is set, and where.

use clap::{Args, Subcommand};
use serde_json::Value;
use serviceradar_ops::config::{
    Layers,
    keys::{KEYS, Key},
};

use super::Context;
use crate::output;

/// Shows the configuration
#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Prints every key with its value; secrets are not printed
    Show {
        /// Prints where each value came from, too
        #[arg(long)]
        origin: bool,
    },
}

impl Config {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let Verb::Show { origin } = self.verb;
        let columns = if origin { &["key", "value", "origin"][..] } else { &["key", "value"] };
        let rows: Result<Vec<_>, _> = KEYS.iter().map(|key| row(key, &context.layers, origin)).collect();
        Ok(output::rows(context.format, columns, &rows?)?)
    }
}

fn row(key: &'static Key, layers: &Layers, origin: bool) -> anyhow::Result<Vec<Value>> {
    let value = layers.get(key.name)?;
    let shown = match value.text.as_str() {
        "" => Value::Null,
        _ if key.secret => "(secret)".into(),
        text => text.into(),
    };
    let mut row = vec![key.name.into(), shown];
    if origin {
        row.push(value.origin.to_string().into());
    }
    Ok(row)
}
