//! As of: the inventory as it was at an instant, made of what the log has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::Arc,
};

use serviceradar_log::LogStore;
use serviceradar_materializers::postgres::Past;
use serviceradar_schemas::{
    Action, Observation, Source,
    codec::WriterSchemas,
    time::{self, Clock},
};
use serviceradar_streams::{
    normalise::{Refusal, normalise},
    rows::{DeviceRow, Uid},
    rules::Rules,
};

use crate::{
    operations::Operations,
    recompute::{Recompute, RecomputeError, Recomputed},
    topics,
};

/// Devices that are held at a time, to be told in order: with what they show a gigabyte at most, mostly a fifth.
const DEVICES_HELD: usize = 250_000;

/// Which instant is meant, microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// What was so then, by what is known today: of observations and decisions whose event time is not later.
    Event(i64),
    /// What was known then: what the log had taken in.
    Known(i64),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(at) => write!(f, "event time {}", time::format(*at)),
            Self::Known(at) => write!(f, "intake time {}", time::format(*at)),
        }
    }
}

/// Why the inventory of an instant cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum AsOfError {
    /// The log could not be recomputed.
    #[error(transparent)]
    Recompute(#[from] RecomputeError),
    /// Part of what was so then is no longer in the log.
    #[error(
        "the log no longer has all that counted then: {partition}:{}-{} is missing; restore it (`serviceradar replay restore`), or see what is left with --partial",
        .range.start, .range.end
    )]
    Partial {
        /// The log partition.
        partition: String,
        /// The offsets.
        range: Range<u64>,
    },
    /// The instant is none.
    #[error("the instant cannot be a watermark: {0}")]
    Instant(#[from] Refusal),
}

impl AsOfError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Recompute(error) if error.is_unavailable())
    }
}

/// The inventory of an instant, and from what it is made.
pub struct AsOf {
    /// Whose.
    pub tenant: String,
    /// By which rules.
    pub rules: Rules,
    /// Workers of the dataflow.
    pub workers: usize,
    /// The log.
    pub log: Arc<dyn LogStore>,
    /// Who knows the schemas that events were written by.
    pub writers: Arc<dyn WriterSchemas>,
    /// The machine's clock.
    pub clock: Arc<dyn Clock>,
    /// The instant.
    pub moment: Moment,
    /// Whether what is missing from the log is left out without a word.
    pub partial: bool,
}

/// The devices of an instant.
pub struct Then {
    pub(crate) recomputed: Recomputed,
    /// By which it was made.
    pub(crate) rules: Rules,
    pub(crate) past: Past,
    devices: usize,
}

impl AsOf {
    /// Makes it. `told` hears how many events were read, and of how many.
    pub async fn run(self, mut told: impl FnMut(u64, u64)) -> Result<Then, AsOfError> {
        let log = self.log.clone();
        let of_log = |error| AsOfError::Recompute(RecomputeError::Log(error));
        let operations = Operations::read(&*log).await.map_err(RecomputeError::from)?;
        let (Moment::Event(instant) | Moment::Known(instant)) = self.moment;
        let (mut ends, mut is_whole) = (BTreeMap::new(), true);
        for partition in topics::read_by(&*log, &self.tenant).await.map_err(of_log)? {
            let offsets = log.offsets(&partition.topic, partition.log_partition).await.map_err(of_log)?;
            let missing = operations.not_truncated(&partition, 0..offsets.start, instant);
            if let Some(range) = missing.into_iter().next() {
                if !self.partial {
                    return Err(AsOfError::Partial { partition: partition.to_string(), range });
                }
                is_whole = false;
            }
            ends.insert(partition, offsets.end);
        }
        let event_until = match self.moment {
            Moment::Event(instant) => Some(instant),
            Moment::Known(_) => None,
        };
        let watermark = event_until.map(|instant| normalise(tick(instant), Some(instant))).transpose()?;
        let left = if is_whole { "" } else { ", of what is left of the log" };
        let past = Past { tenant: self.tenant.clone(), moment: format!("{}{left}", self.moment) };
        let rules = self.rules.clone();
        let recompute = Recompute {
            tenant: self.tenant,
            rules: self.rules,
            workers: self.workers,
            log,
            writers: self.writers,
            clock: self.clock,
            ends,
            known_until: event_until.is_none().then_some(instant),
            refusals: BTreeSet::new(),
        };
        let events = recompute.events().await?;
        let counts = |event_time| event_until.is_none_or(|until| event_time <= until);
        let recomputed = recompute
            .run(
                |sighting| counts(sighting.event_time).then_some(sighting),
                |decision| counts(decision.event_time()),
                watermark,
                |done| told(done, events),
            )
            .await?;
        let counting = tokio::task::spawn_blocking(move || {
            let (mut recomputed, mut devices) = (recomputed, 0);
            let counted = recomputed.rows(&mut |piece| {
                devices += piece.devices.new.len();
                true
            });
            counted.map(|()| Then { recomputed, rules, past, devices })
        });
        let counted = counting.await.map_err(|error| RecomputeError::Task(error.to_string()))?;
        Ok(counted.map_err(RecomputeError::from)?)
    }
}

impl Then {
    /// How many devices there were.
    pub fn devices(&self) -> usize {
        self.devices
    }

    /// What a generation that is filled with it shows.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// Tells all devices, in the order of their uids. Blocks. Ends with the first error of whoever is told.
    pub fn tell<E: From<RecomputeError>>(
        &mut self,
        mut tell: impl FnMut(DeviceRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let parts = self.devices.div_ceil(DEVICES_HELD).max(1);
        for part in 0..parts {
            let mut held = BTreeMap::new();
            let read = self.recomputed.engine.rows(&mut |piece| {
                let devices = piece.devices.new.into_iter();
                let of_part = devices.filter(|device| part_of(&device.uid, parts) == part);
                held.extend(of_part.map(|device| (device.uid.clone(), device)));
                true
            });
            read.map_err(RecomputeError::from)?;
            held.into_values().try_for_each(&mut tell)?;
        }
        Ok(())
    }
}

/// In which of so many parts, one after the other, a uid is. Uids are spread evenly.
fn part_of(uid: &str, parts: usize) -> usize {
    let uid = uid.parse::<Uid>().unwrap_or_default();
    let place = u16::from_be_bytes([uid.0.as_bytes()[0], uid.0.as_bytes()[1]]);
    usize::from(place) * parts / (usize::from(u16::MAX) + 1)
}

/// Time itself: it moves every watermark, and says nothing else.
fn tick(instant: i64) -> Observation {
    Observation {
        event_time: instant,
        partition: "default".to_owned(),
        source: Source { kind: "serviceradar".to_owned(), instance: "as-of".to_owned() },
        native_key: "tick".to_owned(),
        action: Action::Tick,
        ..Observation::default()
    }
}
