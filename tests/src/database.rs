//! Databases for tests: one private PostgreSQL for all tests of a program, or that of `ops/dev/services` with TimescaleDB,
//! and a database of its own for each test.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU32, Ordering},
};

use serviceradar_materializers::PostgresViews;
use serviceradar_ops::postgres::PrivatePostgres;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::services;

/// The server; the last test that holds it stops it and deletes its files.
struct Server {
    postgres: PrivatePostgres,
    // Last: deleted when the server is gone.
    _dir: TempDir,
}

static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Server {
    fn shared() -> Arc<Self> {
        let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        // On a thread and runtime of its own: it outlives the test that comes first.
        let started = std::thread::spawn(|| {
            let dir = tempfile::tempdir().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let postgres = runtime.block_on(PrivatePostgres::start(&dir.path().join("postgres"))).unwrap();
            Server { postgres, _dir: dir }
        });
        let server = Arc::new(started.join().unwrap());
        *shared = Arc::downgrade(&server);
        server
    }
}

/// A database of a test's own.
pub struct Database {
    url: String,
    /// The server that is stopped after the last test.
    server: Option<Arc<Server>>,
}

impl Database {
    /// An empty one.
    pub async fn empty() -> Self {
        let server = tokio::task::spawn_blocking(Server::shared).await.unwrap();
        let url = create(server.postgres.url()).await;
        Self { url, server: Some(server) }
    }

    /// An empty one where TimescaleDB is.
    pub async fn empty_timescale() -> Self {
        Self { url: create(&services::postgres().await).await, server: None }
    }

    /// A migrated one.
    pub async fn migrated() -> Self {
        Self::empty().await.migrate().await
    }

    /// A migrated one where TimescaleDB is.
    pub async fn migrated_timescale() -> Self {
        Self::empty_timescale().await.migrate().await
    }

    async fn migrate(self) -> Self {
        self.views().await.migrate().await.unwrap();
        self
    }

    /// How to connect, as its superuser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The views in it.
    pub async fn views(&self) -> PostgresViews {
        PostgresViews::connect(&self.url).await.unwrap()
    }

    /// A session of its superuser, who sees all base tables.
    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The other server goes with all it has.
        if self.server.is_none() {
            let (server, name) = self.url.rsplit_once('/').unwrap();
            let (url, name) = (format!("{server}/postgres"), name.to_owned());
            let dropping = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
                    connect(&url).await.batch_execute(&drop).await
                })
            });
            // A test that failed says why itself.
            let _ = dropping.join();
        }
    }
}

/// Makes a database beside that of a URL. Returns its own.
async fn create(url: &str) -> String {
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let name = format!("test_{}_{number}", std::process::id());
    connect(url).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
