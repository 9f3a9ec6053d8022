//! How clients and topics are set.

use std::path::PathBuf;

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, ConfigResource, ResourceSpecifier},
    config::RDKafkaLogLevel,
};
use serviceradar_schemas::topics::{Stream, split};

use super::{Context, options, unavailable};
use crate::store::{EVENT_BYTES_MAX, LogError, Setting};

/// The broker's own default decides how many replicas a topic has.
pub(super) const REPLICATION_OF_THE_BROKER: i32 = -1;
/// Largest message that broker and clients pass on, bytes: an event of the largest size and its framing.
const MESSAGE_BYTES_MAX: usize = 2 * EVENT_BYTES_MAX;
/// What waits in the producer, kilobytes.
const WAITING_KB_MAX: u32 = 128 * 1024;
/// Events that wait in the producer.
const WAITING_EVENTS_MAX: u32 = 1_000_000;
/// What a log partition may have fetched ahead, kilobytes.
const FETCHED_AHEAD_KB: u32 = 4 * 1024;
/// How long the broker waits for more before it answers a fetch, milliseconds.
const FETCH_WAIT_MS: u32 = 100;
/// How long events wait for others of their log partition, milliseconds. A batch comes as a whole: enough to gather it.
const LINGER_MS: u32 = 2;

/// From so many replicas on one may be lost without stopping whoever writes.
const REPLICAS_SAFE: usize = 3;
/// Replicas that must have an event before it counts as written, where there are enough.
const IN_SYNC_REPLICAS: usize = 2;
/// How long dead letters are kept, milliseconds: 30 days.
const DEAD_LETTERS_KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// Where a cluster is, and how one gets in.
#[derive(Clone, Debug, Default)]
pub struct KafkaConfig {
    /// `host:port`, with commas between several.
    pub servers: String,
    /// How connections are encrypted; none: they are not.
    pub tls: Option<Tls>,
    /// Who one is, by name and password.
    pub login: Option<Login>,
}

/// How connections are encrypted.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Whom to trust: a PEM file of certificates; none: those that the system trusts.
    pub authority: Option<PathBuf>,
    /// Who one is, for a broker that asks (mTLS).
    pub identity: Option<Identity>,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Identity {
    /// A PEM file: the certificate, then those that lead to its authority.
    pub certificate: PathBuf,
    /// The key, as PEM.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A name and its password (SASL).
#[derive(Clone)]
pub struct Login {
    /// `SCRAM-SHA-512`, `SCRAM-SHA-256` or `PLAIN`.
    pub mechanism: String,
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("mechanism", &self.mechanism)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl KafkaConfig {
    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        // Why a connection fails is told as information.
        client.set_log_level(RDKafkaLogLevel::Info);
        client
            .set("bootstrap.servers", &self.servers)
            .set("client.id", "serviceradar")
            .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "10000");
        let protocol = match (&self.tls, &self.login) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        };
        client.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            if let Some(authority) = &tls.authority {
                client.set("ssl.ca.location", authority.to_string_lossy());
            }
            if let Some(identity) = &tls.identity {
                client
                    .set("ssl.certificate.location", identity.certificate.to_string_lossy())
                    .set("ssl.key.pem", &identity.key);
            }
        }
        if let Some(login) = &self.login {
            client
                .set("sasl.mechanism", &login.mechanism)
                .set("sasl.username", &login.user)
                .set("sasl.password", &login.password);
        }
        client
    }
}

/// What a producer adds: nothing is given up before the caller gives up, and nothing is there twice.
pub(super) fn appending(mut client: ClientConfig) -> ClientConfig {
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "zstd")
        .set("linger.ms", LINGER_MS.to_string())
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.messages", WAITING_EVENTS_MAX.to_string())
        .set("queue.buffering.max.kbytes", WAITING_KB_MAX.to_string())
        .clone()
}

