//! Every log store obeys the laws of `serviceradar_tests::log_conformance`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use serviceradar_log::{EmbeddedLog, LogStore, MemoryLog, SocketLog, socket};
use serviceradar_schemas::time::ManualClock;
use serviceradar_tests::{log_conformance, log_conformance::Fixture};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

mod memory {
    use super::*;

    struct Memory {
        clock: Arc<ManualClock>,
        store: Arc<dyn LogStore>,
    }

    #[async_trait]
    impl Fixture for Memory {
        async fn start() -> Self {
            let clock = Arc::new(ManualClock::default());
            Self { store: Arc::new(MemoryLog::new(clock.clone())), clock }
        }

        fn store(&self) -> &Arc<dyn LogStore> {
            &self.store
        }

        fn clock(&self) -> Option<&ManualClock> {
            Some(&self.clock)
        }

        /// Its events end with the process, so there is nothing that a restart could come back to.
        async fn restart(&mut self) {}
    }

    log_conformance!(Memory);
}

mod embedded {
    use super::*;

    struct Embedded {
        folder: TempDir,
        clock: Arc<ManualClock>,
        /// `None` while it restarts.
        store: Option<Arc<dyn LogStore>>,
    }

    #[async_trait]
    impl Fixture for Embedded {
        async fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::default());
            let store = open(folder.path(), &clock);
            Self { folder, clock, store: Some(store) }
        }

        fn store(&self) -> &Arc<dyn LogStore> {
            self.store.as_ref().unwrap()
        }

        fn clock(&self) -> Option<&ManualClock> {
            Some(&self.clock)
        }

        async fn restart(&mut self) {
            self.store = None;
            self.store = Some(open(self.folder.path(), &self.clock));
        }
    }

    log_conformance!(Embedded);
}

mod socket_to_embedded {
    use super::*;

    struct Socket {
        folder: TempDir,
        clock: Arc<ManualClock>,
        /// `None` while it restarts.
        holder: Option<Holder>,
        /// The same through every restart: it finds the next holder by itself.
        store: Arc<dyn LogStore>,
    }

    /// The process that holds the log, were it another one.
    struct Holder {
        stop: oneshot::Sender<()>,
        serving: JoinHandle<()>,
    }

    impl Holder {
        async fn start(folder: &Path, clock: &Arc<ManualClock>) -> Self {
            let store = open(folder, clock);
            let path = folder.join("log.sock");
            let (stop, stopped) = oneshot::channel();
            let served = path.clone();
            let serving = tokio::spawn(async move {
                let stopped = async { stopped.await.unwrap() };
                socket::serve(store, &served, stopped).await.unwrap();
            });
            while !path.exists() {
                tokio::task::yield_now().await;
            }
            Self { stop, serving }
        }

        async fn stop(self) {
            self.stop.send(()).unwrap();
            self.serving.await.unwrap();
        }
    }

    #[async_trait]
    impl Fixture for Socket {
        async fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::default());
            let holder = Holder::start(folder.path(), &clock).await;
            let store = SocketLog::connect(&folder.path().join("log.sock")).await.unwrap();
            Self { folder, clock, holder: Some(holder), store: Arc::new(store) }
        }

        fn store(&self) -> &Arc<dyn LogStore> {
            &self.store
        }

        fn clock(&self) -> Option<&ManualClock> {
            Some(&self.clock)
        }

        async fn restart(&mut self) {
            self.holder.take().unwrap().stop().await;
            self.holder = Some(Holder::start(self.folder.path(), &self.clock).await);
        }
    }

    log_conformance!(Socket);
}

mod kafka {
    use serviceradar_log::{KafkaConfig, KafkaLog};
    use serviceradar_tests::services;
    use tokio::sync::{OwnedRwLockReadGuard, RwLock};

    use super::*;

    struct Kafka {
        store: Arc<dyn LogStore>,
        /// While it is held, nobody restarts the broker, which all share.
        uses: Option<OwnedRwLockReadGuard<()>>,
    }

    fn broker() -> Arc<RwLock<()>> {
        static BROKER: OnceLock<Arc<RwLock<()>>> = OnceLock::new();
        BROKER.get_or_init(Arc::default).clone()
    }

    #[async_trait]
    impl Fixture for Kafka {
        async fn start() -> Self {
            let uses = Some(broker().read_owned().await);
            let config = KafkaConfig { servers: services::kafka().await, ..KafkaConfig::default() };
            Self { store: Arc::new(KafkaLog::new(&config).unwrap()), uses }
        }

        fn store(&self) -> &Arc<dyn LogStore> {
            &self.store
        }

        /// The broker's own.
        fn clock(&self) -> Option<&ManualClock> {
            None
        }

        async fn restart(&mut self) {
            self.uses = None;
            let alone = broker().write_owned().await;
            services::restart("kafka").await;
            self.uses = Some(alone.downgrade());
        }
    }

    log_conformance!(Kafka);
}

fn open(folder: &Path, clock: &Arc<ManualClock>) -> Arc<dyn LogStore> {
    Arc::new(EmbeddedLog::open(folder, clock.clone()).unwrap())
}
