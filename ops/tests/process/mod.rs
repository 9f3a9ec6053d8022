//! Programs that tests run: apart from what the machine has set, and no longer than the test.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A program that what the machine has set does not reach.
pub(crate) fn apart(dir: &TempDir, program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SERVICERADAR_") {
            command.env_remove(name);
        }
    }
    command.env("XDG_CONFIG_HOME", dir.path()).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A run that goes on beside the test, and no longer than it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Does as Ctrl-C does.
    pub(crate) fn press_ctrl_c(&self) {
        let status = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Does as Ctrl-C does, and waits for the end; returns its code.
    pub(crate) fn interrupt(&mut self) -> i32 {
        self.press_ctrl_c();
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
