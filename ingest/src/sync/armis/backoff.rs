//! How long to wait before a request is tried again.

use std::time::Duration;

use rand::RngExt;

/// Longest wait that we choose ourselves: an interval between crawls is minutes.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(15);

/// The wait after so many failures (from 1): exponential, and half of it random, so that those who
/// failed together do not come back together.
pub(super) fn wait(base: Duration, failures: u32) -> Duration {
    let doubled = base.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    let most = doubled.min(WAIT_MAX);
    most.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// The wait that `Retry-After` asks for: seconds, or an HTTP date. `now` in microseconds since the
/// Unix epoch. A form that is neither asks for nothing.
pub(super) fn retry_after(header: &str, now: i64) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(header).ok()?.timestamp().as_microsecond();
    Some(Duration::from_micros(u64::try_from(until - now).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_at_least_half_is_kept() {
        let base = Duration::from_millis(200);
        for (failures, most) in [(1, 200), (2, 400), (4, 1_600), (30, 15_000), (u32::MAX, 15_000)] {
            let most = Duration::from_millis(most);
            for _ in 0..50 {
                let wait = wait(base, failures);
                assert!(most / 2 <= wait && wait <= most, "{failures}: {wait:?}");
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = serviceradar_schemas::time::parse("2015-10-21T07:27:00Z").unwrap();
        let minute = Some(Duration::from_secs(60));
        assert_eq!(retry_after(" 60 ", now), minute);
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now), minute);
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:20:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
