//! The log store of this machine: held by one process, reached by the others over a socket.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use serviceradar_log::{EmbeddedLog, LogStore, SocketLog};
use serviceradar_ops::config::Config;
use serviceradar_schemas::time::SystemClock;

/// Where the embedded log lives.
fn folder(config: &Config) -> PathBuf {
    config.dir.join("log")
}

/// Where whoever holds it answers the others.
pub(crate) fn socket(config: &Config) -> PathBuf {
    config.dir.join("log.sock")
}

/// Opens the log, for this process alone; whoever holds it has the whole data folder.
pub(crate) async fn hold(config: &Config) -> anyhow::Result<Arc<dyn LogStore>> {
    std::fs::create_dir_all(&config.dir)
        .with_context(|| format!("cannot make {}: give another --dir", config.dir.display()))?;
    let folder = folder(config);
    // After a crash it is checked, which takes its time.
    let opened = tokio::task::spawn_blocking(move || EmbeddedLog::open(&folder, Arc::new(SystemClock)));
    Ok(Arc::new(opened.await??))
}

/// The log, over the socket of whoever holds it; where nobody does, it is opened for as long as it is used.
pub(crate) async fn reach(config: &Config) -> anyhow::Result<Arc<dyn LogStore>> {
    match SocketLog::connect(&socket(config)).await {
        Ok(log) => Ok(Arc::new(log)),
        Err(_) => hold(config).await,
    }
}
