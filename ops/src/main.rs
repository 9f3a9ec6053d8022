//! The `serviceradar` binary: every verb.

mod ask;
mod bench;
mod cli;
mod crawls;
mod exit;
mod found;
mod http;
mod json_lines;
mod lag;
mod log_store;
mod output;
mod pipeline;
mod progress;
mod registry;
mod shutdown;
mod telemetry;
mod textfile;
mod verbs;

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};
use cli::Cli;
use serviceradar_ops::config::{self, Config, Layers, Origin};
use textfile::{TEXTFILE, Textfile};

/// A load makes and drops millions of small values: the system's allocator takes a quarter of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    serviceradar_ops::memory::use_small_pages();
    match run(cli, &cli::words(&matches)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if exit::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done about a stderr that is gone.
            writeln!(std::io::stderr(), "error: {error:#}").ok();
            exit::code(&error)
        }
    }
}

fn run(cli: Cli, words: &str) -> anyhow::Result<()> {
    if let cli::Verb::Completions(completions) = &cli.verb {
        return completions.run();
    }
    let context = context(&cli)?;
    let level_given = context.layers.get("log_level")?.origin != Origin::Default;
    telemetry::start(&context.config.log_level, level_given)?;
    let runtime = serviceradar_ops::memory::runtime()?;
    let config = &context.config;
    let begin = |dir| TEXTFILE.get_or_init(|| Textfile::begin(dir, &config.tenant, words));
    let textfile = config.metrics_textfile_dir.as_deref().map(begin);
    let ran = runtime.block_on(verbs::run(cli.verb, context));
    if let Some(textfile) = textfile {
        textfile.end(ran.as_ref().is_err_and(|error| !exit::is_broken_pipe(error)));
    }
    ran
}

fn context(cli: &Cli) -> anyhow::Result<verbs::Context> {
    let flags: Vec<_> = cli.global.keys().into_iter().chain(cli.verb.keys()).collect();
    // One that is no text is none of ours.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let layers: Layers = config::read(cli.global.config.as_deref(), variables, &flags)?;
    let config = Config::of(&layers)?;
    Ok(verbs::Context { config, layers, format: cli.global.output })
}
