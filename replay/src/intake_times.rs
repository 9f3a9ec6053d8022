//! Intake times: when the log took an event, made monotone per log partition by the running maximum of append times.
//! An event that a restore put back has the one that it had, from a header, which counts inside the offset ranges of
//! `restore` operations alone: elsewhere anybody could have written it. Where a broker's clock had leapt ahead, a
//! `bound_intake` operation says how late it was at most.

use std::ops::Range;

use serviceradar_log::{Event, LogError, LogStore, ReadLimit, store::RESTORED_HEADERS};

use crate::{
    operations::{Operations, OperationsError},
    reader::{READ_BYTES, READ_EVENTS, READ_WAIT},
    topics::Partition,
};

/// The header of an event's intake time, microseconds since the Unix epoch, as digits.
pub const INTAKE_TIME: &str = RESTORED_HEADERS[0];
/// The header of the offset that an event had where it was archived, as digits.
pub const ARCHIVE_OFFSET: &str = RESTORED_HEADERS[1];

/// The intake times of one log partition's events, in order of their offsets.
#[derive(Clone, Debug)]
pub struct IntakeTimes {
    latest: i64,
    restored: Vec<Range<u64>>,
    /// Offsets, and the latest that their append times can have been.
    bounds: Vec<(Range<u64>, i64)>,
    /// Whether operations were asked for bounds.
    is_bounded: bool,
}

impl IntakeTimes {
    /// From an offset on before which the greatest was `latest`.
    pub fn new(latest: i64) -> Self {
        Self { latest, restored: Vec::new(), bounds: Vec::new(), is_bounded: false }
    }

    /// Asks what bounds there are, once, and what restores filled, where one of the next events says that one did. A restore
    /// writes its intent first, so that what comes of it does not depend on when it is asked.
    ///
    /// # Errors
    /// What operators did is not known.
    pub async fn learn(
        &mut self,
        log: &dyn LogStore,
        partition: &Partition,
        events: &[Event],
    ) -> Result<(), OperationsError> {
        let is_unknown = |event: &Event| is_marked(event) && !self.is_restored(event.offset);
        if !self.is_bounded || events.iter().any(is_unknown) {
            let operations = Operations::read(log).await?;
            (self.restored, self.bounds) = (operations.restored(partition), operations.bounds(partition));
            self.is_bounded = true;
        }
        Ok(())
    }

    /// Asks for bounds again with the next events.
    pub(crate) fn forget_bounds(&mut self) {
        self.is_bounded = false;
    }

    /// When an event was appended, by what is known of the clock that says so.
    pub(crate) fn append_time(&self, event: &Event) -> i64 {
        let bounds = self.bounds.iter().filter(|(range, _)| range.contains(&event.offset));
        bounds.fold(event.append_time, |time, (_, bound)| time.min(*bound))
    }

    fn is_restored(&self, offset: u64) -> bool {
        self.restored.iter().any(|range| range.contains(&offset))
    }

    /// The intake time of the next event.
    pub fn of(&mut self, event: &Event) -> i64 {
        let restored =
            if self.is_restored(event.offset) { marked(&event.headers, INTAKE_TIME) } else { None };
        let time = restored.unwrap_or_else(|| self.latest.max(self.append_time(event)));
        self.latest = self.latest.max(time);
        time
    }
}

/// The offset of the first event of a log partition that was taken in at an instant or later, microseconds since the Unix
/// epoch; its end where none was. It is read from its start, since what an intake time is hangs on what is before.
///
/// # Errors
/// The log does not say it, or what operators did to it is not known.
pub async fn offset_at(log: &dyn LogStore, partition: &Partition, at: i64) -> Result<u64, OperationsError> {
    let Partition { topic, log_partition } = partition;
    let offsets = log.offsets(topic, *log_partition).await?;
    let (mut times, mut next) = (IntakeTimes::new(i64::MIN), offsets.start);
    let limit = ReadLimit { events: READ_EVENTS, bytes: READ_BYTES, wait: READ_WAIT };
    while next < offsets.end {
        let read = log.read(topic, *log_partition, next, limit).await?;
        if read.next_offset == next {
            return Err(LogError::Unavailable(format!("{partition} has nothing at {next}")).into());
        }
        times.learn(log, partition, &read.events).await?;
        if let Some(event) = read.events.iter().find(|event| times.of(event) >= at) {
            return Ok(event.offset);
        }
        next = read.next_offset;
    }
    Ok(next)
}

/// Whether an event says of itself that it was restored: whether it was, the operations tell.
fn is_marked(event: &Event) -> bool {
    event.headers.iter().any(|(name, _)| name == INTAKE_TIME)
}

/// A number in a header. Of several the last counts, which is the one that the last restore added.
pub(crate) fn marked<T: std::str::FromStr>(headers: &[(String, bytes::Bytes)], header: &str) -> Option<T> {
    let (_, value) = headers.iter().rev().find(|(name, _)| name == header)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(offset: u64, append_time: i64, intake_time: Option<&'static str>) -> Event {
        let headers =
            intake_time.map(|time| (INTAKE_TIME.to_owned(), bytes::Bytes::from_static(time.as_bytes())));
        let headers = headers.into_iter().collect();
        Event { offset, append_time, key: None, value: None, headers }
    }

    /// A producer could backdate itself, and a restored log would tell another story than the first.
    #[test]
    fn the_header_counts_inside_the_ranges_of_restores_and_nowhere_else() {
        let mut times = IntakeTimes::new(0);
        times.restored = vec![2..4, 6..7];
        let given = [
            (0, 100, Some("7"), 100),
            (1, 90, None, 100),
            (2, 200, Some("30"), 30),
            (3, 200, Some("no number"), 200),
            (4, 200, Some("31"), 200),
            (5, 210, None, 210),
            (6, 220, Some("500"), 500),
            (7, 230, Some("1"), 500),
        ];
        for (offset, append_time, header, expected) in given {
            assert_eq!(times.of(&event(offset, append_time, header)), expected, "at {offset}");
        }
    }

    #[test]
    fn a_clock_that_leapt_ahead_is_bounded_where_operators_say_so() {
        let mut times = IntakeTimes::new(0);
        times.bounds = vec![(1..3, 100), (2..3, 90)];
        let given = [(0, 80, 80), (1, 9_000, 100), (2, 9_001, 100), (3, 110, 110)];
        for (offset, append_time, expected) in given {
            assert_eq!(times.of(&event(offset, append_time, None)), expected, "at {offset}");
        }
        assert_eq!(times.append_time(&event(2, 9_001, None)), 90);
        assert_eq!(times.append_time(&event(1, 50, None)), 50);
    }
}
