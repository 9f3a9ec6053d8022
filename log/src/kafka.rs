//! A log store on Apache Kafka, through librdkafka.
//!
//! Append times are the broker's (`LogAppendTime`), in whole milliseconds. A batch of many events reaches the broker
//! in several requests: it is all there when [`LogStore::append`] returns, and another process's events may lie
//! between its own. What names a batch is remembered in this process: a producer that starts again is another one. A
//! batch that the cluster refused half-way, as after an unclean election, is in the log in part, and whole when it is
//! sent again: readers know events by their ids.

mod appends;
mod claims;
mod reads;
mod settings;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::Client,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::MetadataBroker,
};
use settings::topic_settings;
pub use settings::{Identity, KafkaConfig, Login, Tls};
use tokio::task::spawn_blocking;

use self::{appends::Appends, claims::Claims, reads::Reads};
use crate::store::{
    Appended, Batch, Brokers, Event, LogError, LogStore, Offsets, Read, ReadLimit, Setting, TopicDescription,
};

/// How long the broker may take to answer a question.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a topic that was made, or deleted, may take to be seen so by all.
const SEEN_WITHIN: Duration = Duration::from_secs(30);
/// How often that is asked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A log store on a Kafka cluster.
pub struct KafkaLog {
    servers: String,
    context: Context,
    admin: Arc<AdminClient<Context>>,
    appends: Appends,
    claims: Claims,
    reads: Reads,
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog").finish_non_exhaustive()
    }
}

/// Where librdkafka tells what it does, and what it last had trouble with.
#[derive(Clone, Debug, Default)]
struct Context {
    trouble: Arc<Mutex<Option<String>>>,
}

impl Context {
    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of a call, and where it failed for want of an answer, why there was none.
    fn explain<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        let mut trouble = self.trouble();
        match result {
            Ok(answer) => {
                *trouble = None;
                Ok(answer)
            }
            Err(LogError::Unavailable(why)) => Err(LogError::Unavailable(match &*trouble {
                Some(trouble) => format!("{why}: {trouble}"),
                None => why,
            })),
            Err(error) => Err(error),
        }
    }
}

impl rdkafka::ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // A connection that failed is not always an error of the client's, too.
        if facility == "FAIL" {
            *self.trouble() = Some(text.to_owned());
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "{text}")
            }
            // Whatever is asked meanwhile says so itself.
            _ => tracing::debug!(facility, "{text}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
        // That all are away follows from why each is.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.trouble() = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Context {}

impl KafkaLog {
    /// A client of a cluster. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] where librdkafka refuses the configuration, with its words.
    pub fn new(config: &KafkaConfig) -> Result<Self, LogError> {
        let create = |error: KafkaError| LogError::Unavailable(error.to_string());
        let (base, context) = (config.client(), Context::default());
        let consumer: BaseConsumer<Context> =
            settings::reading(base.clone()).create_with_context(context.clone()).map_err(create)?;
        let admin: AdminClient<Context> = base.create_with_context(context.clone()).map_err(create)?;
        let (consumer, admin) = (Arc::new(consumer), Arc::new(admin));
        Ok(Self {
            servers: config.servers.clone(),
            reads: Reads::new(consumer, admin.clone())?,
            admin,
            claims: Claims::new(settings::appending(base.clone()), context.clone()),
            appends: Appends::new(settings::appending(base), context.clone()).map_err(create)?,
            context,
        })
    }

    /// Asks the broker something, on a thread that may wait. Not by the consumer: a broker answers a connection's
    /// questions in their order, and a fetch waits until something comes.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Client<Context>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let admin = self.admin.clone();
        let answer = spawn_blocking(move || question(admin.inner())).await.map_err(broke_off)?;
        self.context.explain(answer)
    }

    async fn known(&self, topic: &str, log_partition: u32) -> Result<(), LogError> {
        let described = self.describe_topic(topic).await?;
        if log_partition < described.log_partitions {
            return Ok(());
        }
        Err(LogError::UnknownLogPartition { topic: topic.to_owned(), log_partition })
    }

    /// Asks until it is so, or for long enough.
    async fn until_seen(
        &self,
        topic: &str,
        is_so: impl Fn(&Result<TopicDescription, LogError>) -> bool,
    ) -> Result<(), LogError> {
        let asked = async {
            while !is_so(&self.describe_topic(topic).await) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let late = |_| LogError::Unavailable(format!("the cluster is still about {topic}"));
        tokio::time::timeout(SEEN_WITHIN, asked).await.map_err(late)
    }
}

fn broke_off(error: tokio::task::JoinError) -> LogError {
    LogError::Unavailable(format!("a call of librdkafka broke off: {error}"))
}

/// What an error of librdkafka means: nothing is lost by trying again.
fn unavailable(error: KafkaError) -> LogError {
    LogError::Unavailable(error.to_string())
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(SEEN_WITHIN))
}

