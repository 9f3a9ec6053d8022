//! A PostgreSQL of our own: found or fetched, made, started, and stopped with the program.
//!
//! One folder holds everything of it: `data`, `password`, `port`, `server.log`, and `lock`, which the
//! program that runs it holds. It listens on a free port of the loopback address alone, with a password.
//! When the program dies, even by `kill -9`, the server stops by itself; should one be left over, the
//! next start in the folder stops it first: there are never two. A server that dies is started again.

mod account;
mod binaries;
mod fetch;
mod folder;
mod kept;
mod server;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use account::Account;
pub use binaries::{Binaries, MAJOR_MIN};
use folder::Folder;
use kept::Kept;
use server::Server;

/// The role that owns everything, and the database.
const NAME: &str = "serviceradar";
/// A start after a crash replays up to `max_wal_size` of log: minutes on a slow disk.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// Starts tried: the port may be taken meanwhile, backends of a killed server may live a moment longer.
const STARTS_MAX: u32 = 5;

/// Why there is no PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// Another live process runs the server of this folder.
    #[error(
        "the database folder {0} is in use by another serviceradar process: stop that one, or choose another folder"
    )]
    InUse(PathBuf),
    /// Root gives its rights up for PostgreSQL, and what it becomes cannot enter a folder.
    #[error(
        "PostgreSQL, which must not run as root, runs as user id {uid}, and that user cannot enter {folder}: choose a folder elsewhere, or `chmod o+x {folder}`"
    )]
    OutOfReach {
        /// The first folder on the way that cannot be entered.
        folder: PathBuf,
        /// As whom PostgreSQL would run.
        uid: u32,
    },
    /// Root, and no user to become.
    #[error(
        "PostgreSQL must not run as root, and there is neither a user `postgres` nor `nobody` to run it as: add one, or give `--database URL`"
    )]
    NoAccount,
    /// No binaries here, and none could be fetched.
    #[error(
        "no usable PostgreSQL was found (version {MAJOR_MIN} or later with pg_trgm, btree_gin and btree_gist), and fetching one failed: {0}. Install PostgreSQL with its contrib extensions, connect this machine to the network once, or give `--database URL`"
    )]
    NoBinaries(String),
    /// There is nowhere to keep a fetched PostgreSQL.
    #[error("there is no folder to keep a fetched PostgreSQL in: set HOME or XDG_CACHE_HOME")]
    NoCache,
    /// A program of PostgreSQL failed.
    #[error("{program} failed in {folder}: {output}")]
    Program {
        /// `initdb` or `postgres`.
        program: &'static str,
        /// The folder of the server.
        folder: PathBuf,
        /// The last of what it said.
        output: String,
    },
    /// It runs and answers nobody.
    #[error("PostgreSQL in {folder} did not answer within {within:?}: {last}. See server.log there")]
    Silent {
        /// The folder of the server.
        folder: PathBuf,
        /// How long it had.
        within: Duration,
        /// What the last try met.
        last: String,
    },
    /// A server of an earlier run does not stop.
    #[error(
        "a PostgreSQL of an earlier run, process {pid}, still runs on {data} and does not stop: stop it by hand, then try again"
    )]
    LeftOver {
        /// Its files.
        data: PathBuf,
        /// Its process id.
        pid: u32,
    },
    /// A file or folder could not be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl PostgresError {
    /// Says which path an error of the operating system is about.
    fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| PostgresError::File { path, error }
    }
}

/// A running server. Stops when dropped, which waits for it; [`PrivatePostgres::stop`] waits without blocking.
#[derive(Debug)]
pub struct PrivatePostgres {
    server: Kept,
    url: String,
}

impl PrivatePostgres {
    /// Starts the server of a folder, which is made if it is missing. Uses binaries of this machine,
    /// or fetches them once into the cache.
    pub async fn start(dir: &Path) -> Result<Self, PostgresError> {
        let folder = Folder::take(dir).await?;
        let binaries = Binaries::find_or_fetch(folder.major()?, &folder.account).await?;
        Self::start_in(folder, &binaries).await
    }

    /// Starts the server of a folder with the binaries given.
    pub async fn start_with(dir: &Path, binaries: &Binaries) -> Result<Self, PostgresError> {
        Self::start_in(Folder::take(dir).await?, binaries).await
    }

    async fn start_in(folder: Folder, binaries: &Binaries) -> Result<Self, PostgresError> {
        folder.account.check_reach(&binaries.bin)?;
        let password = folder.initialise(binaries)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let port = folder.free_port()?;
            let mut server = Server::start(&folder, binaries, port, folder.new_log()?)?;
            match ready(&mut server, &folder, &login(port, &password, "postgres")).await {
                Ok(()) => {
                    folder.remember_port(port)?;
                    let server = Kept::new(server, folder, binaries, port);
                    return Ok(Self { server, url: login(port, &password, NAME) });
                }
                Err(PostgresError::Program { .. }) if tries < STARTS_MAX => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// How to connect to the server of a folder, password included, as it ran last; it may be stopped. None where there
    /// never was one.
    pub fn url_of(dir: &Path) -> Option<String> {
        let (port, password) = folder::login(dir)?;
        Some(login(port, &password, NAME))
    }

    /// How to connect, password included: `postgresql://…`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Process id of the server: another one after it was started again.
    pub fn pid(&self) -> u32 {
        self.server.pid().unwrap_or_default()
    }

    /// Whether the server runs at this moment.
    pub fn is_running(&self) -> bool {
        self.server.is_running()
    }

    /// Ends all sessions, writes everything out and waits until the server is gone.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

fn login(port: u16, password: &str, database: &str) -> String {
    format!("postgresql://{NAME}:{password}@127.0.0.1:{port}/{database}")
}

/// Waits until the server answers, and sees to it that our database is there.
async fn ready(server: &mut Server, folder: &Folder, url: &str) -> Result<(), PostgresError> {
    let deadline = tokio::time::Instant::now() + READY_WITHIN;
    loop {
        if server.exited().is_some() {
            return Err(PostgresError::Program {
                program: "postgres",
                folder: folder.path.clone(),
                output: folder.log_tail(),
            });
        }
        let last = match make_database(url).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if tokio::time::Instant::now() > deadline {
            return Err(PostgresError::Silent {
                folder: folder.path.clone(),
                within: READY_WITHIN,
                last: last.to_string(),
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn make_database(url: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let there = client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&NAME]).await?;
    if there.is_none() {
        client.batch_execute(&format!("CREATE DATABASE {NAME}")).await?;
    }
    drop(client);
    connection.await.ok();
    Ok(())
}
