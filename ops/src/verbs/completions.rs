//! `completions`: for the shell.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::cli::Cli;

/// Prints completions for a shell
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        // Made whole first: a reader that went away is an error then, and no panic.
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "serviceradar", &mut script);
        Ok(crate::output::line(String::from_utf8_lossy(&script).trim_end())?)
    }
}
