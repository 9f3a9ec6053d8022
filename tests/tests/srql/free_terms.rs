//! A free term is found where one field has it in it, never across two.

use proptest::{collection::vec, prelude::Strategy, strategy::ValueTree, test_runner::TestRunner};
use serviceradar_schemas::DeviceChange;
use serviceradar_streams::{changes::Changes, rows::EpochOutput};
use serviceradar_tests::{database::Database, views_conformance};

use super::{ask, fill, reader};

const FIELDS: [&str; 7] = ["name", "hostname", "ip", "mac", "vendor_name", "model", "type"];

#[tokio::test]
async fn a_free_term_matches_where_a_single_field_does() {
    let mut runner = TestRunner::deterministic();
    let mut text = || proptest::option::of("[abAB\n%_]{1,4}").new_tree(&mut runner).unwrap().current();
    let new = (1..=200).map(|n| DeviceChange {
        // As the views have it.
        hostname: text().map(|name| name.to_lowercase()),
        vendor_name: text(),
        model: text(),
        name: text(),
        ..views_conformance::device(n, "")
    });
    let devices = Changes { new: new.collect(), ..Changes::default() };
    let database = Database::migrated_timescale().await;
    fill(&database.views().await, "acme", EpochOutput { devices, ..EpochOutput::default() }).await;
    let mut reader = reader(&database).await;
    let mut count = 0;
    for _ in 0..60 {
        // Escaped what is no wildcard, as it may be in a word.
        let term =
            vec(proptest::sample::select(&["a", "b", "A", "_", "%", "%", "*", "\\%", "\\\n"][..]), 1..5);
        let term = term.new_tree(&mut runner).unwrap().current().concat();
        let by_field = FIELDS.map(|field| format!("{field}:%{term}%")).join(" OR ");
        let mut found = Vec::new();
        for terms in [term.clone(), format!("({by_field})")] {
            let query = format!("in:devices {terms} fields:uid limit:1000");
            let answer = ask(&mut reader, "acme", &query, 0).await;
            let answer = answer.unwrap_or_else(|errors| panic!("{query}: {errors:?}"));
            let mut rows: Vec<String> = answer.rows.iter().map(|row| row[0].to_string()).collect();
            rows.sort();
            found.push(rows);
        }
        assert_eq!(found[0], found[1], "{term:?}");
        count += usize::from(!found[0].is_empty() && found[0].len() < 200);
    }
    assert!(count > 20, "{count} terms tell devices apart");
}
