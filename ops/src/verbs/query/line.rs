//! What a line means that is typed into the shell, and what may stand in it.

use clap::ValueEnum;
use serviceradar_srql::complete::{Offer, complete};

use super::answers::Written;

/// The commands, each with what it does.
const COMMANDS: [(&str, &str); 6] = [
    ("help", "What may be typed here"),
    ("next", "The next page of the last answer"),
    ("prev", "The page before it"),
    ("as", "How answers are written: as table, as json, as ndjson, as csv"),
    ("translate", "The SQL of a query, or of the last one; nothing is asked"),
    ("exit", "Ends, as Ctrl-D does"),
];

/// What a line means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// Nothing: it is blank, or a comment.
    Nothing,
    /// What may be typed.
    Help,
    /// The next page.
    Next,
    /// The page before.
    Previous,
    /// From now on answers are written so; none: that is no way to write them.
    As(Option<Written>),
    /// The SQL of a query; none: of the last one.
    Translate(Option<&'a str>),
    /// The end.
    Exit,
    /// A query.
    Query(&'a str),
}

impl<'a> Line<'a> {
    /// Reads a line. No query is taken for a command: each query has `in:`.
    pub(crate) fn of(line: &'a str) -> Self {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Line::Nothing;
        }
        match line.split_once(char::is_whitespace).map(|(first, rest)| (first, rest.trim_start())) {
            None => match line {
                "help" => Line::Help,
                "next" => Line::Next,
                "prev" => Line::Previous,
                "as" => Line::As(None),
                "translate" => Line::Translate(None),
                "exit" | "quit" => Line::Exit,
                _ => Line::Query(line),
            },
            Some(("as", form)) if !form.contains(':') => {
                Line::As(shown().find(|written| written.name().eq_ignore_ascii_case(form)))
            }
            Some(("translate", query)) => Line::Translate(Some(query)),
            Some(_) => Line::Query(line),
        }
    }
}

/// How answers are written on a terminal.
fn shown() -> impl Iterator<Item = Written> {
    Written::value_variants().iter().copied().filter(|written| *written != Written::Arrow)
}

/// What may stand at a place of a line: where the word begins that an offer takes the place of, and the offers.
pub(crate) fn offers(line: &str, at: usize) -> (usize, Vec<Offer>) {
    let before = line.get(..at).unwrap_or_default();
    if let Some(form) = before.strip_prefix("as ") {
        let forms = shown().map(|written| (written.name(), ""));
        return (at - form.len(), like(forms, form).collect());
    }
    let ((begin, _), offers) = complete(line, at);
    if before.contains([' ', ':']) {
        return (begin, offers);
    }
    (begin, like(COMMANDS.into_iter(), before).chain(offers).collect())
}

/// The commands that begin so.
fn like<'a>(commands: impl Iterator<Item = (&'a str, &'a str)>, begin: &str) -> impl Iterator<Item = Offer> {
    commands.filter(move |(name, _)| name.starts_with(begin)).map(|(name, label)| Offer {
        text: name.to_owned(),
        kind: "command",
        label: label.to_owned(),
    })
}

/// What may be typed.
pub(crate) fn help() -> String {
    let commands = COMMANDS.map(|(name, does)| format!("  {name:<10} {does}")).join("\n");
    format!(
        "A query, e.g. in:devices vendor_name:Axis last_seen:<-7d sort:last_seen limit:20, or\n{commands}\n\
         Tab offers what may stand there, Ctrl-R searches what was typed, Ctrl-C clears the line or cancels the query that\n\
         is being answered. Answers come by pages, of 100 rows unless limit: says how many; fields:name,ip,type makes a\n\
         table narrow. A line that begins with a blank is not kept."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        let (begin, offers) = offers(line, line.len());
        assert!(line.is_char_boundary(begin));
        offers.into_iter().map(|offer| offer.text).collect()
    }

    #[test]
    fn a_line_is_a_query_unless_it_is_a_command() {
        for nothing in ["", "  \t", "# in:devices"] {
            assert_eq!(Line::of(nothing), Line::Nothing);
        }
        assert_eq!(Line::of(" next "), Line::Next);
        assert_eq!(Line::of("quit"), Line::Exit);
        assert_eq!(Line::of("as CSV"), Line::As(Some(Written::Csv)));
        assert_eq!(Line::of("as xml"), Line::As(None));
        assert_eq!(Line::of("as arrow"), Line::As(None), "it is nothing for a terminal");
        assert_eq!(Line::of("translate"), Line::Translate(None));
        assert_eq!(Line::of("translate  in:devices"), Line::Translate(Some("in:devices")));
        // Words that are searched for.
        for query in ["next in:devices", "as in:devices", "in:devices help", "helper"] {
            assert_eq!(Line::of(query), Line::Query(query));
        }
    }

    #[test]
    fn every_command_is_one_and_is_in_the_help() {
        for (name, _) in COMMANDS {
            assert!(!matches!(Line::of(name), Line::Query(_)), "{name}");
            assert!(help().contains(&format!("\n  {name} ")), "{name}");
        }
    }

    #[test]
    fn commands_are_offered_where_they_may_stand_and_else_what_the_service_offers() {
        assert_eq!(texts("tr")[0], "translate");
        assert!(["help", "in:"].iter().all(|text| texts("").iter().any(|offered| offered == text)));
        assert_eq!(texts("as "), ["table", "json", "ndjson", "csv"]);
        assert_eq!(texts("as n"), ["ndjson"]);
        for line in ["in:dev", "in:devices ne", "translate in:devices host", "in:devices sort:name,las"] {
            let ((begin, _), offered) = complete(line, line.len());
            assert_eq!(offers(line, line.len()), (begin, offered), "{line}");
        }
        assert!(texts("é").is_empty());
        assert_eq!(offers("in:dév", 5).0, 3, "in the middle of a character");
    }
}
