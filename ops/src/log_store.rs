//! The log store: a Kafka where one is configured, else that of this machine, which one process holds and the others
//! reach over a socket.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use serviceradar_log::{EmbeddedLog, KafkaLog, LogStore, SocketLog};
use serviceradar_ops::config::Config;
use serviceradar_replay::topics;
use serviceradar_schemas::time::SystemClock;

/// Where the embedded log lives.
fn folder(config: &Config) -> PathBuf {
    config.dir.join("log")
}

/// Where whoever holds it answers the others; none where all reach the log by themselves.
pub(crate) fn socket(config: &Config) -> Option<PathBuf> {
    config.kafka.is_none().then(|| config.dir.join("log.sock"))
}

fn kafka(config: &Config) -> anyhow::Result<Option<Arc<dyn LogStore>>> {
    let Some(config) = &config.kafka else {
        return Ok(None);
    };
    Ok(Some(Arc::new(KafkaLog::new(config)?)))
}

/// Opens the log for a pipeline. An embedded one for this process alone: whoever holds it has the whole data folder.
pub(crate) async fn hold(config: &Config) -> anyhow::Result<Arc<dyn LogStore>> {
    std::fs::create_dir_all(&config.dir)
        .with_context(|| format!("cannot make {}: give another --dir", config.dir.display()))?;
    if let Some(log) = kafka(config)? {
        return Ok(log);
    }
    let folder = folder(config);
    // After a crash it is checked, which takes its time.
    let opened = tokio::task::spawn_blocking(move || EmbeddedLog::open(&folder, Arc::new(SystemClock)));
    Ok(Arc::new(opened.await??))
}

/// Whether there is a log: one in the data folder is made when it is first used.
pub(crate) fn is_there(config: &Config) -> bool {
    config.kafka.is_some() || folder(config).exists()
}

/// The log, over the socket of whoever holds it; where nobody does, it is opened for as long as it is used.
pub(crate) async fn reach(config: &Config) -> anyhow::Result<Arc<dyn LogStore>> {
    let Some(socket) = socket(config) else {
        return hold(config).await;
    };
    match SocketLog::connect(&socket).await {
        Ok(log) => Ok(Arc::new(log)),
        Err(_) => hold(config).await,
    }
}

/// Refuses brokers, and topics of the tenant, whose settings would lose events, with the commands that mend them. What is
/// set so later is told by the driver, which looks every hour.
pub(crate) async fn check(config: &Config, log: &dyn LogStore) -> anyhow::Result<()> {
    let problems = topics::setting_problems(log, &config.tenant).await?;
    if problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    bail!("settings of the log contradict what its streams need:\n{}", lines.join("\n"))
}
