//! The runbooks: each is run as it stands in the docs, command for command, on Kafka and a TimescaleDB, after what it is for
//! was brought about, as far as that can be: no broker's clock is moved, and there is no other broker and no other layout.

use std::time::Duration;

use super::{Deployment, RECORDS, SERVERS, process::text};

const RUNBOOKS: &str = include_str!("../../../docs/runbooks.md");

/// The commands of a section.
fn commands(title: &str) -> Vec<String> {
    let section = RUNBOOKS.split("\n## ").find(|section| section.starts_with(&format!("{title}\n")));
    let blocks = section.unwrap_or_else(|| panic!("no runbook {title:?}")).split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_rule_went_wrong() {
    let _servers = SERVERS.read().await;
    let mut of = Deployment::new().await;
    let right = of.devices().await;
    assert_eq!(right.len(), RECORDS as usize / 2);
    std::fs::write(of.dir.path().join("rules.toml"), "[caps]\nspread_of_a_source = 1\n").unwrap();
    of.sh("serviceradar replay rebuild --rules rules.toml --promote auto --max-changes 1000");
    of.caught_up().await;
    assert_ne!(of.devices().await, right);
    let [back, mended] = &commands("A rule went wrong")[..] else { panic!() };
    of.sh(back);
    of.caught_up().await;
    assert_eq!((of.devices().await, of.active().await), (right.clone(), 1));
    std::fs::write(of.dir.path().join("rules.toml"), "[caps]\nspread_of_a_source = 15\n").unwrap();
    let said = of.sh(mended);
    assert!(said.contains("0 devices would become others"), "{said}");
    of.caught_up().await;
    assert_eq!((of.devices().await, of.active().await), (right, 3));
    let states = |of: &Deployment| {
        let status = of.status();
        let generations = status["generations"].as_array().unwrap().iter();
        generations.map(|of| of["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states(&of), ["ready", "ready", "active"]);
    of.sh("serviceradar replay generations --drop 2 --confirm 2");
    assert!(!of.try_sh("serviceradar replay generations --drop 3 --confirm 3").status.success());
    assert_eq!(states(&of), ["ready", "active"]);
    of.end().await;
}

#[tokio::test]
async fn the_broker_lost_data() {
    let _servers = SERVERS.read().await;
    let mut of = Deployment::new().await;
    of.sh("serviceradar replay archive --to archive");
    let right = of.devices().await;
    of.stop();
    // What the pipeline has read is gone, and so is its begin for whoever builds anew.
    let topic = format!("{}.observations", of.tenant);
    for log_partition in 0..6 {
        let end = of.log.offsets(&topic, log_partition).await.unwrap().end;
        of.log.delete_before(&topic, log_partition, end).await.unwrap();
    }
    let [look, restore, verify] = &commands("The broker lost data")[..] else { panic!() };
    assert!(of.sh(look).contains("0-"), "the plan names what is missing");
    of.sh(restore);
    of.start().await;
    of.sh(verify);
    assert_eq!((of.devices().await, of.active().await), (right, 2));
    of.end().await;
}

#[tokio::test]
async fn the_broker_lost_data_and_there_is_no_archive() {
    let _servers = SERVERS.read().await;
    let of = Deployment::new().await;
    let topic = format!("{}.observations", of.tenant);
    of.log.delete_before(&topic, 0, 3).await.unwrap();
    let script = commands("The broker lost data, and there is no archive").concat();
    let said = of.sh(&script);
    assert!(said.contains("accepted that") && said.contains("0-3"), "{said}");
    assert_eq!(of.status()["gaps_accepted"], serde_json::json!([format!("{topic}/0:0-3")]));
    // The lost ones are no longer in views that are built anew.
    of.sh("serviceradar replay rebuild --promote never");
    of.end_without_verifying().await;
}

#[tokio::test]
async fn the_database_was_restored_from_a_backup_older_than_the_log() {
    let _servers = SERVERS.read().await;
    let mut of = Deployment::new().await;
    of.stop();
    let backup = of.database.clone();
    // What came after it went into another, whose changes consumers have.
    of.use_new_database().await;
    of.start().await;
    for more in 1..4 {
        of.publish(RECORDS * more..RECORDS * (more + 1)).await;
        of.caught_up().await;
    }
    let (right, epoch) = (of.devices().await, of.status()["epoch"].as_u64().unwrap());
    of.stop();
    of.database = backup;
    of.start().await;
    of.sh(&commands("The database was restored from a backup older than the log").concat());
    assert_eq!(of.devices().await, right);
    of.publish(0..2).await;
    of.caught_up().await;
    assert!(of.status()["epoch"].as_u64().unwrap() > epoch, "epochs go on above what was published");
    of.end().await;
}

#[tokio::test]
async fn decisions_were_lost() {
    let _servers = SERVERS.read().await;
    let mut of = Deployment::new().await;
    of.sh("serviceradar decide block mac:00:1b:21:00:00:01 --reason test");
    of.caught_up().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    of.caught_up().await;
    let right = of.devices().await;
    of.stop();
    of.log.delete_topic(&format!("{}.decisions", of.tenant)).await.unwrap();
    of.sh(&commands("Decisions were lost").concat());
    of.start().await;
    assert_eq!((of.devices().await, of.active().await), (right, 2));
    of.end().await;
}

#[tokio::test]
async fn a_clock_jumped() {
    let _servers = SERVERS.read().await;
    let of = Deployment::new().await;
    let said = of.sh(&commands("A clock jumped").concat());
    assert!(said.contains("would say that") && said.contains("said that"), "{said}");
    // What was taken in before has other times, which a rebuild mends.
    of.sh("serviceradar replay rebuild --promote auto --max-changes 1000");
    of.end().await;
}

#[tokio::test]
async fn move_to_a_new_broker() {
    let _servers = SERVERS.read().await;
    let mut of = Deployment::new().await;
    let right = of.devices().await;
    of.stop();
    let [archive, restore] = &commands("Move to a new broker")[..] else { panic!() };
    of.sh(archive);
    // The new one has nothing of the tenant.
    for topic in of.log.topics(Some(&of.tenant)).await.unwrap() {
        of.log.delete_topic(&topic.name).await.unwrap();
    }
    of.sh(restore);
    of.start().await;
    assert_eq!((of.devices().await, of.active().await), (right, 2));
    of.end().await;
}

#[tokio::test]
async fn log_partitions_added() {
    let _servers = SERVERS.read().await;
    let mut of = Deployment::new().await;
    let said = of.sh(&commands("Log partitions added").concat());
    assert!(said.lines().any(|line| line.split_whitespace().nth(1) == Some("8")), "{said}");
    of.publish(0..RECORDS * 2).await;
    of.caught_up().await;
    assert_eq!(of.devices().await.len(), RECORDS as usize);
    of.end().await;
}

#[tokio::test]
async fn upgrade() {
    let _servers = SERVERS.read().await;
    let mut of = Deployment::new().await;
    let right = of.devices().await;
    of.sh(&commands("Upgrade").concat());
    of.caught_up().await;
    assert_eq!((of.devices().await, of.active().await), (right, 2));
    of.end().await;
}

#[tokio::test]
async fn reset_the_demo() {
    let _servers = SERVERS.read().await;
    let mut of = Deployment::new().await;
    let (_faker, right) = of.crawled().await;
    let [reseed, verify] = &commands("Reset the demo")[..] else { panic!() };
    let said = of.sh(&reseed.replace("50000", &right.len().to_string()));
    assert!(said.contains("goes, and is crawled again") && said.contains("is kept"), "{said}");
    of.caught_up().await;
    assert_eq!(of.devices().await, right);
    of.sh(verify);
    of.end().await;
}

#[tokio::test]
async fn a_tenant_removed() {
    let _servers = SERVERS.read().await;
    let mut of = Deployment::new().await;
    let [remove] = &commands("A tenant removed")[..] else { panic!() };
    let refused = of.try_sh(remove);
    assert!(text(&refused.stderr).contains("stop its pipeline"), "{}", text(&refused.stderr));
    assert_eq!(of.devices().await.len(), RECORDS as usize / 2, "nothing has gone");
    // Another tenant of the same database and broker keeps what it has.
    let other = format!("{}-other", of.tenant);
    of.sh(&format!("SERVICERADAR_TENANT={other} serviceradar topics create"));
    of.stop();
    let said = of.sh(remove);
    assert!(said.contains("deleted 4 topics"), "{said}");
    assert!(!said.lines().any(|line| line.split_whitespace().next() == Some(&of.tenant)), "{said}");
    assert!(said.lines().any(|line| line.split_whitespace().next() == Some(&other)), "{said}");
    assert_eq!(of.rows_of_tenant().await, Vec::<(String, i64)>::new());
    let again =
        of.try_sh(&format!("serviceradar tenants remove {} --no-archive --yes-i-mean acme", of.tenant));
    assert!(text(&again.stderr).contains("there is no tenant"), "{}", text(&again.stderr));
    // What was archived makes it again.
    of.sh("serviceradar replay restore --from farewell");
    of.start().await;
    assert_eq!(of.devices().await.len(), RECORDS as usize / 2);
    of.sh(&format!("serviceradar tenants remove {other} --no-archive --yes-i-mean {other}"));
    of.end().await;
}
