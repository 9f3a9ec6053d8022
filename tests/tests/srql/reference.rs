//! The reference in the docs is the catalogue's.

use serviceradar_srql::{
    plan::{Extent, plan},
    reference::reference,
};

const DOCS: &str = include_str!("../../../docs/srql.md");

#[test]
fn the_reference_in_the_docs_is_that_of_the_catalogue() {
    assert!(
        DOCS.ends_with(&reference()),
        "write `serviceradar query --reference` to the end of docs/srql.md"
    );
}

/// What the docs show can be asked.
#[test]
fn the_terms_and_clauses_in_the_docs_are_understood() {
    let (language, _) = DOCS.split_once("## Entities").unwrap();
    let rows = language.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let mut tried = 0;
    for (written, _) in rows {
        for term in written.trim_end_matches('`').split("`, `") {
            let entity = if term.starts_with("device.") { "device_records" } else { "devices" };
            let with = if term.starts_with("having:") { "stats:'count() as n'" } else { "" };
            let query = format!("in:{entity} {with} {term}");
            assert!(plan(&query, 1_767_225_600_000_000, Extent::first()).is_ok(), "{query}");
            tried += 1;
        }
    }
    assert!(tried > 15, "{tried}");
}