fn offsets_of(client: &Client<Context>, topic: &str, log_partition: u32) -> Result<Offsets, LogError> {
    let given_up = Instant::now() + ANSWER_WITHIN;
    loop {
        match client.fetch_watermarks(topic, log_partition.cast_signed(), ANSWER_WITHIN) {
            Ok((start, end)) => {
                return Ok(Offsets { start: start.cast_unsigned(), end: end.cast_unsigned() });
            }
            Err(error) if is_changing(&error) && Instant::now() < given_up => std::thread::sleep(LOOK_EVERY),
            Err(error) if is_unknown(&error) => return Err(LogError::UnknownTopic(topic.to_owned())),
            Err(error) => return Err(unavailable(error)),
        }
    }
}

fn is_unknown(error: &KafkaError) -> bool {
    let unknown = [
        RDKafkaErrorCode::UnknownTopic,
        RDKafkaErrorCode::UnknownTopicOrPartition,
        RDKafkaErrorCode::UnknownPartition,
    ];
    error.rdkafka_error_code().is_some_and(|code| unknown.contains(&code))
}

/// Whether another broker is about to answer for the log partition.
fn is_changing(error: &KafkaError) -> bool {
    let changes = [RDKafkaErrorCode::NotLeaderForPartition, RDKafkaErrorCode::LeaderNotAvailable];
    error.rdkafka_error_code().is_some_and(|code| changes.contains(&code))
}

