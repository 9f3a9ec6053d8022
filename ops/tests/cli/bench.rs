//! `bench` runs, and tells what it measured. Figures are no test's business.

use serde_json::Value;

use super::data;

const LOAD: [&str; 8] =
    ["--records", "50", "--seconds", "2", "--change-every", "2", "--listen", "127.0.0.1:0"];

#[test]
fn a_rate_is_measured_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let lines = data(&dir, &[&["bench", "--rate", "100"][..], &LOAD].concat());
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(line["observations/s"], 100);
    let milliseconds = |name: &str| line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}"));
    assert!(milliseconds("p50_ms") > 0.0, "{line}");
    assert!(milliseconds("p50_ms") <= milliseconds("p99_ms"), "{line}");
    assert!(milliseconds("p99_ms") <= milliseconds("greatest_ms"), "{line}");
    let Value::Object(parts) = &line["cores_of"] else { panic!("{line}") };
    for part in ["PostgreSQL", "dataflow", "driver", "generator", "log", "reader"] {
        assert!(parts.contains_key(part), "{part}: {line}");
    }
    assert!(line["bytes_per_change"].as_i64().unwrap() > 0, "{line}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
