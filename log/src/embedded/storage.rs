//! The file under the log: opened, opened anew after it failed, and what its errors mean.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use redb::{Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::store::LogError;

/// The log's file in its folder.
pub(super) const FILE: &str = "log.redb";
/// Memory for pages of the file, bytes. Reads go forward and are mostly at the end, so more than
/// the inner pages and the newest blocks gains nothing.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Up to this length every page is checked at the start, in about a second; a longer file is
/// checked as it is read, block by block.
const CHECKED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// How the file is opened.
pub(super) type Open = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The file under the log.
pub(super) struct Storage {
    path: PathBuf,
    open: Open,
    /// `None` after a failure, until it is opened anew, and when the log is closed.
    database: RwLock<Option<Database>>,
}

impl Storage {
    /// Opens or makes the log's file in `folder`.
    pub(super) fn in_folder(folder: &Path) -> Result<Self, LogError> {
        fs::create_dir_all(folder)
            .map_err(|error| LogError::Unavailable(format!("{}: {error}", folder.display())))?;
        let path = folder.join(FILE);
        let file = path.clone();
        Self::new(
            path,
            Box::new(move || {
                let length = fs::metadata(&file).map_or(0, |found| found.len());
                Builder::new()
                    .set_cache_size(CACHE_BYTES)
                    .set_check_integrity_on_open(length <= CHECKED_BYTES_MAX)
                    .create(&file)
            }),
        )
    }

    /// A log's file opened by `open`; errors call it `path`.
    pub(super) fn new(path: PathBuf, open: Open) -> Result<Self, LogError> {
        let storage = Self { path, open, database: RwLock::new(None) };
        storage.reopen()?;
        Ok(storage)
    }

    /// Opens the file if it is not open.
    pub(super) fn reopen(&self) -> Result<(), LogError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some(self.guarded(|| (self.open)().map_err(|error| self.error(error)))?);
        }
        Ok(())
    }

    /// Closes the file; what still reads from it fails.
    pub(super) fn close(&self) {
        let database = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        // What failed to close was failing before, and whoever was concerned has been told.
        let _ = self.guarded(|| database.map_or(Ok(()), Database::close).map_err(|e| self.error(e)));
    }

    /// What is committed now.
    pub(super) fn begin_read(&self) -> Result<ReadTransaction, LogError> {
        self.with(|database| database.begin_read().map_err(|error| self.error(error)))
    }

    /// The one transaction that writes.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, LogError> {
        self.with(|database| database.begin_write().map_err(|error| self.error(error)))
    }

    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, LogError>) -> Result<T, LogError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        act(database.as_ref().ok_or_else(|| self.closed())?)
    }

    /// Runs what the storage does with its file, which panics on some kinds of damage.
    pub(super) fn guarded<T>(&self, act: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
        catch_unwind(AssertUnwindSafe(act))
            .unwrap_or_else(|_| Err(self.corrupt("it is not what was written")))
    }

    /// The error where `what` of the file is damaged.
    pub(super) fn corrupt(&self, what: &str) -> LogError {
        let path = self.path.display();
        LogError::Corrupt(format!("{path}: {what}; restore the file from a copy or an archive"))
    }

    fn closed(&self) -> LogError {
        LogError::Unavailable(format!("{} is closed", self.path.display()))
    }

    /// What an error of the storage means to its caller.
    pub(super) fn error(&self, error: impl Into<redb::Error>) -> LogError {
        let path = self.path.display();
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => LogError::Unavailable(format!(
                "{path} is open in another process: stop that one, or reach it over its socket"
            )),
            redb::Error::Io(error) if is_damage(&error) => self.corrupt(&error.to_string()),
            redb::Error::Io(error) => LogError::Unavailable(format!("{path}: {error}")),
            redb::Error::DatabaseClosed | redb::Error::PreviousIo => self.closed(),
            error => self.corrupt(&error.to_string()),
        }
    }
}

/// Whether reading failed for what the file holds, not for what holds the file.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
}
