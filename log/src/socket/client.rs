//! The store that passes every call on.

use std::path::Path;

use serviceradar_proto::log::v1::{self as message, log_store_client::LogStoreClient};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use super::{MESSAGE_BYTES_MAX, wire};
use crate::store::{Appended, Batch, LogError, LogStore, Offsets, Read, ReadLimit, TopicDescription};

/// Window of a stream and of the connection, bytes: a batch at its limit without waiting for the
/// other side to say that it goes on reading.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// The log store that another process [serves](super::serve).
#[derive(Clone, Debug)]
pub struct SocketLog {
    client: LogStoreClient<Channel>,
}

impl SocketLog {
    /// Connects to the socket at `path`. [`LogError::Unavailable`] where nobody listens there.
    pub async fn connect(path: &Path) -> Result<Self, LogError> {
        let unavailable = |why: &dyn std::fmt::Display| {
            LogError::Unavailable(format!(
                "{}: {why}; is the process that holds the log running?",
                path.display()
            ))
        };
        let text = path.to_str().ok_or_else(|| unavailable(&"the path is not UTF-8"))?;
        let endpoint = Endpoint::from_shared(format!("unix:{text}"))
            .map_err(|error| unavailable(&error))?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = endpoint.connect().await.map_err(|error| unavailable(&error))?;
        let client = LogStoreClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { client })
    }

    /// A handle for one call: all share the connection.
    fn client(&self) -> LogStoreClient<Channel> {
        self.client.clone()
    }
}

fn answer<T>(response: Result<Response<T>, Status>) -> Result<T, LogError> {
    response.map(Response::into_inner).map_err(|status| wire::refusal(&status))
}

#[async_trait::async_trait]
impl LogStore for SocketLog {
    async fn create_topic(&self, topic: &str, log_partitions: u32) -> Result<(), LogError> {
        let request = message::Topic { name: topic.to_owned(), log_partitions };
        answer(self.client().create_topic(request).await).map(drop)
    }

    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, LogError> {
        let request = message::DescribeTopicRequest { topic: topic.to_owned() };
        answer(self.client().describe_topic(request).await).map(TopicDescription::from)
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        let request = message::DeleteTopicRequest { topic: topic.to_owned() };
        answer(self.client().delete_topic(request).await).map(drop)
    }

    async fn topics(&self, tenant: Option<&str>) -> Result<Vec<TopicDescription>, LogError> {
        let request = message::TopicsRequest { tenant: tenant.map(str::to_owned) };
        let found = answer(self.client().topics(request).await)?;
        Ok(found.topics.into_iter().map(TopicDescription::from).collect())
    }

    async fn append(&self, topic: &str, log_partition: u32, batch: Batch) -> Result<Appended, LogError> {
        // What is over a limit may be over the message's, which the other side could not explain.
        batch.check()?;
        let request = message::AppendRequest {
            topic: topic.to_owned(),
            log_partition,
            producer: batch.id.producer,
            sequence: batch.id.sequence,
            events: batch.events.into_iter().map(message::Event::from).collect(),
        };
        let appended = answer(self.client().append(request).await)?;
        Ok(Appended { first_offset: appended.first_offset, append_time: appended.append_time })
    }

    async fn read(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<Read, LogError> {
        let request = message::ReadRequest {
            topic: topic.to_owned(),
            log_partition,
            offset,
            events: limit.events as u64,
            bytes: limit.bytes as u64,
            wait_ms: u64::try_from(limit.wait.as_millis()).unwrap_or(u64::MAX),
        };
        let read = answer(self.client().read(request).await)?;
        Ok(Read { events: read.events.into_iter().map(Into::into).collect(), next_offset: read.next_offset })
    }

    async fn offsets(&self, topic: &str, log_partition: u32) -> Result<Offsets, LogError> {
        let request = message::OffsetsRequest { topic: topic.to_owned(), log_partition };
        let offsets = answer(self.client().offsets(request).await)?;
        Ok(Offsets { start: offsets.start, end: offsets.end })
    }

    async fn delete_before(&self, topic: &str, log_partition: u32, offset: u64) -> Result<(), LogError> {
        let request = message::DeleteBeforeRequest { topic: topic.to_owned(), log_partition, offset };
        answer(self.client().delete_before(request).await).map(drop)
    }
}
