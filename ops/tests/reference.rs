//! The reference in the docs says what the program knows: every key, every metric, and nothing else.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use serviceradar_ops::{
    config::keys::{FILE_SUFFIX, KEYS, variable},
    metrics::Metric,
};

/// The table rows of a document, the header left out.
fn rows(document: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(document);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect()
}

fn agrees(document: &str, known: Vec<String>) {
    let table = known.join("\n");
    assert_eq!(rows(document), known, "docs/{document} has drifted; its table should be\n{table}\n");
}

#[test]
fn every_key_is_in_the_reference() {
    let known = KEYS.iter().map(|key| {
        let default = match key.default {
            "" => "unset".to_owned(),
            text => format!("`{text}`"),
        };
        let secret = if key.secret {
            format!(
                " Secret: by `{}`, or as a file named with `{}{FILE_SUFFIX}`.",
                variable(key.name),
                key.name
            )
        } else {
            String::new()
        };
        format!("| `{}` | {default} | {}{secret} |", key.name, key.meaning)
    });
    agrees("configuration.md", known.collect());
}

#[test]
fn every_metric_is_in_the_reference() {
    let known = Metric::all().map(|metric| {
        let row = metric.row();
        let labels = row.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        format!("| `{}` | {} | {labels} | {} |", row.name, row.kind.word(), row.meaning)
    });
    agrees("metrics.md", known.collect());
}

#[test]
fn metrics_are_named_as_prometheus_wants_them() {
    for metric in Metric::all() {
        let row = metric.row();
        assert!(row.name.starts_with("serviceradar_"));
        assert_eq!(row.name.ends_with("_total"), row.kind.word() == "counter", "{}", row.name);
    }
    assert!(Metric::all().is_sorted_by_key(|metric| metric.row().name));
}