#[async_trait::async_trait]
impl LogStore for KafkaLog {
    async fn create_topic(&self, topic: &str, log_partitions: u32) -> Result<(), LogError> {
        let wanted = TopicDescription { name: topic.to_owned(), log_partitions };
        wanted.check()?;
        match self.describe_topic(topic).await {
            Ok(found) => return wanted.check_same(found.log_partitions),
            Err(LogError::UnknownTopic(_)) => {}
            Err(error) => return Err(error),
        }
        let settings = topic_settings(topic);
        let replication = TopicReplication::Fixed(settings::REPLICATION_OF_THE_BROKER);
        let mut new = NewTopic::new(topic, log_partitions.cast_signed(), replication);
        for (name, value) in &settings {
            new = new.set(name, value);
        }
        let made = self.admin.create_topics([&new], &options()).await.map_err(unavailable)?;
        match made.into_iter().next() {
            None | Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
            Some(Err((_, code))) => {
                return Err(LogError::Unavailable(format!("{topic} was not made: {code}")));
            }
        }
        self.until_seen(topic, Result::is_ok).await?;
        wanted.check_same(self.describe_topic(topic).await?.log_partitions)
    }

    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, LogError> {
        let name = topic.to_owned();
        self.ask(move |client| {
            let metadata = client.fetch_metadata(Some(&name), ANSWER_WITHIN).map_err(unavailable)?;
            let found = metadata.topics().iter().find(|found| found.name() == name);
            let found = found.filter(|found| found.error().is_none() && !found.partitions().is_empty());
            let log_partitions = found.ok_or(LogError::UnknownTopic(name.clone()))?.partitions().len() as u32;
            Ok(TopicDescription { name, log_partitions })
        })
        .await
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        let deleted = self.admin.delete_topics(&[topic], &options()).await.map_err(unavailable)?;
        match deleted.into_iter().next() {
            None | Some(Ok(_)) => {}
            Some(Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))) => {
                return Err(LogError::UnknownTopic(topic.to_owned()));
            }
            Some(Err((_, code))) => {
                return Err(LogError::Unavailable(format!("{topic} was not deleted: {code}")));
            }
        }
        self.appends.forget(topic);
        self.reads.forget(topic, None);
        self.until_seen(topic, |found| matches!(found, Err(LogError::UnknownTopic(_)))).await
    }

    async fn topics(&self, tenant: Option<&str>) -> Result<Vec<TopicDescription>, LogError> {
        let all = self.ask(|client| {
            let metadata = client.fetch_metadata(None, ANSWER_WITHIN).map_err(unavailable)?;
            let described = metadata.topics().iter().map(|topic| TopicDescription {
                name: topic.name().to_owned(),
                log_partitions: topic.partitions().len() as u32,
            });
            Ok(described.collect::<Vec<_>>())
        });
        let mut topics = all.await?;
        topics.retain(|topic| !topic.name.starts_with("__") && topic.is_of(tenant));
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    async fn append(&self, topic: &str, log_partition: u32, batch: Batch) -> Result<Appended, LogError> {
        batch.check()?;
        let batch = match self.claims.append(topic, log_partition, batch).await {
            Ok(appended) => return self.context.explain(appended),
            Err(batch) => batch,
        };
        if !self.appends.knows(topic, log_partition) {
            self.known(topic, log_partition).await?;
        }
        // Only an empty batch needs to be told where the end is.
        let end = if batch.events.is_empty() { self.offsets(topic, log_partition).await?.end } else { 0 };
        self.context.explain(self.appends.append(topic, log_partition, batch, end).await)
    }

    async fn read(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<Read, LogError> {
        if !self.reads.knows(topic, log_partition) {
            self.known(topic, log_partition).await?;
        }
        self.context.explain(self.reads.read(topic, log_partition, offset, limit).await)
    }

    async fn last_event(&self, topic: &str, log_partition: u32) -> Result<Option<Event>, LogError> {
        let is_read = self.reads.knows(topic, log_partition);
        let last = crate::tail::last_event(self, topic, log_partition).await;
        if !is_read {
            // Nothing that comes later need be fetched.
            self.reads.forget(topic, Some(log_partition));
        }
        last
    }

    async fn offsets(&self, topic: &str, log_partition: u32) -> Result<Offsets, LogError> {
        if !self.reads.knows(topic, log_partition) && !self.appends.knows(topic, log_partition) {
            self.known(topic, log_partition).await?;
        }
        let topic = topic.to_owned();
        self.ask(move |client| offsets_of(client, &topic, log_partition)).await
    }

    async fn claim(&self, topic: &str) -> Result<(), LogError> {
        self.context.explain(self.claims.claim(topic).await)
    }

    async fn delete_before(&self, topic: &str, log_partition: u32, offset: u64) -> Result<(), LogError> {
        let offsets = self.offsets(topic, log_partition).await?;
        let Some(start) = offsets.raised(topic, log_partition, offset)? else {
            return Ok(());
        };
        let mut before = TopicPartitionList::new();
        before
            .add_partition_offset(topic, log_partition.cast_signed(), Offset::Offset(start.cast_signed()))
            .map_err(unavailable)?;
        let deleted = self.admin.delete_records(&before, &options()).await.map_err(unavailable)?;
        deleted.elements().iter().try_for_each(|of| of.error()).map_err(unavailable)
    }

    async fn settings(&self, topic: &str) -> Result<Vec<Setting>, LogError> {
        let name = topic.to_owned();
        let replicas = self.ask(move |client| {
            let metadata = client.fetch_metadata(Some(&name), ANSWER_WITHIN).map_err(unavailable)?;
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let least = partitions.map(|partition| partition.replicas().len()).min();
            least.ok_or(LogError::UnknownTopic(name))
        });
        settings::of_topic(&self.admin, &self.servers, topic, replicas.await?).await
    }

    async fn brokers(&self) -> Result<Option<Brokers>, LogError> {
        let asked = self.ask(|client| {
            let metadata = client.fetch_metadata(None, ANSWER_WITHIN).map_err(unavailable)?;
            let brokers = metadata.brokers().iter();
            let at =
                |broker: &MetadataBroker| format!("{} at {}:{}", broker.id(), broker.host(), broker.port());
            let mut brokers: Vec<_> = brokers.map(|broker| (broker.id(), at(broker))).collect();
            brokers.sort();
            Ok((client.fetch_cluster_id(ANSWER_WITHIN), brokers))
        });
        let (cluster, brokers) = asked.await?;
        let mut settings = Vec::new();
        for (id, _) in &brokers {
            settings.extend(settings::of_broker(&self.admin, *id).await?);
        }
        let (_, version) = rdkafka::util::get_rdkafka_version();
        let brokers = brokers.into_iter().map(|(_, at)| at).collect();
        Ok(Some(Brokers { cluster, brokers, client: format!("librdkafka {version}"), settings }))
    }
}
