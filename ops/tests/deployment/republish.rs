//! Device changes are published again, for consumers that lost theirs.

use std::collections::BTreeMap;

use serviceradar_log::{NewEvent, Publisher, ReadLimit};

use super::{Deployment, RECORDS, SERVERS, process::text};

/// The last change of each device, as a consumer has it: the epoch that it tells, and whether it is there.
async fn consumed(of: &Deployment) -> BTreeMap<String, (u64, bool)> {
    let topic = format!("{}.device-changes", of.tenant);
    let mut last = BTreeMap::new();
    for log_partition in 0..of.log.describe_topic(&topic).await.unwrap().log_partitions {
        let offsets = of.log.offsets(&topic, log_partition).await.unwrap();
        let mut next = offsets.start;
        while next < offsets.end {
            let limit = ReadLimit { events: 100, bytes: 1 << 20, wait: std::time::Duration::from_secs(1) };
            let read = of.log.read(&topic, log_partition, next, limit).await.unwrap();
            if read.next_offset == next {
                break;
            }
            next = read.next_offset;
            for event in read.events {
                let epoch = event.headers.iter().find(|(name, _)| name == "epoch");
                let epoch = epoch.map_or(0, |(_, epoch)| text(epoch).parse().unwrap());
                last.insert(text(&event.key.unwrap()).to_owned(), (epoch, event.value.is_some()));
            }
        }
    }
    last
}

#[tokio::test]
async fn device_changes_are_published_again() {
    let _servers = SERVERS.read().await;
    let mut of = Deployment::new().await;
    of.publish(0..2).await;
    of.caught_up().await;
    // A row that nobody took back: of a device that is no more.
    let gone = "sr:00000000-0000-0000-0000-000000000001".to_owned();
    let (key, value) = (Some(gone.clone().into_bytes().into()), Some("row".into()));
    let stray = NewEvent { key, value, headers: Vec::new() };
    of.stop();
    let topic = format!("{}.device-changes", of.tenant);
    Publisher::new(of.log.clone(), topic).publish(vec![stray]).await.unwrap();
    let said = of.sh("serviceradar replay republish --dry-run --output json");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["devices"], &said["tombstones"]), (&(RECORDS / 2).into(), &1.into()));
    let before = consumed(&of).await;
    assert_eq!(before.len(), RECORDS as usize / 2 + 1);
    let ends = |of: &Deployment| {
        let described = of.sh("serviceradar topics describe acme.device-changes --output json");
        let lines = described.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter_map(|line| line["end"].as_u64()).sum::<u64>()
    };
    let events = ends(&of);
    of.sh("serviceradar replay republish --reason test");
    assert_eq!(ends(&of), events, "the pipeline publishes it");
    of.start().await;
    let whole = events + u64::from(RECORDS) / 2 + 1;
    while ends(&of) < whole {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let after = consumed(&of).await;
    let epoch = said["epoch"].as_u64().unwrap();
    assert_eq!(after.get(&gone), Some(&(epoch, false)), "it is taken back");
    for (uid, told) in before.iter().filter(|(uid, _)| **uid != gone) {
        let again = after[uid];
        assert!(again.1 && again.0 >= told.0, "{uid}: {told:?} became {again:?}");
    }
    of.end().await;
}
