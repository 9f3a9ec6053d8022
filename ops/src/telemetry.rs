//! The program's own log, on stderr: text on a terminal, JSON lines elsewhere.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::progress::{self, Stderr};

/// Starts it. `directives` is a level or more; where nobody gave one, `RUST_LOG` is asked first.
pub(crate) fn start(directives: &str, given: bool) -> anyhow::Result<()> {
    let by_variable = std::env::var("RUST_LOG").ok().filter(|text| !given && !text.is_empty());
    let directives = by_variable.as_deref().unwrap_or(directives);
    let filter = EnvFilter::try_new(directives).with_context(|| {
        format!("{directives:?} is no log level: give error, warn, info, debug, trace, or directives")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Stderr);
    if progress::on_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
    Ok(())
}