/// What a consumer adds. It says where it stands itself: the group is a name for lag tools alone.
pub(super) fn reading(mut client: ClientConfig) -> ClientConfig {
    client
        .set("group.id", "serviceradar")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", FETCH_WAIT_MS.to_string())
        .set("fetch.error.backoff.ms", "100")
        .set("queued.max.messages.kbytes", FETCHED_AHEAD_KB.to_string())
        // Once some of that is taken, more is fetched at once.
        .set("fetch.queue.backoff.ms", "5")
        .clone()
}

/// The settings of a new topic, by its stream. Source: `events.md`, "Topics".
pub(super) fn topic_settings(topic: &str) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("max.message.bytes", MESSAGE_BYTES_MAX.to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    let name = split(topic).map_or("", |(_, stream)| stream);
    let stream = Stream::ALL.into_iter().find(|stream| stream.name() == name);
    settings.extend(match stream {
        Some(Stream::DeviceChanges) => vec![("cleanup.policy", "compact".to_owned())],
        Some(Stream::DeadLetters) => {
            vec![("cleanup.policy", "delete".to_owned()), ("retention.ms", DEAD_LETTERS_KEPT_MS.to_string())]
        }
        Some(Stream::Observations | Stream::Decisions | Stream::Operations) | None => vec![
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", "-1".to_owned()),
            ("retention.bytes", "-1".to_owned()),
        ],
    });
    settings
}

/// What a topic must be set to that has so many replicas.
fn wanted_of_topic(topic: &str, replicas: usize) -> Vec<(&'static str, String)> {
    let mut wanted = topic_settings(topic);
    if replicas >= REPLICAS_SAFE {
        wanted.push(("min.insync.replicas", IN_SYNC_REPLICAS.to_string()));
    }
    wanted
}

/// The settings of a topic, of which each log partition has at least so many replicas.
pub(super) async fn of_topic(
    admin: &AdminClient<Context>,
    servers: &str,
    topic: &str,
    replicas: usize,
) -> Result<Vec<Setting>, LogError> {
    let of = format!("topic {topic}");
    let found = described(admin, ResourceSpecifier::Topic(topic), &of).await?;
    let settings = wanted_of_topic(topic, replicas).into_iter().map(|(name, wanted)| Setting {
        found: value(&found, name),
        mend: format!(
            "kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics --entity-name {topic} \
             --add-config {name}={wanted}"
        ),
        of: of.clone(),
        name,
        wanted,
    });
    Ok(settings.collect())
}

/// The settings of a broker. A topic that a stranger's typing error made would have none of ours.
pub(super) async fn of_broker(admin: &AdminClient<Context>, id: i32) -> Result<Vec<Setting>, LogError> {
    let of = format!("broker {id}");
    let found = described(admin, ResourceSpecifier::Broker(id), &of).await?;
    let name = "auto.create.topics.enable";
    Ok(vec![Setting {
        found: value(&found, name),
        mend: format!("put {name}=false into its server.properties, and restart it"),
        of,
        name,
        wanted: "false".to_owned(),
    }])
}

async fn described(
    admin: &AdminClient<Context>,
    resource: ResourceSpecifier<'_>,
    of: &str,
) -> Result<ConfigResource, LogError> {
    let described = admin.describe_configs([&resource], &options()).await.map_err(unavailable)?;
    let silent = || LogError::Unavailable(format!("the settings of {of} were not told"));
    let found = described.into_iter().next().ok_or_else(silent)?;
    found.map_err(|code| LogError::Unavailable(format!("the settings of {of}: {code}")))
}

fn value(found: &ConfigResource, name: &str) -> String {
    found.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_three_replicas_on_a_write_must_reach_two() {
        let of = |replicas| wanted_of_topic("t.observations", replicas);
        let in_sync = ("min.insync.replicas", "2".to_owned());
        assert!(of(3).contains(&in_sync));
        assert!(!of(2).contains(&in_sync), "with one of two gone nothing could be written");
    }

    #[test]
    fn what_is_kept_for_ever_is_neither_compacted_nor_deleted() {
        for topic in ["t.observations", "t.decisions"] {
            let wanted = topic_settings(topic);
            for kept in [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")] {
                assert!(wanted.contains(&(kept.0, kept.1.to_owned())), "{topic}: {kept:?}");
            }
        }
    }
}
