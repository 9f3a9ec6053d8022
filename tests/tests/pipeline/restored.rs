//! A database that was restored from a backup older than the log, or made anew: what is published then has higher
//! epochs than what was before, or no reader of device changes would take it.

use std::sync::Arc;

use serviceradar_log::{Event, LogStore, MemoryLog};
use serviceradar_materializers::outbox::EPOCH_HEADER;
use serviceradar_schemas::{time::SystemClock, topics::Stream};
use serviceradar_tests::{
    stand::{Views, published, read_all},
    tenant::{RECORDS, Tenant},
};

fn epoch(change: &Event) -> u64 {
    let (_, value) = change.headers.iter().find(|(name, _)| name == EPOCH_HEADER).unwrap();
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

async fn epochs(tenant: &Tenant) -> Vec<u64> {
    let topic = Stream::DeviceChanges.topic(&tenant.name);
    let mut epochs = Vec::new();
    for log_partition in 0..tenant.log.describe_topic(&topic).await.unwrap().log_partitions {
        epochs.extend(read_all(&tenant.log, &topic, log_partition).await.iter().map(epoch));
    }
    epochs
}

async fn goes_on_above_what_was_published(log: Arc<dyn LogStore>) {
    let mut tenant = Tenant::new(log).await;
    for _ in 0..3 {
        let driver = tenant.drive().await;
        tenant.publish(5).await;
        driver.caught_up().await.unwrap();
        published(&tenant.database.client().await).await;
        driver.stop().await.unwrap();
    }
    let before = epochs(&tenant).await;
    let greatest = *before.iter().max().unwrap();
    assert!(greatest > 2, "{before:?}");

    Views::new(tenant.database.client().await).await.clear().await;
    let driver = tenant.drive().await;
    driver.caught_up().await.unwrap();
    published(&tenant.database.client().await).await;
    driver.stop().await.unwrap();
    let after = epochs(&tenant).await;
    let above = after.iter().filter(|epoch| **epoch > greatest).count();
    // Each device once more, all of them above.
    assert_eq!((above, after.len() - before.len()), (RECORDS + 15, RECORDS + 15));
    // And so it goes on.
    tenant.publish(5).await;
    tenant.catches_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory() {
    goes_on_above_what_was_published(Arc::new(MemoryLog::new(Arc::new(SystemClock)))).await;
}

/// Where marks of transactions follow the last record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_kafka() {
    use serviceradar_log::{KafkaConfig, KafkaLog};

    let servers = serviceradar_tests::services::kafka().await;
    let log = KafkaLog::new(&KafkaConfig { servers, ..KafkaConfig::default() }).unwrap();
    goes_on_above_what_was_published(Arc::new(log)).await;
}
