//! The file that keeps the network across restarts.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::network::{Network, PoolNotClosed};

/// Name of the file in the faker's folder.
const FILE: &str = "faker.json";
/// Name it has while it is written.
const FILE_NEW: &str = "faker.json.new";

/// Why the state of the faker could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder or the file could not be read or written.
    #[error("cannot keep the faker's state in {path}: {error}; give a folder that can be written")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is not what was written.
    #[error("the faker's state in {path} is damaged: {error}; delete it to begin anew")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// The file is of another population.
    #[error(
        "the faker's state in {path} is of {devices} devices by seed {seed}: ask for these, or \
         delete it to begin anew"
    )]
    Other {
        /// Where.
        path: PathBuf,
        /// Devices it has.
        devices: usize,
        /// Seed it was made from.
        seed: u64,
    },
    /// The addresses in the file are not each held once.
    #[error(transparent)]
    Pool(#[from] PoolNotClosed),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State<'a> {
    seed: u64,
    devices: usize,
    network: std::borrow::Cow<'a, Network>,
}

/// Reads the network of (`devices`, `seed`) from `dir`; `None` where none was kept.
pub(super) fn load(dir: &Path, devices: usize, seed: u64) -> Result<Option<Network>, StateError> {
    let path = dir.join(FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::Io { path, error }),
    };
    let state: State<'_> = serde_json::from_slice(&bytes)
        .map_err(|error| StateError::Damaged { path: path.clone(), error: error.to_string() })?;
    if (state.devices, state.seed) != (devices, seed) {
        return Err(StateError::Other { path, devices: state.devices, seed: state.seed });
    }
    let network = state.network.into_owned();
    if network.slots.len() != devices || network.moved_at.len() != devices {
        let error = format!("it lists {} devices", network.slots.len());
        return Err(StateError::Damaged { path, error });
    }
    network.check()?;
    Ok(Some(network))
}

/// Writes the network to `dir`: wholly, or the old file stays.
pub(super) fn save(dir: &Path, seed: u64, network: &Network) -> Result<(), StateError> {
    let path = dir.join(FILE);
    let state = State { seed, devices: network.slots.len(), network: std::borrow::Cow::Borrowed(network) };
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let new = dir.join(FILE_NEW);
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&state)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|error| StateError::Io { path: path.clone(), error })
}
