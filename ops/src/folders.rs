//! Where files go when nobody says where: the XDG base folders; for root the ones of the system.
//!
//! Root does not use its home: a server that gave root up could not enter it.

use std::path::PathBuf;

const NAME: &str = "serviceradar";

/// Data that must last: `$XDG_DATA_HOME`, `~/.local/share`, or `/var/lib` for root. `None` without a home.
pub fn data() -> Option<PathBuf> {
    folder("XDG_DATA_HOME", "/var/lib", ".local/share")
}

/// What can be fetched again: `$XDG_CACHE_HOME`, `~/.cache`, or `/var/cache` for root. `None` without a home.
pub fn cache() -> Option<PathBuf> {
    folder("XDG_CACHE_HOME", "/var/cache", ".cache")
}

/// The configuration: `$XDG_CONFIG_HOME`, `~/.config`, or `/etc` for root. `None` without a home.
pub fn config() -> Option<PathBuf> {
    folder("XDG_CONFIG_HOME", "/etc", ".config")
}

fn folder(variable: &str, of_root: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(folder) = absolute(variable) {
        return Some(folder.join(NAME));
    }
    if nix::unistd::geteuid().is_root() {
        return Some(PathBuf::from(of_root).join(NAME));
    }
    Some(absolute("HOME")?.join(below_home).join(NAME))
}
