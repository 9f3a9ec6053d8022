//! As whom PostgreSQL's processes run: as ourselves, or, when we are root, as somebody without rights.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use nix::unistd::{User, geteuid};

use super::PostgresError;

/// Who runs the processes. `None`: whoever we are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account(Option<(u32, u32)>);

impl Account {
    /// Of a server whose files are in `data`: as root their owner, if any, so that a folder keeps its user.
    pub(super) fn of(data: &Path) -> Result<Self, PostgresError> {
        if !geteuid().is_root() {
            return Ok(Self(None));
        }
        if let Ok(found) = fs::metadata(data)
            && found.uid() != 0
        {
            return Ok(Self(Some((found.uid(), found.gid()))));
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self(Some((user.uid.as_raw(), user.gid.as_raw()))))
            .ok_or(PostgresError::NoAccount)
    }

    /// A command that runs as this account, in `folder`.
    pub(super) fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder);
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives it a file or folder.
    pub(super) fn own(&self, path: &Path) -> Result<(), PostgresError> {
        match self.0 {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)).map_err(PostgresError::at(path)),
            None => Ok(()),
        }
    }

    /// Lets it pass, and no more, through a folder that is ours.
    pub(super) fn let_through(&self, folder: &Path) -> Result<(), PostgresError> {
        if let (Some(_), Ok(found)) = (self.0, fs::metadata(folder))
            && found.uid() == 0
            && found.mode() & 0o001 == 0
        {
            let mode = fs::Permissions::from_mode(found.mode() | 0o001);
            fs::set_permissions(folder, mode).map_err(PostgresError::at(folder))?;
        }
        Ok(())
    }

    /// Fails with the first folder on the way to `path`, itself included, that it cannot enter.
    pub(super) fn check_reach(&self, path: &Path) -> Result<(), PostgresError> {
        let Some((uid, gid)) = self.0 else {
            return Ok(());
        };
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        for folder in way {
            let found = fs::metadata(folder).map_err(PostgresError::at(folder))?;
            let bit = match (found.uid() == uid, found.gid() == gid) {
                (true, _) => 0o100,
                (_, true) => 0o010,
                _ => 0o001,
            };
            if found.mode() & bit == 0 {
                return Err(PostgresError::OutOfReach { folder: folder.to_owned(), uid });
            }
        }
        Ok(())
    }
}
