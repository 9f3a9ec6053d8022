//! `replay verify`: are the views what the log says?

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Args;
use serde_json::{Value, json};
use serviceradar_replay::verify::{Difference, Step, Verdict, Verify as Verification, fields};
use serviceradar_schemas::time::SystemClock;

use super::super::Context;
use crate::{
    exit::Wanting,
    log_store,
    output::{self, Format},
    pipeline::WORKERS,
    progress::Progress,
    registry,
};

/// Longest value that is shown in a table, characters; JSON has all of it.
const VALUE_CHARS_MAX: usize = 120;

/// Compares the views with the log, read anew, and with the sums that their writer kept
///
/// Looks at what is committed when it begins; the pipeline goes on meanwhile. Prints of each table how many rows it has,
/// and in how many of its 1,024 buckets (of a small table: rows) they are not what the log says, or not what the writer's
/// sums say; then the rows that differ. Ends with 4 where something differs.
#[derive(Debug, Args)]
pub(crate) struct Verify {}

impl Verify {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = &context.config;
        let views = super::views(context).await?;
        let verification = Verification {
            tenant: config.tenant.clone(),
            workers: WORKERS,
            log: log_store::reach(config).await?,
            writers: registry::register(config).await?.writers,
            clock: Arc::new(SystemClock),
        };
        let progress = Arc::new(Mutex::new(Bars {
            of_log: Progress::begin("log", "reading the log"),
            of_database: Progress::begin("database", "reading the views"),
        }));
        let told = move |step| progress.lock().unwrap_or_else(PoisonError::into_inner).at(step);
        let verdict = verification.run(&views, told).await?;
        match context.format {
            Format::Json => output::line(&serde_json::to_string(&verdict)?)?,
            Format::Table => print(&verdict)?,
        }
        if verdict.is_clean() {
            return Ok(());
        }
        Err(Wanting(format!(
            "the views of tenant {} are not what the log says: find out who wrote, and build them anew: `serviceradar replay rebuild`",
            config.tenant
        ))
        .into())
    }
}

/// How far both sides are.
struct Bars {
    of_log: Progress,
    of_database: Progress,
}

impl Bars {
    fn at(&mut self, step: Step) {
        match step {
            Step::Log(done, total) => self.of_log.at(done, total),
            Step::Database(rows) => self.of_database.at(rows, rows),
        }
    }
}

fn print(verdict: &Verdict) -> anyhow::Result<()> {
    let Verdict { generation, epoch, events, refused, readable, tables, differences, .. } = verdict;
    output::line(&format!(
        "generation {generation} at epoch {epoch}, against {events} events of the log, {refused} of them refused"
    ))?;
    let rows: Vec<Vec<Value>> = tables
        .iter()
        .map(|of| vec![of.table.into(), of.rows.into(), of.differing.into(), of.unlike_kept.into()])
        .collect();
    output::rows(Format::Table, &["table", "rows", "unlike the log", "unlike the sums kept"], &rows)?;
    if !readable.is_empty() {
        output::line(&format!(
            "{} events that were refused could be read now, and views built anew would have them: {}",
            readable.len(),
            readable.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
        ))?;
    }
    let mut by_table: BTreeMap<&str, Vec<Vec<Value>>> = BTreeMap::new();
    for difference in differences {
        by_table.entry(difference.table).or_default().extend(rows_of(difference));
    }
    for (table, rows) in by_table {
        output::line("")?;
        output::rows(Format::Table, &[table, "column", "in the database", "by the log"], &rows)?;
    }
    Ok(())
}

/// What of a row differs, a line each.
fn rows_of(difference: &Difference) -> Vec<Vec<Value>> {
    let Difference { key, stored, recomputed, .. } = difference;
    let line = |column: &str, stored: &Value, recomputed: &Value| {
        vec![json!(key), json!(column), shown(stored), shown(recomputed)]
    };
    match (stored, recomputed) {
        (Some(stored), Some(recomputed)) => fields(stored, recomputed)
            .into_iter()
            .map(|(column, stored, recomputed)| line(column, stored, recomputed))
            .collect(),
        (Some(_), None) => vec![line("", &json!("there"), &json!("no such row"))],
        _ => vec![line("", &json!("no such row"), &json!("there"))],
    }
}

fn shown(value: &Value) -> Value {
    let text = match value {
        Value::Null => return Value::Null,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= VALUE_CHARS_MAX {
        return text.into();
    }
    format!("{}…", text.chars().take(VALUE_CHARS_MAX).collect::<String>()).into()
}
