//! A log that is no longer the one that the views were built from: the tenant stops, says why, and its views stay as
//! they were.

use std::sync::Arc;

use serviceradar_log::LogStore;
use serviceradar_replay::operations;
use serviceradar_schemas::{OffsetRange, Operation, operation::Phase, time::SystemClock, topics::Stream};
use serviceradar_tests::tenant::{RECORDS, Tenant, ends_with};

async fn a_start_deleted_below_the_frontier_changes_nothing(log: Arc<dyn LogStore>) {
    let mut tenant = Tenant::new(log).await;
    tenant.delete_all().await;
    tenant.publish(20).await;
    tenant.catches_up().await;
}

async fn a_start_deleted_beyond_the_frontier_stops_the_tenant(log: Arc<dyn LogStore>) {
    let mut tenant = Tenant::new(log).await;
    tenant.publish(200).await;
    tenant.delete_all().await;
    tenant.is_refused("are missing, and no operation says why; restore them").await;
}

async fn a_gap_that_an_operator_accepted_is_passed(log: Arc<dyn LogStore>) {
    let mut tenant = Tenant::new(log.clone()).await;
    tenant.publish(200).await;
    tenant.delete_all().await;
    tenant.published -= 200;
    tenant.publish(20).await;
    tenant.is_refused("accept-gap").await;
    let topic = tenant.topic();
    let accept = async |log_partition, from, to| {
        let range = OffsetRange { topic: topic.clone(), log_partition, from, to };
        let operation = Operation {
            id: range.to_string(),
            phase: Phase::Done,
            action: "accept_gap".to_owned(),
            actor: "test".to_owned(),
            ranges: vec![range],
            ..Operation::default()
        };
        operations::write(&log, &operation).await.unwrap();
    };
    // Of one log partition all but an offset: it is still missing, and named.
    let start = log.offsets(&topic, 0).await.unwrap().start.cast_signed();
    accept(0, 0, start - 1).await;
    for log_partition in 1..Stream::Observations.log_partitions().cast_signed() {
        accept(log_partition, 0, 1 << 40).await;
    }
    tenant.is_refused(&format!("accept-gap {topic}/0:{}-{start}", start - 1)).await;
    accept(0, start - 1, start).await;
    tenant.catches_up().await;
    tenant.publish(20).await;
    tenant.catches_up().await;
}

async fn a_topic_made_anew_stops_the_tenant(log: Arc<dyn LogStore>) {
    let tenant = Tenant::new(log).await;
    tenant.make_topic_anew().await;
    tenant.is_refused("the log was cut or made anew").await;
}

async fn a_topic_made_anew_and_grown_past_stops_the_tenant(log: Arc<dyn LogStore>) {
    let mut tenant = Tenant::new(log).await;
    tenant.make_topic_anew().await;
    tenant.publish(20 * RECORDS).await;
    tenant.is_refused("is not the one that the views were built from").await;
}

/// Within a minute; until then what comes is taken for more of the same log, and nothing that was there is lost.
async fn a_topic_made_anew_under_a_running_driver_stops_it(log: Arc<dyn LogStore>) {
    let mut tenant = Tenant::new(log).await;
    let driver = tenant.drive().await;
    driver.caught_up().await.unwrap();
    tenant.make_topic_anew().await;
    tenant.publish(20 * RECORDS).await;
    ends_with(driver, &tenant.topic()).await;
    assert!(tenant.records().await >= RECORDS);
}

/// The laws, for the log that an expression opens.
macro_rules! laws {
    ($log:expr) => {
        laws!($log, a_start_deleted_below_the_frontier_changes_nothing
            a_start_deleted_beyond_the_frontier_stops_the_tenant
            a_gap_that_an_operator_accepted_is_passed
            a_topic_made_anew_stops_the_tenant
            a_topic_made_anew_and_grown_past_stops_the_tenant
            a_topic_made_anew_under_a_running_driver_stops_it);
    };
    ($log:expr, $($law:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $law() {
            super::$law($log).await;
        })*
    };
}

mod memory {
    use super::*;

    laws!(Arc::new(serviceradar_log::MemoryLog::new(Arc::new(SystemClock))));
}

mod embedded {
    use serviceradar_log::EmbeddedLog;

    use super::*;

    fn open() -> Arc<dyn LogStore> {
        // Deleted with the machine's other temporary files: the log outlives the call.
        let folder = tempfile::tempdir().unwrap().keep();
        Arc::new(EmbeddedLog::open(&folder, Arc::new(SystemClock)).unwrap())
    }

    laws!(open());
}

mod kafka {
    use serviceradar_log::{KafkaConfig, KafkaLog};
    use serviceradar_tests::services;

    use super::*;

    async fn open() -> Arc<dyn LogStore> {
        let config = KafkaConfig { servers: services::kafka().await, ..KafkaConfig::default() };
        Arc::new(KafkaLog::new(&config).unwrap())
    }

    laws!(open().await);
}
