//! `replay as-of --into-generation`: a generation of the past is made, listed, compared, refused to whoever would promote it,
//! and dropped. `explain count --at`.

use serde_json::{Value, json};
use serviceradar_ops::postgres::PrivatePostgres;
use serviceradar_schemas::time::{self, Clock, SystemClock};

use super::{data, failure, run, text};

#[tokio::test]
async fn a_generation_of_the_past_is_listed_compared_and_dropped_and_never_promoted() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["demo", "--once", "--devices", "60"]);
    let server = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();
    let database = ["--database", server.url()];
    let json = |arguments: &[&str]| data(&dir, &[&["replay"][..], arguments, &database].concat());
    let states = || -> Vec<Value> {
        json(&["generations"]).into_iter().map(|of| json!([of["generation"], of["state"]])).collect()
    };
    let now = time::format(SystemClock.now());
    let devices = json(&["as-of", &now]).len();
    let would =
        run(&dir, &[&["replay", "as-of", &now, "--into-generation", "--dry-run"][..], &database].concat());
    assert!(text(&would.stdout).contains(&format!("generation of {devices} devices")), "{would:?}");
    assert_eq!(states(), [json!([1, "active"])]);

    let made = json(&["as-of", &now, "--into-generation"]).remove(0);
    assert_eq!((&made["generation"], &made["devices"]), (&json!(2), &json!(devices)));
    assert_eq!(states(), [json!([1, "active"]), json!([2, "past"])]);
    let listed = json(&["generations"]).remove(1);
    assert_eq!((&listed["moment"], &listed["tenant"]), (&made["moment"], &json!("default")));
    json(&["diff", "2", "1"]);
    for (refused, word) in [
        (&["promote", "2"][..], "no such generation is ready"),
        (&["promote"], "no such generation is ready"),
        (&["rollback"], "no generation that was active before is ready"),
        (&["diff", "1", "2", "--tenant", "other"], "is of tenant default alone"),
    ] {
        let (_, why) = failure(&dir, &[&["replay"][..], refused, &database].concat());
        assert!(why.contains(word), "{refused:?}: {why}");
    }
    let count = |at: &str| data(&dir, &[&["explain", "count", "--at", at][..], &database].concat()).remove(0);
    let counted = count(&now);
    assert_eq!((&counted["devices"], &counted["faults"]), (&made["devices"], &json!([])), "{counted}");
    assert_eq!(count("2000-01-01T00:00:00Z")["records"], 0);
    let drop = ["replay", "generations", "--drop", "2", "--confirm", "2"];
    assert!(run(&dir, &[&drop[..], &database].concat()).status.success());
    assert_eq!(states(), [json!([1, "active"]), json!([2, "retired"])]);
}
