//! Generations beside each other.

use std::process::Stdio;

use serde_json::Value;

use super::{Deployment, RECORDS, Running, SERVERS};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_by_other_rules_are_built_at_once_while_the_active_one_goes_on() {
    let _servers = SERVERS.read().await;
    let mut of = Deployment::new().await;
    let rules = |name: &str| format!("serviceradar replay rebuild --rules {name}.toml");
    for (name, most) in [("one", 1), ("other", 2)] {
        let text = format!("[caps]\nspread_of_a_source = {most}\n");
        std::fs::write(of.dir.path().join(format!("{name}.toml")), text).unwrap();
    }
    let both = format!("{} & first=$!; {}; wait $first", rules("one"), rules("other"));
    let mut command = of.command("sh");
    let mut building = Running::spawn(command.args(["-ec", &both]).stdout(Stdio::null()));
    let mut rounds = 0;
    let status = loop {
        of.publish(RECORDS..RECORDS * 2).await;
        of.caught_up().await;
        rounds += 1;
        if let Some(status) = building.0.try_wait().unwrap() {
            break status;
        }
    };
    assert!(status.success() && rounds > 1, "{status}, {rounds}");
    let generations = of.sh("serviceradar replay generations --output json");
    let generations: Vec<Value> =
        generations.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: Vec<_> = generations.iter().map(|of| of["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["active", "ready", "ready"]);
    let [one, other] = [&generations[1]["fingerprint"], &generations[2]["fingerprint"]];
    assert!(one != other && *one != generations[0]["fingerprint"], "{generations:?}");
    // Each takes the place of the one before, and has what the log has.
    for id in [3, 2] {
        of.sh(&format!("serviceradar replay promote {id} --max-changes 1000"));
        of.caught_up().await;
        assert_eq!(of.active().await, id);
        of.sh("serviceradar replay verify");
    }
    of.end().await;
}
