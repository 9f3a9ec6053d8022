//! Clocks: whose is off, by the times in events and the log's own.
//!
//! The log's clock is the measure, since it bounds all others: nothing moves a watermark further than
//! [`AHEAD_MAX`] ahead of it. A TICK is published when it is made, so that its time tells its publisher's clock, ahead
//! or behind; that of this machine's own tells which of the two, log or machine, to look at. Any other event tells when
//! it is ahead; when it is behind, only a verdict of a probe does, which is of no use when it is late.

use std::time::{Duration, Instant};

use serde::Serialize;
use serviceradar_schemas::{Action, Observation, Probe, time::MINUTE};
use serviceradar_streams::normalise::AHEAD_MAX;

/// How far the time of a TICK may be from the time at which the log took it, microseconds: publishing is tried for less.
const TICK_APART_MAX: i64 = MINUTE;
/// How late a verdict of a probe may be, microseconds: after 15 min it says nothing of the present.
const VERDICT_LATE_MAX: i64 = 10 * MINUTE;
/// Clocks that are told at a time: where more are off, it is the log's.
pub(crate) const CLOCKS_MAX: usize = 100;
/// How long a clock is told after it last was off.
pub(crate) const TOLD_FOR: Duration = Duration::from_secs(10 * 60);
/// What the clock is called of whoever asks.
pub const THIS_MACHINE: &str = "this machine";

/// A clock that is off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClockOff {
    /// How far it is ahead of the log's, seconds; behind, where it is negative.
    pub ahead_seconds: i64,
    /// When that was read.
    #[serde(skip)]
    pub(crate) read_at: Instant,
}

impl ClockOff {
    /// Ahead by so many seconds.
    pub fn by_seconds(ahead_seconds: i64) -> Self {
        Self { ahead_seconds, read_at: Instant::now() }
    }
}

impl std::fmt::Display for ClockOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = if self.ahead_seconds < 0 { "behind" } else { "ahead of" };
        write!(f, "{} s {side} the log's", self.ahead_seconds.unsigned_abs())
    }
}

/// How far a clock is ahead by which an event was made, microseconds, where that is too far.
pub(crate) fn off(observation: &Observation, intake_time: i64) -> Option<i64> {
    let ahead = observation.event_time.saturating_sub(intake_time);
    let is_off = match observation.action {
        Action::Tick => ahead.unsigned_abs() > TICK_APART_MAX.unsigned_abs(),
        _ => ahead > AHEAD_MAX || observation.probe != Probe::None && ahead < -VERDICT_LATE_MAX,
    };
    is_off.then_some(ahead)
}

#[cfg(test)]
mod tests {
    use serviceradar_schemas::time::HOUR;

    use super::*;

    fn off_by(action: Action, probe: Probe, ahead: i64) -> Option<i64> {
        let intake_time = 1_767_225_600_000_000;
        let event_time = intake_time + ahead;
        off(&Observation { event_time, action, probe, ..Observation::default() }, intake_time)
    }

    #[test]
    fn a_tick_tells_both_ways_a_verdict_when_it_is_of_no_use_and_the_rest_when_it_is_clamped() {
        for (action, probe, ahead, is_off) in [
            (Action::Tick, Probe::None, MINUTE, false),
            (Action::Tick, Probe::None, HOUR, true),
            (Action::Tick, Probe::None, -HOUR, true),
            (Action::Assert, Probe::Up, HOUR, true),
            (Action::Assert, Probe::Up, -HOUR, true),
            (Action::Assert, Probe::Down, -MINUTE, false),
            (Action::Assert, Probe::None, AHEAD_MAX, false),
            (Action::Assert, Probe::None, HOUR, true),
            // An integration says when its source last saw the thing.
            (Action::Assert, Probe::None, -24 * HOUR, false),
        ] {
            assert_eq!(off_by(action, probe, ahead), is_off.then_some(ahead), "{action:?} {probe:?} {ahead}");
        }
    }

    #[test]
    fn it_is_told_which_way() {
        assert_eq!(ClockOff::by_seconds(3_600).to_string(), "3600 s ahead of the log's");
        assert_eq!(ClockOff::by_seconds(-3_600).to_string(), "3600 s behind the log's");
    }
}
