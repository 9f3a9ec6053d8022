//! `replay diff`: how two generations differ.

use std::collections::BTreeMap;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use serviceradar_materializers::{
    PostgresViews,
    postgres::{Difference, Kind},
};
use serviceradar_replay::verify::fields;

use super::super::Context;
use crate::output::{self, Format};

/// Differences that a table shows; JSON has all.
const SHOWN: usize = 50;

/// Says how two generations differ
///
/// Which devices appeared, vanished, were merged, split or changed, from the first to the second, at one moment. Where the
/// two stand at different places of the log, what changed within the last minute is left out; not beside one of the past, which
/// stands still. JSON has a line for each device, with both rows.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The first
    from: i32,
    /// The second
    to: i32,
}

impl Diff {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let views = super::views(context).await?;
        let (from, to, tenant) = (self.from, self.to, &context.config.tenant);
        for of in views.generations().await?.iter().filter(|of| [from, to].contains(&of.id)) {
            if let Some(past) = of.past.as_ref().filter(|past| past.tenant != *tenant) {
                bail!(
                    "generation {} has nothing of tenant {tenant}: it is of tenant {} alone, give --tenant",
                    of.id,
                    past.tenant
                );
            }
        }
        print(context, &views, tenant, (from, to)).await.map(drop)
    }
}

/// Prints how two generations of a tenant differ; returns how many devices do.
pub(super) async fn print(
    context: &Context,
    views: &PostgresViews,
    tenant: &str,
    (from, to): (i32, i32),
) -> anyhow::Result<u64> {
    let format = context.format;
    let (mut counts, mut rows) = (BTreeMap::<&str, u64>::new(), Vec::new());
    let unsure = views
        .diff(from, to, tenant, |difference| {
            let (word, other) = match difference.kind {
                Kind::Appeared => ("appeared", None),
                Kind::Vanished => ("vanished", None),
                Kind::Merged(into) => ("merged", Some(into)),
                Kind::Split(out_of) => ("split", Some(out_of)),
                Kind::Changed => ("changed", None),
            };
            *counts.entry(word).or_default() += 1;
            let other = other.map(|uid| uid.to_string());
            let Difference { uid, before, after, .. } = difference;
            if format == Format::Json {
                let line = json!({
                    "tenant": tenant, "uid": uid.to_string(), "difference": word, "other": other,
                    "before": before, "after": after,
                });
                return Ok::<_, anyhow::Error>(output::line(&line.to_string())?);
            }
            if rows.len() < SHOWN {
                let name = after.as_ref().or(before.as_ref()).and_then(|device| device.name.clone());
                let [before, after] =
                    [&before, &after].map(|of| serde_json::to_value(of).unwrap_or_default());
                let columns: Vec<&str> = match word {
                    "changed" => fields(&before, &after).into_iter().map(|(column, ..)| column).collect(),
                    _ => Vec::new(),
                };
                let row = [
                    Value::from(uid.to_string()),
                    name.into(),
                    word.into(),
                    other.into(),
                    columns.join(", ").into(),
                ];
                rows.push(row.to_vec());
            }
            Ok(())
        })
        .await?;
    let differing = counts.values().sum();
    if format == Format::Table {
        if !rows.is_empty() {
            output::rows(format, &["uid", "name", "difference", "other", "columns"], &rows)?;
        }
        let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        let unsure = match unsure {
            0 => String::new(),
            unsure => format!("; {unsure} more changed just now, and were left out"),
        };
        output::line(&match counts.as_slice() {
            [] => format!("tenant {tenant}: generations {from} and {to} have the same devices{unsure}"),
            counts => {
                format!("tenant {tenant}, from generation {from} to {to}: {}{unsure}", counts.join(", "))
            }
        })?;
    }
    Ok(differing)
}
