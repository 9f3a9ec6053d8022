//! `replay accept-gap`: events that are missing from the log are lost, and the pipeline passes them.

use anyhow::bail;
use clap::Args;
use serviceradar_replay::{
    operations::{self, Operations},
    topics::Partition,
};
use serviceradar_schemas::{OffsetRange, operation::Phase, topics};

use super::{super::Context, operation};
use crate::{log_store, output};

/// Says that events which are missing from the log are lost, so that the pipeline passes them
///
/// It counts for all generations of the views that are made later, and is shown for ever. To restore them instead:
/// `serviceradar replay restore`, and rebuild.
#[derive(Debug, Args)]
pub(crate) struct AcceptGap {
    /// TOPIC/PARTITION:FROM-TO as the pipeline names it, TO being the offset behind the last
    #[arg(value_parser = str::parse::<OffsetRange>)]
    range: OffsetRange,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Says what would be accepted, and accepts nothing
    #[arg(long)]
    dry_run: bool,
}

impl AcceptGap {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { range, reason, dry_run } = self;
        if reason.trim().is_empty() {
            bail!("a loss needs a reason, for whoever asks later: give --reason");
        }
        let log = log_store::reach(&context.config).await?;
        let partition =
            Partition { topic: range.topic.clone(), log_partition: range.log_partition.cast_unsigned() };
        let start = log.offsets(&partition.topic, partition.log_partition).await?.start;
        let (from, to) = (range.from.cast_unsigned(), range.to.cast_unsigned());
        if to > start {
            bail!(
                "{range} is not missing: {partition} starts at offset {start}, and what is from there on can be read; accept up to {start} at most"
            );
        }
        if Operations::read(&*log).await?.unexplained(&partition, from..to).is_empty() {
            return Ok(output::line(&format!("{range} is known to be missing already: nothing to do"))?);
        }
        if dry_run {
            return Ok(output::line(&format!("would accept that {range} is lost"))?);
        }
        let tenant = topics::split(&range.topic).map(|(tenant, _)| tenant);
        let mut accepted = operation("accept_gap", tenant, &reason);
        // Nothing else is done: that it is said is all.
        (accepted.phase, accepted.ranges) = (Phase::Done, vec![range.clone()]);
        operations::write(&log, &accepted).await?;
        Ok(output::line(&format!(
            "accepted that {range} is lost: a pipeline that stopped for it goes on when it is started again"
        ))?)
    }
}
