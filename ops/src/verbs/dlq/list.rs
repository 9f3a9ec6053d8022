//! `dlq list`: which dead letters there are.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::Value;
use serviceradar_replay::letters::{Letter, Marks, Scan, marks};
use serviceradar_schemas::{excerpt, time};

use super::{Context, READING, Which, words};
use crate::{log_store, output, progress::Progress};

/// Letters that are listed at most: rows of a few hundred bytes.
const LIMIT_MAX: u64 = 100_000;
/// Reasons that are told apart in a summary: one that names what an event says may be another each time.
const REASONS_MAX: usize = 1_000;
/// What takes the place of those beyond.
const OTHER_REASONS: &str = "(other reasons)";

/// Lists dead letters.
#[derive(Debug, Args)]
pub(super) struct List {
    /// As many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=LIMIT_MAX))]
    limit: u64,
    /// The oldest first
    #[arg(long)]
    oldest_first: bool,
    /// How many there are of each reason, and since when
    #[arg(long)]
    summary: bool,
    #[command(flatten)]
    which: Which,
}

impl List {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = &context.config;
        let log = log_store::reach(config).await?;
        let choice = self.which.choice(config);
        let marks = marks(log.clone(), &config.tenant, self.which.since).await?;
        let mut scan = Scan::begin(log, &config.tenant, self.which.since).await?;
        let (mut listed, mut summary) = (Listed::new(&self), Summary::default());
        let (mut progress, total) = (Progress::begin("dead letters", READING), scan.left());
        while let Some(letters) = scan.next_letters().await? {
            progress.at(total.saturating_sub(scan.left()), total);
            for letter in letters.iter().filter(|letter| choice.takes(letter)) {
                match self.summary {
                    true => summary.count(letter, &marks),
                    false => listed.put(letter, &marks),
                }
            }
        }
        progress.end(total, "all dead letters are read");
        let format = context.format;
        let written = match self.summary {
            true => output::rows(format, &Summary::COLUMNS, &summary.rows()),
            false => output::rows(format, &Listed::COLUMNS, &listed.rows()),
        };
        Ok(written?)
    }
}

/// The first or the last letters, as many as are asked for.
struct Listed {
    limit: usize,
    oldest_first: bool,
    /// By when they were written, and where they stand.
    rows: BTreeMap<(i64, (u32, u64)), Vec<Value>>,
}

impl Listed {
    const COLUMNS: [&str; 6] = ["id", "when", "bytes", "key", "replayed", "reason"];

    fn new(of: &List) -> Self {
        let limit = usize::try_from(of.limit).unwrap_or(usize::MAX);
        Self { limit, oldest_first: of.oldest_first, rows: BTreeMap::new() }
    }

    fn put(&mut self, letter: &Letter, marks: &Marks) {
        let row = vec![
            letter.id.to_string().into(),
            time::format(letter.at).into(),
            letter.bytes().into(),
            letter.key.as_deref().map(words).into(),
            marks.of(letter).map(time::format).into(),
            excerpt(&letter.reason).into(),
        ];
        self.rows.insert((letter.at, letter.place), row);
        if self.rows.len() > self.limit {
            if self.oldest_first {
                self.rows.pop_last()
            } else {
                self.rows.pop_first()
            };
        }
    }

    fn rows(self) -> Vec<Vec<Value>> {
        let mut rows: Vec<_> = self.rows.into_values().collect();
        if !self.oldest_first {
            rows.reverse();
        }
        rows
    }
}

/// How many letters there are of each topic and reason.
#[derive(Default)]
struct Summary(BTreeMap<(String, String), Counted>);

#[derive(Default)]
struct Counted {
    letters: u64,
    replayed: u64,
    first: i64,
    last: i64,
}

impl Summary {
    const COLUMNS: [&str; 6] = ["topic", "letters", "replayed", "first", "last", "reason"];

    fn count(&mut self, letter: &Letter, marks: &Marks) {
        let mut key = (letter.id.topic.clone(), excerpt(&letter.reason));
        if self.0.len() >= REASONS_MAX && !self.0.contains_key(&key) {
            key = (String::new(), OTHER_REASONS.to_owned());
        }
        let first = Counted { first: letter.at, last: letter.at, ..Counted::default() };
        let counted = self.0.entry(key).or_insert(first);
        counted.letters += 1;
        counted.replayed += u64::from(marks.of(letter).is_some());
        counted.first = counted.first.min(letter.at);
        counted.last = counted.last.max(letter.at);
    }

    /// The most frequent first.
    fn rows(self) -> Vec<Vec<Value>> {
        let mut counted: Vec<_> = self.0.into_iter().collect();
        counted.sort_by(|(a, of_a), (b, of_b)| of_b.letters.cmp(&of_a.letters).then(a.cmp(b)));
        let row = |((topic, reason), of): ((String, String), Counted)| {
            let topic = Some(topic).filter(|topic| !topic.is_empty());
            vec![
                topic.into(),
                of.letters.into(),
                of.replayed.into(),
                time::format(of.first).into(),
                time::format(of.last).into(),
                reason.into(),
            ]
        };
        counted.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: u64, at: i64, reason: &str) -> Letter {
        Letter {
            id: format!("t.observations/0/{offset}").parse().unwrap(),
            at,
            place: (0, offset),
            reason: reason.to_owned(),
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    /// Whatever the order of the log partitions, and never more in memory than is asked for.
    #[test]
    fn the_first_or_the_last_are_kept() {
        let listed = |oldest_first: bool| {
            let mut listed = Listed { limit: 2, oldest_first, rows: BTreeMap::new() };
            for (offset, at) in [(1, 10), (2, 30), (3, 20), (4, 40)] {
                listed.put(&letter(offset, at, "why"), &Marks::default());
                assert!(listed.rows.len() <= 2);
            }
            listed.rows().iter().map(|row| row[0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(listed(false), ["t.observations/0/4", "t.observations/0/2"]);
        assert_eq!(listed(true), ["t.observations/0/1", "t.observations/0/3"]);
    }

    #[test]
    fn a_summary_has_an_end() {
        let mut summary = Summary::default();
        for n in 0..3 * REASONS_MAX as u64 {
            summary.count(&letter(n, 5, &n.to_string()), &Marks::default());
        }
        summary.count(&letter(0, 9, "0"), &Marks::default());
        let rows = summary.rows();
        assert_eq!(rows.len(), REASONS_MAX + 1);
        assert_eq!((&rows[0][1], &rows[0][5]), (&(2 * REASONS_MAX as u64).into(), &OTHER_REASONS.into()));
        assert_eq!((&rows[1][1], &rows[1][5]), (&2.into(), &"0".into()));
    }
}
