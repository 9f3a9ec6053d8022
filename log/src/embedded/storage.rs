//! The file under the log: made, opened, opened anew after it failed, and what its errors mean.

use std::{
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::store::LogError;

/// The log's file in its folder.
pub(super) const FILE: &str = "log.redb";
/// Memory for pages of the file, bytes. Reads go forward and are mostly at the end, so more than
/// the inner pages and the newest blocks gains nothing.
const CACHE_BYTES: usize = 24 * 1024 * 1024;
/// How the file is opened.
pub(super) type Open = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The file under the log.
pub(super) struct Storage {
    path: PathBuf,
    open: Open,
    handle: RwLock<Handle>,
    /// Whether the open file takes no more calls since one of them failed.
    failed: AtomicBool,
}

enum Handle {
    Open(Database),
    /// To be opened by the next call.
    Failed,
    Closed,
}

impl Storage {
    /// Opens the log's file in `folder`, and makes it where it is not.
    pub(super) fn in_folder(folder: &Path) -> Result<Self, LogError> {
        let path = folder.join(FILE);
        if !path.exists() {
            make(folder, &path)
                .map_err(|error| LogError::Unavailable(format!("{}: {error}", path.display())))?;
        }
        let file = path.clone();
        let open = move || {
            // A damaged page that is not looked at until it is read may show what is not there.
            Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).open(&file)
        };
        Self::new(path, Box::new(open))
    }

    /// A log's file opened by `open`; errors call it `path`.
    pub(super) fn new(path: PathBuf, open: Open) -> Result<Self, LogError> {
        let handle = RwLock::new(Handle::Failed);
        let storage = Self { path, open, handle, failed: AtomicBool::new(false) };
        storage.with(|_| Ok(()))?;
        Ok(storage)
    }

    /// Closes the file for good; what still reads from it fails.
    pub(super) fn close(&self) {
        self.leave(Handle::Closed);
    }

    /// Has the next call open the file anew.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    fn leave(&self, next: Handle) {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*handle, Handle::Closed) {
            return;
        }
        let left = std::mem::replace(&mut *handle, next);
        // What failed to close was failing before, and whoever was concerned has been told.
        let _ = self.guarded(|| match left {
            Handle::Open(database) => database.close().map_err(|error| self.error(error)),
            Handle::Failed | Handle::Closed => Ok(()),
        });
        self.failed.store(false, Ordering::Release);
    }

    /// What is committed now.
    pub(super) fn begin_read(&self) -> Result<ReadTransaction, LogError> {
        self.with(|database| database.begin_read().map_err(|error| self.error(error)))
    }

    /// The one transaction that writes.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, LogError> {
        let mut transaction =
            self.with(|database| database.begin_write().map_err(|error| self.error(error)))?;
        // With one phase, a last commit that was damaged later would after a crash be taken for
        // one that was never finished, and silently be gone: two phases tell them apart.
        transaction.set_two_phase_commit(true);
        Ok(transaction)
    }

    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, LogError>) -> Result<T, LogError> {
        if self.failed.load(Ordering::Acquire) {
            self.leave(Handle::Failed);
        }
        if let Handle::Open(database) = &*self.handle.read().unwrap_or_else(PoisonError::into_inner) {
            return act(database);
        }
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if let Handle::Failed = *handle {
            let open = || (self.open)().map_err(|error| self.error(error));
            *handle = Handle::Open(self.guarded(open)?);
        }
        match &*handle {
            Handle::Open(database) => act(database),
            Handle::Failed | Handle::Closed => Err(self.closed()),
        }
    }

    /// Runs what the storage does with its file, which panics on some kinds of damage.
    pub(super) fn guarded<T>(&self, act: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
        catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
            self.fail();
            Err(self.corrupt("it is not what was written"))
        })
    }

    /// The error where `what` of the file is damaged.
    pub(super) fn corrupt(&self, what: &str) -> LogError {
        let path = self.path.display();
        LogError::Corrupt(format!("{path}: {what}; restore the file from a copy or an archive"))
    }

    fn closed(&self) -> LogError {
        LogError::Unavailable(format!("{} is closed", self.path.display()))
    }

    /// What an error of the storage means to its caller, and to the calls after it.
    pub(super) fn error(&self, error: impl Into<redb::Error>) -> LogError {
        use redb::Error;
        let path = self.path.display();
        let error = error.into();
        if let Error::Io(_) | Error::PreviousIo | Error::LockPoisoned(_) = error {
            self.fail();
        }
        match error {
            Error::DatabaseAlreadyOpen | Error::LockProtocolMismatch => LogError::Unavailable(format!(
                "{path} is open in another process: stop that one, or reach it over its socket"
            )),
            Error::Io(error) if is_damage(&error) => self.corrupt(&error.to_string()),
            Error::Io(error) => LogError::Unavailable(format!("{path}: {error}")),
            Error::PreviousIo => LogError::Unavailable(format!("{path} failed before, and is opened anew")),
            Error::DatabaseClosed => self.closed(),
            error => self.corrupt(&error.to_string()),
        }
    }
}

impl Drop for Storage {
    /// On a damaged file closing may panic, too.
    fn drop(&mut self) {
        self.close();
    }
}

/// Makes an empty log under another name, and gives it the log's when it is whole and on disk. So a
/// crash half-way is not in the way, and a file of that name that is no log is a damaged one.
fn make(folder: &Path, path: &Path) -> Result<(), redb::Error> {
    fs::create_dir_all(folder)?;
    let new = folder.join(format!("{FILE}.{}", std::process::id()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => Database::create(&new)?.close()?,
    }
    match fs::hard_link(&new, path) {
        // Another process was faster.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => fs::remove_file(&new)?,
    }
    File::open(folder)?.sync_all()?;
    if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

/// Whether reading failed for what the file holds, not for what holds the file.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
}
