//! The topics of a tenant: made where they are missing, how they are set, and which of their log partitions are read.

use serviceradar_log::{LogError, LogStore, Setting};
use serviceradar_schemas::topics::Stream;

/// Creates the topics of a tenant that are missing.
pub async fn ensure(log: &dyn LogStore, tenant: &str) -> Result<(), LogError> {
    for stream in Stream::ALL {
        let topic = stream.topic(tenant);
        match log.describe_topic(&topic).await {
            Ok(_) => {}
            Err(LogError::UnknownTopic(_)) => log.create_topic(&topic, stream.log_partitions()).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Settings of the brokers and of a tenant's topics that contradict what its streams need.
pub async fn setting_problems(log: &dyn LogStore, tenant: &str) -> Result<Vec<Setting>, LogError> {
    let mut settings = log.brokers().await?.map(|brokers| brokers.settings).unwrap_or_default();
    for stream in Stream::ALL {
        settings.extend(log.settings(&stream.topic(tenant)).await?);
    }
    settings.retain(|setting| !setting.is_right());
    Ok(settings)
}

/// A log partition that the pipeline reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// `<tenant>.<stream>`.
    pub topic: String,
    /// Which of its log partitions.
    pub log_partition: u32,
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.log_partition)
    }
}

/// The streams that the views of the inventory are made from.
pub const READ: [Stream; 2] = [Stream::Observations, Stream::Decisions];

/// All log partitions that the pipeline of a tenant reads, in order.
pub async fn read_by(log: &dyn LogStore, tenant: &str) -> Result<Vec<Partition>, LogError> {
    let mut partitions = Vec::new();
    for stream in READ {
        let topic = log.describe_topic(&stream.topic(tenant)).await?;
        let of_topic = (0..topic.log_partitions)
            .map(|log_partition| Partition { topic: topic.name.clone(), log_partition });
        partitions.extend(of_topic);
    }
    Ok(partitions)
}
