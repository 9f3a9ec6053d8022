//! Databases for tests: one private PostgreSQL for all tests of a program, a database of its own for each.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU32, Ordering},
};

use serviceradar_materializers::PostgresViews;
use serviceradar_ops::postgres::PrivatePostgres;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

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
    _server: Arc<Server>,
}

impl Database {
    /// An empty one.
    pub async fn empty() -> Self {
        let server = tokio::task::spawn_blocking(Server::shared).await.unwrap();
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let url = server.postgres.url().to_owned();
        connect(&url).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let (server_url, _) = url.rsplit_once('/').unwrap();
        Self { url: format!("{server_url}/{name}"), _server: server }
    }

    /// A migrated one.
    pub async fn migrated() -> Self {
        let database = Self::empty().await;
        database.views().await.migrate().await.unwrap();
        database
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

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
