//! `query`: questions in SRQL, answered from the views: one, those on stdin, or those that are typed.

mod answers;
mod line;
mod script;
mod session;
mod shell;

use std::io::{self, IsTerminal};

use answers::{Rows, Written};
use clap::Args;
use serviceradar_srql::{
    error::{Code, QueryError},
    reference::reference,
};
use session::Session;

use super::Context;
use crate::output::{self, Format};

/// Answers questions in SRQL, e.g. in:devices vendor_name:Cisco last_seen:<-7d sort:last_seen
///
/// Without a query it is a shell on a terminal; elsewhere it answers those on stdin, one per line, up to the first mistake.
#[derive(Debug, Args)]
pub(crate) struct Query {
    /// The query; its words may be given one by one
    #[arg(value_name = "QUERY")]
    words: Vec<String>,
    /// How rows are written; unless said a table, or one object per line with --output json
    #[arg(long = "as", value_name = "FORMAT")]
    written: Option<Written>,
    /// Shows the statement and its parameters, and asks nothing
    #[arg(long)]
    translate: bool,
    /// Goes on from a page of --as json: its next_cursor or prev_cursor
    #[arg(long, value_name = "CURSOR", requires = "words")]
    cursor: Option<String>,
    /// Shows all that can be asked for, and every field of it
    #[arg(long)]
    reference: bool,
}

/// A query that cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(.query, .mistakes))]
pub(crate) struct Refused {
    query: String,
    mistakes: Vec<QueryError>,
}

impl Refused {
    fn new(query: &str, mistakes: Vec<QueryError>) -> Self {
        Self { query: query.to_owned(), mistakes }
    }

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
        let format = context.format;
        let written = self.written.unwrap_or(match format {
            Format::Table => Written::Table,
            Format::Json => Written::Ndjson,
        });
        let asking = Asking { written, translates: self.translate, format };
        let mut session = Session::new(&context.config);
        if !self.words.is_empty() {
            let query = self.words.join(" ");
            return asking.answer(&mut session, &query, self.cursor.as_deref()).await;
        }
        if io::stdin().is_terminal() && io::stdout().is_terminal() {
            return shell::run(session, asking, &context.config).await;
        }
        script::run(&mut session, asking).await
    }
}

/// What becomes of a query.
#[derive(Clone, Copy)]
struct Asking {
    /// How its answer is written.
    written: Written,
    /// Whether its statement is shown instead.
    translates: bool,
    /// How that is written.
    format: Format,
}

impl Asking {
    /// Answers a query on stdout.
    async fn answer(
        self,
        session: &mut Session<'_>,
        query: &str,
        cursor: Option<&str>,
    ) -> anyhow::Result<()> {
        let by_rows = self.written.by_rows();
        if by_rows.is_some() && cursor.is_some() {
            let said = "--cursor goes on from a page, and this format writes all rows: ask --as json";
            return Err(Refused::new(query, vec![QueryError::new(Code::BadValue, (0, 0), said)]).into());
        }
        let planned = if by_rows.is_some() { session.all(query)? } else { session.page(query, cursor)? };
        if self.translates {
            return Ok(answers::translation(self.format, &planned.plan)?);
        }
        let Some(by_rows) = by_rows else {
            let answer = session.answer(&planned).await?;
            answers::page(self.written, &planned.plan, &answer, |from| session.cursor(&planned, from))?;
            if let (Written::Table, Some(total)) = (self.written, answer.total) {
                output::line(&format!("{} of {total}", answer.rows.len()))?;
            }
            return Ok(());
        };
        // Only where there is a database to answer, or what was written would look like an answer without rows.
        session.connect().await?;
        let mut rows = Rows::begin(by_rows, &planned.plan.columns)?;
        let mut put = Ok(());
        let take = |row: Vec<_>| {
            put = rows.put(&row);
            put.is_ok()
        };
        session.read(&planned, take).await?;
        put?;
        Ok(rows.end()?)
    }
}

#[cfg(test)]
mod tests {
    use serviceradar_srql::plan::{Extent, plan};

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
