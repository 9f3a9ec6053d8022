//! `replay bound-intake`: a broker's clock had leapt ahead, and what it took meanwhile was taken no later than …

use anyhow::bail;
use clap::Args;
use serviceradar_replay::operations::{self, BOUND_INTAKE};
use serviceradar_schemas::{OffsetRange, operation::Phase, time, topics};

use super::{super::Context, as_of::instant, operation};
use crate::{log_store, output};

/// Says that a broker's clock had leapt ahead: that it took the events of a range no later than at an instant
///
/// Intake times never go back, so that one event of next year would make all that follow of next year. A pipeline that was
/// stalled by it goes on; views that have such times already are built anew (`replay rebuild`), and until then `replay verify`
/// finds them unlike the log.
#[derive(Debug, Args)]
pub(crate) struct BoundIntake {
    /// TOPIC/PARTITION:FROM-TO, TO being the offset behind the last
    #[arg(value_parser = str::parse::<OffsetRange>)]
    range: OffsetRange,
    /// When they were taken at the latest, such as 2026-03-01T00:00:00Z
    #[arg(value_parser = instant)]
    at: i64,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Says what would be bounded, and bounds nothing
    #[arg(long)]
    dry_run: bool,
}

impl BoundIntake {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { range, at, reason, dry_run } = self;
        if reason.trim().is_empty() {
            bail!("a clock that is corrected needs a reason, for whoever asks later: give --reason");
        }
        let log = log_store::reach(&context.config).await?;
        let end = log.offsets(&range.topic, range.log_partition.cast_unsigned()).await?.end;
        if range.to.cast_unsigned() > end {
            bail!("{range} is not all there: the log partition ends at offset {end}");
        }
        let bounded = format!("{range} was taken at {} at the latest", time::format(at));
        if dry_run {
            return Ok(output::line(&format!("would say that {bounded}"))?);
        }
        let mut said =
            operation(BOUND_INTAKE, topics::split(&range.topic).map(|(tenant, _)| tenant), &reason);
        (said.phase, said.ranges, said.intake_max) = (Phase::Done, vec![range], Some(at));
        operations::write(&log, &said).await?;
        Ok(output::line(&format!(
            "said that {bounded}: a pipeline that was stalled by it goes on; views that have such times already need `serviceradar replay rebuild`"
        ))?)
    }
}
