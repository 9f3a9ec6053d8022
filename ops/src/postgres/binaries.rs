//! The programs of PostgreSQL on this machine.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serviceradar_materializers::EXTENSIONS;

use super::{PostgresError, account::Account, fetch};

/// The oldest PostgreSQL that will do.
pub const MAJOR_MIN: u32 = 15;
/// Where distributions put a version's own programs: `<here>/<version>/bin`.
const VERSIONED: &str = "/usr/lib/postgresql";

/// A PostgreSQL: a folder with `postgres` and `initdb`, and its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binaries {
    /// Major version, e.g. 15.
    pub major: u32,
    /// The folder of its programs, absolute, without symbolic links.
    pub bin: PathBuf,
}

impl Binaries {
    /// The newest one of this machine that will do; of version `major` where one is given.
    pub fn find(major: Option<u32>) -> Option<Self> {
        Self::all().into_iter().rfind(|found| major.is_none_or(|major| found.major == major))
    }

    /// Fetches one (18, or the `major` given) into the cache, unless it is there already.
    pub async fn fetch(major: Option<u32>) -> Result<Self, PostgresError> {
        fetch::fetch(major).await
    }

    /// Of this machine, within reach of the account, or else fetched.
    pub(super) async fn find_or_fetch(major: Option<u32>, account: &Account) -> Result<Self, PostgresError> {
        let found = Self::all().into_iter().rfind(|found| {
            major.is_none_or(|major| found.major == major) && account.check_reach(&found.bin).is_ok()
        });
        match found {
            Some(found) => Ok(found),
            None => Self::fetch(major).await,
        }
    }

    /// All of this machine that will do, the newest last.
    fn all() -> Vec<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let versions = std::fs::read_dir(VERSIONED).into_iter().flatten().flatten();
        let mut found: Vec<Self> = std::env::split_paths(&path)
            .chain(versions.map(|entry| entry.path().join("bin")))
            .filter_map(|folder| Self::at(&folder))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// The one whose programs are in a folder, if they are there and will do.
    pub(super) fn at(folder: &Path) -> Option<Self> {
        // `postgres` on the PATH is often a link: the folder it leads to has the rest.
        let postgres = folder.join("postgres").canonicalize().ok()?;
        let bin = postgres.parent()?.to_owned();
        let output = Command::new(&postgres).arg("--version").output().ok()?;
        let major = major(&String::from_utf8_lossy(&output.stdout))?;
        (major >= MAJOR_MIN && bin.join("initdb").is_file() && has_extensions(&bin, major))
            .then_some(Self { major, bin })
    }
}

/// `postgres (PostgreSQL) 15.14 (Debian …)` is 15; `18beta1` is 18.
fn major(version: &str) -> Option<u32> {
    let number = version.strip_prefix("postgres (PostgreSQL) ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn has_extensions(bin: &Path, major: u32) -> bool {
    let beside = bin.parent().unwrap_or(bin).join("share");
    let shares = [
        beside.join("postgresql"),
        beside.clone(),
        PathBuf::from(format!("/usr/share/postgresql/{major}")),
        PathBuf::from("/usr/share/pgsql"),
        PathBuf::from("/usr/share/postgresql"),
    ];
    shares
        .iter()
        .any(|share| EXTENSIONS.iter().all(|name| share.join(format!("extension/{name}.control")).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        assert_eq!(major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major("mysqld 8"), None);
    }
}
