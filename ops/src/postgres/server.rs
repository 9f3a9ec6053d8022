//! The server's process: how it is started, how it learns that we died, how it is stopped.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::Path,
    process::{Child, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Binaries, PostgresError, folder::Folder};
use crate::memory;

/// A fast stop writes everything out first; after that it is told to stop at once, and recovers when it starts.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// An immediate stop writes nothing.
const QUIT_WITHIN: Duration = Duration::from_secs(10);
/// Where Linux shows its processes.
const PROCESSES: &str = "/proc";
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Sized for a small machine that does other things too; everything that keeps data safe is on.
const SETTINGS: [&str; 16] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    // Nobody copies this server: indexes and new tables need not go through its journal.
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    // The journal is on its way to the disk before a commit waits for it.
    "wal_writer_delay=10ms",
    "maintenance_work_mem=256MB",
    "max_parallel_workers_per_gather=1",
    // What it would speed up is not asked here, and it costs more than most statements take.
    "jit=off",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "password_encryption=scram-sha-256",
    "log_checkpoints=off",
    "logging_collector=off",
];

/// Becomes the server, and leaves behind a process that waits for the end of its input: a pipe that
/// we hold. It ends when we do, however we do; then the server, if it is still the one, is told to stop.
const RUN: &str = r#"
exec 3<&0 </dev/null
(
  (
    read -r _ <&3
    read -r pid <"$0/postmaster.pid" && [ "$pid" = "$$" ] && kill -INT "$$"
  ) >/dev/null 2>&1 &
)
exec "$@" 3<&-
"#;

/// Of the machine's memory, the share for pages of the database, and the bounds of that, MiB.
const BUFFERS_SHARE: u64 = 8;
const BUFFERS_MIN: u64 = 128;
const BUFFERS_MAX: u64 = 2_048;
/// Where the machine does not say how much memory it has.
const BUFFERS_ELSE: u64 = 512;

/// Memory for pages of the database, MiB: taken as they are used.
fn buffers_mebibytes() -> u64 {
    let share = |kibibytes: u64| (kibibytes / 1024 / BUFFERS_SHARE).clamp(BUFFERS_MIN, BUFFERS_MAX);
    memory::of_machine().map_or(BUFFERS_ELSE, share)
}

/// The process of a server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
}

impl Server {
    /// Starts it; what it says goes into `log`. It is not ready yet when this returns.
    pub(super) fn start(
        folder: &Folder,
        binaries: &Binaries,
        port: u16,
        log: File,
    ) -> Result<Self, PostgresError> {
        use std::os::unix::process::CommandExt;
        let log_too = log.try_clone().map_err(PostgresError::at(&folder.path))?;
        let postgres = binaries.bin.join("postgres");
        let mut command = folder.account.command(Path::new("/bin/sh"), &folder.path);
        command.arg("-c").arg(RUN).arg(folder.data()).arg(&postgres).arg("-D").arg(folder.data());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(["-c", &format!("shared_buffers={}MB", buffers_mebibytes())]);
        let child = command
            .args(["-p", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(log_too)
            // Out of reach of the terminal's Ctrl-C: we stop it, in our order.
            .process_group(0)
            .spawn()
            .map_err(PostgresError::at(&postgres))?;
        Ok(Self { child })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(super) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Stops it and waits.
    pub(super) async fn stop(&mut self) {
        for (signal, within) in ORDERLY_THEN_AT_ONCE {
            self.signal(signal);
            for _ in 0..looks(within) {
                if self.exited().is_some() {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            // It can be gone by now: that is what is wanted.
            kill(pid(self.child.id()), signal).ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for (signal, within) in ORDERLY_THEN_AT_ONCE {
            self.signal(signal);
            for _ in 0..looks(within) {
                if self.exited().is_some() {
                    return;
                }
                thread::sleep(LOOK_EVERY);
            }
        }
    }
}

const ORDERLY_THEN_AT_ONCE: [(Signal, Duration); 2] =
    [(Signal::SIGINT, STOP_WITHIN), (Signal::SIGQUIT, QUIT_WITHIN)];

fn looks(within: Duration) -> u128 {
    within.as_millis() / LOOK_EVERY.as_millis()
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed())
}

/// Stops a server that still runs on `data`: the process that started it is dead, for its lock is ours.
pub(super) async fn stop_left_over(data: &Path) -> Result<(), PostgresError> {
    let pid_file = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&pid_file) else {
        return Ok(());
    };
    let first = text.lines().next().and_then(|line| line.trim().parse().ok());
    let Some(postmaster) = first.filter(|id| *id > 1) else {
        return Ok(());
    };
    if !Path::new(PROCESSES).exists() {
        // Nothing shows whether it is a server or a stranger with its number: PostgreSQL refuses by itself.
        return Ok(());
    }
    for (signal, within) in ORDERLY_THEN_AT_ONCE {
        for look in 0..looks(within) {
            let processes = serving(data);
            if processes.is_empty() {
                // The number may be a stranger's by now, which would keep PostgreSQL from starting. With a
                // process of the server alive this would let a second one in: so it is done only here.
                return match fs::remove_file(&pid_file) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        Err(PostgresError::at(&pid_file)(error))
                    }
                    _ => Ok(()),
                };
            }
            if look == 0 {
                tracing::warn!(postmaster, "stopping a PostgreSQL that an earlier run left over");
                for id in processes {
                    if id == postmaster || signal == Signal::SIGQUIT {
                        kill(pid(id), signal).ok();
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Err(PostgresError::LeftOver { data: data.to_owned(), pid: postmaster })
}

/// The processes of a server on `data`: those that work in that folder.
fn serving(data: &Path) -> Vec<u32> {
    let processes = fs::read_dir(PROCESSES).into_iter().flatten().flatten();
    processes
        .filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == data))
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .collect()
}
