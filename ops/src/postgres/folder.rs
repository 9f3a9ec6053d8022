//! The folder of a private server: taken by one process at a time, made once, freed of what was left over.

use std::{
    fmt::Write,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use super::{Account, Binaries, NAME, PostgresError, server};

/// Of the log, in an error: enough to see the reason.
const LOG_TAIL_BYTES: usize = 2_000;
/// Of the password, before it is written in hexadecimal digits.
const PASSWORD_BYTES: usize = 24;

/// A folder that this process holds.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) account: Account,
    // Held, not read: the operating system gives it up when we die.
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be, takes it, and stops a server that an earlier run left there.
    pub(super) async fn take(dir: &Path) -> Result<Self, PostgresError> {
        fs::create_dir_all(dir).map_err(PostgresError::at(dir))?;
        let path = dir.canonicalize().map_err(PostgresError::at(dir))?;
        let lock = File::create(path.join("lock")).map_err(PostgresError::at(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(PostgresError::InUse(path)),
            Err(fs::TryLockError::Error(error)) => return Err(PostgresError::at(&path)(error)),
        }
        let account = Account::of(&path.join("data"))?;
        if let Some(parent) = path.parent() {
            account.let_through(parent)?;
        }
        account.own(&path)?;
        account.check_reach(&path)?;
        let folder = Self { path, account, _lock: lock };
        server::stop_left_over(&folder.data()).await?;
        Ok(folder)
    }

    /// Where PostgreSQL keeps its files.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// The version that the files are of; `None` where there are none yet.
    pub(super) fn major(&self) -> Result<Option<u32>, PostgresError> {
        let path = self.data().join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => {
                text.trim().parse().map(Some).map_err(|_| {
                    PostgresError::at(&path)(io::Error::other(format!("{text:?} is no version")))
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PostgresError::at(&path)(error)),
        }
    }

    /// Makes the files of a new server, if there are none. Returns the password.
    pub(super) fn initialise(&self, binaries: &Binaries) -> Result<String, PostgresError> {
        let password_file = self.path.join("password");
        if self.data().exists() {
            return fs::read_to_string(&password_file).map_err(PostgresError::at(&password_file));
        }
        let password = new_password().map_err(PostgresError::at(Path::new("/dev/urandom")))?;
        self.write_secret(&password_file, &password)?;

        // Only what is complete gets the final name.
        let partial = self.path.join("data.partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(PostgresError::at(&partial))?;
        }
        let output = self
            .account
            .command(&binaries.bin.join("initdb"), &self.path)
            .args(["--username", NAME, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("--pgdata")
            .arg(&partial)
            .stdin(Stdio::null())
            .output()
            .map_err(PostgresError::at(&binaries.bin.join("initdb")))?;
        if !output.status.success() {
            return Err(PostgresError::Program {
                program: "initdb",
                folder: self.path.clone(),
                output: tail(&[output.stdout, output.stderr].concat()),
            });
        }
        fs::rename(&partial, self.data()).map_err(PostgresError::at(&partial))?;
        Ok(password)
    }

    /// The port of the last run where it is free, so that a URL stays good; else any free one.
    pub(super) fn free_port(&self) -> Result<u16, PostgresError> {
        let former = port(&self.path);
        let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr();
        former
            .map_or_else(|| free(0), |port| free(port).or_else(|_| free(0)))
            .map(|address| address.port())
            .map_err(PostgresError::at(&self.path))
    }

    /// For the next run.
    pub(super) fn remember_port(&self, port: u16) -> Result<(), PostgresError> {
        let path = self.path.join("port");
        fs::write(&path, port.to_string()).map_err(PostgresError::at(&path))
    }

    /// A new log for a new run.
    pub(super) fn new_log(&self) -> Result<File, PostgresError> {
        let path = self.path.join("server.log");
        File::create(&path).map_err(PostgresError::at(&path))
    }

    /// The log of the run before, to go on with.
    pub(super) fn log(&self) -> Result<File, PostgresError> {
        let path = self.path.join("server.log");
        OpenOptions::new().append(true).create(true).open(&path).map_err(PostgresError::at(&path))
    }

    /// The last that the server said.
    pub(super) fn log_tail(&self) -> String {
        tail(&fs::read(self.path.join("server.log")).unwrap_or_default())
    }

    fn write_secret(&self, path: &Path, secret: &str) -> Result<(), PostgresError> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| io::Write::write_all(&mut file, secret.as_bytes()));
        written.map_err(PostgresError::at(path))?;
        self.account.own(path)
    }
}

fn port(dir: &Path) -> Option<u16> {
    fs::read_to_string(dir.join("port")).ok()?.parse().ok()
}

/// Port and password of the server of a folder, as it ran last.
pub(super) fn login(dir: &Path) -> Option<(u16, String)> {
    Some((port(dir)?, fs::read_to_string(dir.join("password")).ok()?))
}

fn new_password() -> io::Result<String> {
    let mut bytes = [0; PASSWORD_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

fn tail(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
}
