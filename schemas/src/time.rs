//! Instants as microseconds since the Unix epoch, and their text form, RFC 3339.

use std::ops::RangeInclusive;

use jiff::Timestamp;

/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Microseconds in an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Microseconds in a day.
pub const DAY: i64 = 24 * HOUR;

/// Where the present comes from. Rules take none; effects at the edge do, so that tests can move it.
pub trait Clock: Send + Sync {
    /// Now, microseconds since the Unix epoch.
    fn now(&self) -> i64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        Timestamp::now().as_microsecond()
    }
}

/// A clock that stands where it is put.
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::atomic::AtomicI64);

impl ManualClock {
    /// A clock that shows `at`.
    pub fn new(at: i64) -> Self {
        Self(at.into())
    }

    /// Moves the clock to `at`.
    pub fn set(&self, at: i64) {
        self.0.store(at, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> i64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// Reads RFC 3339; `None` where the text is no instant or out of range.
pub fn parse(text: &str) -> Option<i64> {
    let micros = text.parse::<Timestamp>().ok()?.as_microsecond();
    // The calendar's last second is read in parts, which cannot be written.
    range().contains(&micros).then_some(micros)
}

/// Writes RFC 3339 in UTC; what is out of the calendar's range is clamped to it.
pub fn format(micros: i64) -> String {
    let (first, last) = range().into_inner();
    Timestamp::from_microsecond(micros.clamp(first, last)).unwrap_or_default().to_string()
}

/// Of the calendar, in whole seconds.
fn range() -> RangeInclusive<i64> {
    Timestamp::MIN.as_second() * SECOND..=Timestamp::MAX.as_second() * SECOND
}

fn not_a_time(text: &str) -> String {
    format!("{text:?} is not an RFC 3339 time, or is out of range: the last is 9999-12-30T22:00:00Z")
}

/// Serde form of an instant: RFC 3339.
pub mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes RFC 3339.
    pub fn serialize<S: Serializer>(micros: &i64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::format(*micros))
    }

    /// Reads RFC 3339.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
        let text = String::deserialize(d)?;
        super::parse(&text).ok_or_else(|| D::Error::custom(super::not_a_time(&text)))
    }
}

/// Serde form of an instant that may be absent.
pub mod rfc3339_option {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes RFC 3339 or null.
    pub fn serialize<S: Serializer>(micros: &Option<i64>, s: S) -> Result<S::Ok, S::Error> {
        match micros {
            Some(micros) => s.serialize_some(&super::format(*micros)),
            None => s.serialize_none(),
        }
    }

    /// Reads RFC 3339 or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
        match Option::<String>::deserialize(d)? {
            None => Ok(None),
            Some(text) => {
                super::parse(&text).map(Some).ok_or_else(|| D::Error::custom(super::not_a_time(&text)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_can_be_written_up_to_the_ends_of_the_calendar() {
        for text in ["9999-12-30T22:00:00Z", "1970-01-01T00:00:00.000001Z", "-009999-01-02T01:59:59Z"] {
            assert_eq!(parse(text).map(format).as_deref(), Some(text));
        }
        assert_eq!(parse("9999-12-30T22:00:00.199999999Z"), None);
        for out_of_range in [i64::MIN, i64::MAX] {
            let written = format(out_of_range);
            assert_eq!(parse(&written).map(format), Some(written));
        }
    }
}
