//! `query`: a question in SRQL, answered from the views.

use std::io::{self, Write};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use serviceradar_schemas::time::{Clock, SystemClock};
use serviceradar_srql::{
    cursor::{Asker, Cursors},
    error::{Code, QueryError},
    plan::{Extent, Plan, Shape, plan},
    reader::{Answer, Reader},
    reference::reference,
    service::told as told_whole,
    written::{csv_header, csv_row, object, text},
};

use super::Context;
use crate::{
    lag,
    output::{self, Format},
};

/// Answers a question in SRQL, e.g. in:devices vendor_name:Cisco last_seen:<-7d sort:last_seen
#[derive(Debug, Args)]
pub(crate) struct Query {
    /// The query; its words may be given one by one
    #[arg(required_unless_present = "reference", value_name = "QUERY")]
    words: Vec<String>,
    /// How rows are written; unless said a table, or one object per line with --output json
    #[arg(long = "as", value_name = "FORMAT")]
    written: Option<Written>,
    /// Shows the statement and its parameters, and asks nothing
    #[arg(long)]
    translate: bool,
    /// Goes on from a page of --as json: its next_cursor or prev_cursor
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Shows all that can be asked for, and every field of it
    #[arg(long)]
    reference: bool,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Written {
    /// Aligned columns, without those that nothing is in
    Table,
    /// One object: results and what they are of
    Json,
    /// One object per line, and all rows unless limit: is said
    Ndjson,
    /// Comma-separated values, and all rows unless limit: is said
    Csv,
}

/// A query that cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(.query, .mistakes))]
pub(crate) struct Refused {
    query: String,
    mistakes: Vec<QueryError>,
}

impl Refused {
    /// Whether it is for what is missing, not for what was asked.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.mistakes.iter().any(|mistake| mistake.code == Code::Unavailable)
    }

    /// Whether it is for what was asked.
    pub(crate) fn is_mistaken(&self) -> bool {
        !self.mistakes.iter().any(|mistake| matches!(mistake.code, Code::Unavailable | Code::Timeout))
    }
}

/// Each mistake, and where in the query it is.
fn told(query: &str, mistakes: &[QueryError]) -> String {
    let each = mistakes.iter().map(|mistake| {
        let (from, to) = mistake.span;
        let is_one_line = !query.contains(['\n', '\r', '\t']);
        let (Some(before), Some(at)) = (query.get(..from), query.get(from..to)) else {
            return mistake.to_string();
        };
        if at.is_empty() || !is_one_line {
            return mistake.to_string();
        }
        let marks = "^".repeat(at.chars().count());
        format!("{mistake}\n  {query}\n  {}{marks}", " ".repeat(before.chars().count()))
    });
    each.collect::<Vec<_>>().join("\n")
}

impl Query {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        if self.reference {
            return Ok(output::line(reference().trim_end())?);
        }
        let query = self.words.join(" ");
        let refused = |mistakes| Refused { query: query.clone(), mistakes };
        let written = self.written.unwrap_or(match context.format {
            Format::Table => Written::Table,
            Format::Json => Written::Ndjson,
        });
        let now = SystemClock.now();
        // Whoever reads the database could write any cursor: the key keeps mistakes away, and nobody.
        let (asker, cursors) =
            (Asker { tenant: &context.config.tenant, principal: "query" }, Cursors::new(b"query"));
        let planned = match written {
            Written::Table | Written::Json => cursors.plan(asker, &query, now, None, self.cursor.as_deref()),
            Written::Ndjson | Written::Csv => {
                plan(&query, now, Extent::All { limit: None }).map(|plan| (plan, now))
            }
        };
        let (plan, now) = planned.map_err(refused)?;
        if self.translate {
            return translate(context.format, &plan);
        }
        let config = &context.config;
        let url = lag::database_url(config).with_context(|| {
            format!("no database: give --database, or start a pipeline on {}", config.dir.display())
        })?;
        let one = |mistake| refused(vec![mistake]);
        let mut reader = Reader::connect(&url, None).await.map_err(one)?;
        match written {
            Written::Table => table(&reader.answer(&config.tenant, &plan).await.map_err(one)?),
            Written::Json => {
                let answer = reader.answer(&config.tenant, &plan).await.map_err(one)?;
                let write = |from| cursors.write(asker, &plan, now, from);
                Ok(output::line(&told_whole(&plan, &answer, write).to_string())?)
            }
            Written::Ndjson => {
                let mut out = io::BufWriter::new(io::stdout().lock());
                let mut written = Ok(());
                let take = |row: Vec<Value>| {
                    written = writeln!(out, "{}", object(&plan.columns, &row));
                    written.is_ok()
                };
                reader.read(&config.tenant, &plan, take).await.map_err(one)?;
                written?;
                Ok(out.flush()?)
            }
            Written::Csv => {
                let mut out = io::BufWriter::new(io::stdout().lock());
                csv_header(&plan.columns, &mut out)?;
                let mut written = Ok(());
                let take = |row: Vec<Value>| {
                    written = csv_row(&row, &mut out);
                    written.is_ok()
                };
                reader.read(&config.tenant, &plan, take).await.map_err(one)?;
                written?;
                Ok(out.flush()?)
            }
        }
    }
}

fn translate(format: Format, plan: &Plan) -> anyhow::Result<()> {
    // Without a cursor it is one.
    for statement in &plan.statements {
        let parameters: Vec<String> = statement.parameters.iter().map(|of| format!("{of:?}")).collect();
        if format == Format::Json {
            output::line(&json!({ "sql": statement.sql, "parameters": parameters }).to_string())?;
            continue;
        }
        output::line(&statement.sql)?;
        for (number, parameter) in (1..).zip(parameters) {
            output::line(&format!("${number} = {parameter}"))?;
        }
    }
    Ok(())
}

/// Columns in which something is, but for those that are objects.
fn table(answer: &Answer) -> anyhow::Result<()> {
    let is_shown = |at: &usize| {
        let column = &answer.columns[*at];
        let is_told = column.shape != Shape::Json && column.name != "device_id";
        is_told && answer.rows.iter().any(|row| !row[*at].is_null())
    };
    let shown: Vec<usize> = (0..answer.columns.len()).filter(is_shown).collect();
    let names: Vec<&str> = shown.iter().map(|at| answer.columns[*at].name.as_str()).collect();
    let cell = |value: &Value| match value {
        Value::Array(items) => Value::String(items.iter().map(text).collect::<Vec<_>>().join(", ")),
        other => other.clone(),
    };
    let rows: Vec<Vec<Value>> =
        answer.rows.iter().map(|row| shown.iter().map(|at| cell(&row[*at])).collect()).collect();
    if rows.is_empty() {
        output::line("no rows")?;
    } else {
        output::rows(Format::Table, &names, &rows)?;
    }
    if let Some(total) = answer.total {
        output::line(&format!("{} of {total}", answer.rows.len()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        let query = "in:devices hostnme:x";
        let mistakes = plan(query, 0, Extent::first()).unwrap_err();
        assert_eq!(
            told(query, &mistakes),
            "devices has no field 'hostnme': did you mean hostname?\n  in:devices hostnme:x\n             ^^^^^^^"
        );
    }
}
