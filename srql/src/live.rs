//! Live queries: the rows as they are, and what becomes of them, epoch by epoch.
//!
//! What an epoch changed is read again under the query's conditions: what still meets them is told whole, what does not is
//! told to be gone, whether it was told before or not.

use serde_json::{Value, json};

use crate::{
    catalogue::Live,
    plan::Column,
    statement::{Parameter, Statement},
    written::Object,
};

/// Keys, or rows, that one look tells of; where more changed, all is told anew.
pub const CHANGED_MAX: i64 = 10_000;
/// How far behind changes are followed, microseconds: they are kept for an hour. Who is further behind starts anew.
const FOLLOWED: i64 = 50 * 60 * 1_000_000;

/// How a live query is answered.
#[derive(Clone, Debug)]
pub struct Follow {
    /// The rows that changed; behind the columns of each is its key, as in the plan's own statement. Its last parameters say which: the keys, or the generation and the epochs.
    pub(crate) changed: Statement,
    /// How they are found.
    pub(crate) live: Live,
    /// Whether the query names when things were seen: other queries are not told of sightings alone.
    pub(crate) names_sightings: bool,
}

/// Up to where a live query was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The generation.
    pub generation: i64,
    /// The last epoch; 0 before the first.
    pub epoch: i64,
    /// When its input was closed, microseconds since 1970.
    pub complete_to: Option<i64>,
}

impl Position {
    /// Whether what changed since can be told from here; else all is told anew.
    pub(crate) fn leads_to(&self, now: &Position) -> bool {
        let behind = now.complete_to.unwrap_or_default().saturating_sub(self.complete_to.unwrap_or_default());
        self.generation == now.generation && self.epoch <= now.epoch && self.epoch > 0 && behind <= FOLLOWED
    }
}

/// What a live query is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// All that was told is no longer so: it begins anew.
    Reset,
    /// A row that meets the conditions, with its key.
    Upsert(String, Vec<Value>),
    /// Nothing with this key meets them, but for what is told of it next.
    Gone(String),
    /// All was told up to here.
    Current,
}

impl Event {
    /// Its name, and as one object.
    pub fn told(&self, at: Position, columns: &[Column]) -> (&'static str, Value) {
        let (name, key, row) = match self {
            Event::Reset => ("reset", None, None),
            Event::Upsert(key, row) => ("upsert", Some(key), Some(json!(Object(columns, row)))),
            Event::Gone(key) => ("gone", Some(key), None),
            Event::Current => ("current", None, None),
        };
        let mut told = json!({ "event": name, "generation": at.generation, "epoch": at.epoch });
        if let Some(key) = key {
            told["key"] = json!(key);
        }
        if let Some(row) = row {
            told["row"] = json!(row);
        }
        (name, told)
    }
}

impl Follow {
    /// The statement of what changed from one place to another.
    pub(crate) fn since(&self, from: Position, to: Position, keys: &[String]) -> Statement {
        let mut changed = self.changed.clone();
        let given = match self.live {
            Live::Added(_) => {
                [to.generation, from.epoch, to.epoch].map(Parameter::Integer).into_iter().collect()
            }
            Live::Keys { .. } | Live::None => vec![Parameter::Texts(keys.to_vec())],
        };
        changed.parameters.truncate(changed.parameters.len().saturating_sub(given.len()));
        changed.parameters.extend(given);
        changed
    }

    /// What is told of keys that changed, with the rows that have them now, in the order of the keys.
    pub(crate) fn told(&self, keys: Vec<String>, rows: Vec<(String, Vec<Value>)>) -> Vec<Event> {
        let Live::Keys { has_many, .. } = self.live else {
            return rows.into_iter().map(|(key, row)| Event::Upsert(key, row)).collect();
        };
        let mut events = Vec::with_capacity(keys.len().max(rows.len()));
        let mut rows = rows.into_iter().peekable();
        for key in keys {
            let is_here = rows.peek().is_some_and(|(of, _)| *of == key);
            if has_many || !is_here {
                events.push(Event::Gone(key.clone()));
            }
            while let Some((of, row)) = rows.next_if(|(of, _)| *of == key) {
                events.push(Event::Upsert(of, row));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(has_many: bool) -> Follow {
        let live = Live::Keys { of: &["devices"], key: "", changed: "", has_many };
        Follow { changed: Statement::default(), live, names_sightings: false }
    }

    #[test]
    fn every_key_that_changed_is_told_once_and_gone_where_nothing_has_it() {
        let keys = ["a", "b", "c"].map(str::to_owned).to_vec();
        let row = |key: &str, n: i64| (key.to_owned(), vec![json!(n)]);
        let upsert = |key: &str, n: i64| Event::Upsert(key.to_owned(), vec![json!(n)]);
        let gone = |key: &str| Event::Gone(key.to_owned());
        let told = follow(false).told(keys.clone(), vec![row("b", 1)]);
        assert_eq!(told, [gone("a"), upsert("b", 1), gone("c")]);
        let told = follow(true).told(keys, vec![row("b", 1), row("b", 2)]);
        assert_eq!(told, [gone("a"), gone("b"), upsert("b", 1), upsert("b", 2), gone("c")]);
    }

    #[test]
    fn what_cannot_be_followed_begins_anew() {
        let at = |generation, epoch, minutes: i64| Position {
            generation,
            epoch,
            complete_to: Some(minutes * 60_000_000),
        };
        assert!(at(1, 5, 0).leads_to(&at(1, 9, 1)));
        assert!(at(1, 5, 0).leads_to(&at(1, 5, 0)));
        for (from, to) in [
            (at(1, 5, 0), at(2, 9, 1)),
            (at(1, 5, 0), at(1, 4, 1)),
            (at(1, 0, 0), at(1, 1, 0)),
            (at(1, 5, 0), at(1, 9, 51)),
        ] {
            assert!(!from.leads_to(&to), "{from:?} {to:?}");
        }
    }
}
