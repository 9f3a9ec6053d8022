//! Where an archive is: a folder, or a prefix in a bucket of a store that speaks as S3 does. Nothing appears in
//! either before it is whole: a folder's files are written under another name first, and objects are put at once.

use std::{fs::File, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    buffered::BufWriter,
    local::LocalFileSystem,
    path::Path,
};

use super::ArchiveError;

/// What is sent to a store at a time, bytes: the greatest part of a file that one upload may have is 10,000th.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts under way at a time.
const PARTS_AT_ONCE: usize = 2;
/// What is read at a time, bytes.
pub(crate) const PIECE_BYTES: u64 = 4 * 1024 * 1024;
/// The name of the file by whose lock one archive at a time is written to a folder.
const LOCK: &str = "archive.lock";
const S3: &str = "s3://";

/// Where an archive is.
pub struct Place {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    name: String,
    folder: Option<PathBuf>,
}

impl Place {
    /// `s3://bucket/prefix`, with credentials, region and endpoint by the usual `AWS_…` variables; else a folder.
    ///
    /// # Errors
    /// [`ArchiveError::NoPlace`].
    pub fn at(name: &str) -> Result<Self, ArchiveError> {
        if name.starts_with(S3) { Self::bucket(name) } else { Self::folder(name) }
    }

    /// A prefix of any store; `name` is how it is told of.
    ///
    /// # Errors
    /// [`ArchiveError::NoPlace`].
    pub fn of(store: Arc<dyn ObjectStore>, prefix: &str, name: &str) -> Result<Self, ArchiveError> {
        let prefix = Path::parse(prefix).map_err(|error| no_place(name, error))?;
        Ok(Self { store, prefix, name: name.to_owned(), folder: None })
    }

    fn folder(name: &str) -> Result<Self, ArchiveError> {
        let folder = std::path::absolute(name).map_err(|error| no_place(name, error))?;
        let store = Arc::new(LocalFileSystem::new().with_fsync(true));
        let prefix = Path::from_absolute_path(&folder).map_err(|error| no_place(name, error))?;
        Ok(Self { store, prefix, name: name.to_owned(), folder: Some(folder) })
    }

    fn bucket(name: &str) -> Result<Self, ArchiveError> {
        // Refused where the program has chosen its provider already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = AmazonS3Builder::from_env().with_url(name);
        let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
        let endpoint = endpoints.iter().find_map(|key| builder.get_config_value(key));
        // Whoever writes it means it.
        if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
            builder = builder.with_allow_http(true);
        }
        let store = builder.build().map_err(|error| no_place(name, error))?;
        let prefix = name[S3.len()..].split_once('/').map_or("", |(_, prefix)| prefix);
        Self::of(Arc::new(store), prefix.trim_matches('/'), name)
    }

    /// How it is told of.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has a folder for this process alone, until what is returned is dropped, and clears what a killed one left half
    /// written. Of a store everybody knows: one archive at a time is written to a prefix.
    pub(super) fn hold(&self) -> Result<Option<File>, ArchiveError> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let failed = |error: std::io::Error| no_place(&self.name, error);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let lock = File::create(folder.join(LOCK)).map_err(failed)?;
        lock.try_lock().map_err(|_| ArchiveError::Held(self.name.clone()))?;
        clear(folder).map_err(failed)?;
        Ok(Some(lock))
    }

    fn path(&self, path: &str) -> Path {
        path.split('/').fold(self.prefix.clone(), |whole, part| whole.join(part))
    }

    fn failed(&self, path: &str, error: object_store::Error) -> ArchiveError {
        ArchiveError::Place { place: self.name.clone(), path: path.to_owned(), why: words(&error) }
    }

    /// Puts a small file, whole or not at all.
    pub(super) async fn put(&self, path: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        let put = self.store.put(&self.path(path), bytes.into()).await;
        put.map(drop).map_err(|error| self.failed(path, error))
    }

    /// A small file; none where there is none.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Bytes>, ArchiveError> {
        let got = match self.store.get(&self.path(path)).await {
            Ok(got) => got.bytes().await,
            Err(error) => Err(error),
        };
        found(got).map_err(|error| self.failed(path, error))
    }

    /// A part of a file; none where there is no such file.
    pub(super) async fn piece(&self, path: &str, from: u64, to: u64) -> Result<Option<Bytes>, ArchiveError> {
        let got = self.store.get_range(&self.path(path), from..to).await;
        found(got).map_err(|error| self.failed(path, error))
    }

    /// The size of a file, bytes; none where there is none.
    pub(super) async fn size(&self, path: &str) -> Result<Option<u64>, ArchiveError> {
        let found = found(self.store.head(&self.path(path)).await);
        found.map(|meta| meta.map(|meta| meta.size)).map_err(|error| self.failed(path, error))
    }

    /// Names of the files in a folder of the archive whose names end so, in order.
    pub(super) async fn list(&self, folder: &str, end: &str) -> Result<Vec<String>, ArchiveError> {
        let list = self.store.list(Some(&self.path(folder)));
        let found: Vec<_> = list.try_collect().await.map_err(|error| self.failed(folder, error))?;
        let names = found.iter().filter_map(|meta| meta.location.filename());
        let mut names: Vec<_> =
            names.filter(|name| name.ends_with(end)).map(|name| format!("{folder}/{name}")).collect();
        names.sort();
        Ok(names)
    }

    /// Writes a file that may be large; it is there once it is finished.
    pub(super) fn upload<'a>(&'a self, path: &'a str) -> Upload<'a> {
        let writer = BufWriter::with_capacity(self.store.clone(), self.path(path), PART_BYTES);
        Upload { place: self, path, writer: writer.with_max_concurrency(PARTS_AT_ONCE) }
    }
}

/// A file under way to an archive.
pub(super) struct Upload<'a> {
    place: &'a Place,
    path: &'a str,
    writer: BufWriter,
}

impl Upload<'_> {
    /// More of it.
    pub(super) async fn put(&mut self, bytes: Bytes) -> Result<(), ArchiveError> {
        self.writer.put(bytes).await.map_err(|error| self.place.failed(self.path, error))
    }

    /// That is all of it.
    pub(super) async fn finish(mut self) -> Result<(), ArchiveError> {
        let done = tokio::io::AsyncWriteExt::shutdown(&mut self.writer).await;
        done.map_err(|error| ArchiveError::Place {
            place: self.place.name.clone(),
            path: self.path.to_owned(),
            why: words(&error),
        })
    }
}

/// Deletes what was being written when its process was killed: names that end in `#` and a number.
fn clear(folder: &std::path::Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            clear(&entry.path())?;
            continue;
        }
        let name = entry.file_name();
        let suffix = name.to_str().and_then(|name| name.rsplit_once('#')).map(|(_, suffix)| suffix);
        if suffix.is_some_and(|suffix| !suffix.is_empty() && suffix.bytes().all(|b| b.is_ascii_digit())) {
            match std::fs::remove_file(entry.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn found<T>(got: Result<T, object_store::Error>) -> Result<Option<T>, object_store::Error> {
    match got {
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        got => got.map(Some),
    }
}

fn no_place(name: &str, error: impl std::error::Error) -> ArchiveError {
    ArchiveError::NoPlace { place: name.to_owned(), why: words(&error) }
}

/// An error with what it came from, which it does not say by itself.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
