//! `replay import`: observations in files are published as new ones.

mod files;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::bail;
use clap::Args;
use serde_json::Value;
use serviceradar_ingest::publish::Observations;
use serviceradar_log::LogStore;
use serviceradar_replay::operations::{self, IMPORT, Operations};
use serviceradar_schemas::{
    Operation, Source,
    operation::Phase,
    time::{Clock, SystemClock},
    topics::Stream,
};
use tokio_util::sync::CancellationToken;

use self::files::{Input, Reading};
use super::{super::Context, operation};
use crate::{
    exit::{Interrupted, Wanting},
    json_lines::Refused,
    log_store, output,
    progress::Progress,
    registry, shutdown,
};

/// Publishes observations of files as new ones
///
/// Each file is JSON lines (the fields of the schema under their names, times as RFC 3339), or an Avro container file with
/// codec null, deflate or zstandard. All files are checked before anything is published: what the pipeline would refuse is
/// told by its line or record, the first twenty, and nothing is published then. Their intake time is now. It can be stopped, and
/// given again: what is published twice has the same id, its own or the hash of its content, and changes nothing.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Files of observations; `-` for stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Leaves out what the pipeline would refuse, publishes the rest, and ends with 4
    #[arg(long)]
    skip_bad: bool,
    /// Why, for whoever asks later [default: the first file]
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Checks the files, says how many observations of which sources would be published, and publishes nothing
    #[arg(long)]
    dry_run: bool,
}

impl Import {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let log = log_store::reach(&context.config).await?;
        // A name that is mistyped must not become a tenant.
        log.describe_topic(&Stream::Observations.topic(&context.config.tenant)).await?;
        let reason = self.reason.unwrap_or_else(|| reason_of(&self.files));
        let opened = move || self.files.into_iter().map(Input::open).collect::<anyhow::Result<Vec<_>>>();
        let inputs = tokio::task::spawn_blocking(opened).await??;
        let shutdown = shutdown::on_signal()?;
        let found = check(&inputs, &shutdown).await?;
        let (sound, refused) = (found.sound(), found.refused.0);
        if refused > 0 && !self.skip_bad {
            let all = sound + refused;
            return Err(Wanting(format!(
                "{refused} of {all} observations would be refused, and none was published: mend them, or leave \
                 them out with --skip-bad"
            ))
            .into());
        }
        if !self.dry_run {
            publish(context, log, &inputs, (&*reason, sound), &shutdown).await?;
        }
        let row = |(source, count): (&Source, &u64)| vec![Value::from(source.to_string()), (*count).into()];
        let rows: Vec<_> = found.by_source.iter().map(row).collect();
        output::rows(context.format, &["source", "observations"], &rows)?;
        if refused > 0 {
            return Err(Wanting(format!("{refused} observations were left out")).into());
        }
        Ok(())
    }
}

/// What an operation says that was given no reason.
fn reason_of(files: &[PathBuf]) -> String {
    let first = files.first().map_or_else(String::new, |file| file.display().to_string());
    match files.len() {
        0 | 1 => first,
        more => format!("{first} and {} more", more - 1),
    }
}

/// What files hold.
#[derive(Default)]
struct Found {
    /// Observations that the pipeline would take.
    by_source: BTreeMap<Source, u64>,
    refused: Refused,
}

impl Found {
    fn sound(&self) -> u64 {
        self.by_source.values().sum()
    }
}

/// Reads all files, and tells what the pipeline would refuse.
async fn check(inputs: &[Input], shutdown: &CancellationToken) -> anyhow::Result<Found> {
    let mut progress = Progress::begin("check", "checking");
    let total = inputs.iter().map(Input::bytes).sum::<std::io::Result<u64>>()?;
    let (mut found, mut done) = (Found::default(), 0);
    let mut reading = Reading::begin(inputs.to_vec());
    while let Some(chunk) = reading.next().await? {
        if shutdown.is_cancelled() {
            return Err(Interrupted.into());
        }
        for mistake in &chunk.refused {
            found.refused.tell(&mistake.file, mistake.at, &mistake.why);
        }
        for observation in chunk.observations {
            *found.by_source.entry(observation.source).or_default() += 1;
        }
        done += chunk.read_bytes;
        progress.at(done, total);
    }
    found.refused.tell_all();
    progress.end(done, &format!("checked {} observations", found.sound() + found.refused.0));
    Ok(found)
}

/// Publishes what was found to be sound, as an operation: `count` observations, for a reason.
async fn publish(
    context: &Context,
    log: Arc<dyn LogStore>,
    inputs: &[Input],
    (reason, count): (&str, u64),
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let tenant = &*context.config.tenant;
    let framing = registry::register(&context.config).await?.framings.observations;
    let observations = Observations::new(log.clone(), Stream::Observations.topic(tenant), framing);
    let intent = begin(&log, tenant, reason).await?;
    let mut progress = Progress::begin("import", "importing");
    let (mut reading, mut published) = (Reading::begin(inputs.to_vec()), 0);
    while let Some(chunk) = reading.next().await? {
        if shutdown.is_cancelled() {
            let told = format!("{published} of {count} observations were published");
            return Err(anyhow::Error::new(Interrupted).context(told));
        }
        published += observations.publish(chunk.observations).await? as u64;
        progress.at(published, count);
    }
    if published != count {
        bail!(
            "{count} observations were found, and {published} published: a file was changed meanwhile, import it again"
        );
    }
    let done = Operation { phase: Phase::Done, event_time: SystemClock.now(), ..intent };
    operations::write(&log, &done).await?;
    progress.end(published, &format!("published {published} observations"));
    Ok(())
}

/// The operation: the one that was interrupted, where the same command is given again, else a new one.
async fn begin(log: &Arc<dyn LogStore>, tenant: &str, reason: &str) -> anyhow::Result<Operation> {
    let known = Operations::read(&**log).await?;
    let is_same =
        |of: &&Operation| of.action == IMPORT && of.tenant.as_deref() == Some(tenant) && of.reason == reason;
    if let Some(begun) = known.unfinished().find(is_same) {
        return Ok(begun.clone());
    }
    let intent = operation(IMPORT, Some(tenant), reason);
    operations::write(log, &intent).await?;
    Ok(intent)
}
