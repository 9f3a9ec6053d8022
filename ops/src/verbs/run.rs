//! `run`: the pipeline, until it is stopped.

use clap::Args;

use super::Context;
use crate::{log_store, pipeline::Pipeline, registry, shutdown};

/// Runs the pipeline: from the log to the views, until it is stopped
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The rules of identity, a TOML document [key: rules]
    #[arg(long, value_name = "FILE")]
    rules: Option<String>,
}

impl Run {
    /// The keys that these flags set.
    pub(crate) fn keys(&self) -> Vec<(&str, &str, String)> {
        self.rules.iter().map(|file| ("--rules", "rules", file.clone())).collect()
    }

    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let shutdown = shutdown::on_signal()?;
        let log = log_store::hold(&context.config).await?;
        let schemas = registry::register(&context.config).await?;
        let pipeline = Pipeline::start(&context.config, log, schemas, false, async || Ok(())).await?;
        let ended = tokio::select! {
            ended = pipeline.ended() => ended,
            () = shutdown.cancelled() => Ok(()),
        };
        let stopped = pipeline.stop().await;
        ended.and(stopped)
    }
}
