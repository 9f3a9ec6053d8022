//! The circuit breaker: a server that fails again and again is left alone for a while.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Failures in a row, of all requests together, that open the circuit.
pub const FAILURES_MAX: u32 = 12;
/// How long it stays open before one request may try.
pub const OPEN_FOR: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Circuit {
    /// Requests pass.
    Closed { failures: u32 },
    /// None passes before this.
    Open { until: Instant },
    /// One is trying; should it never come back, another may at this time.
    HalfOpen { until: Instant },
}

/// Decides whether a request may be made.
#[derive(Debug)]
pub(super) struct Breaker(Mutex<Circuit>);

impl Breaker {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Circuit::Closed { failures: 0 }))
    }

    /// Whether a request may be made `now`; where not, how long until one may.
    pub(super) fn enter(&self, now: Instant) -> Result<(), Duration> {
        let mut circuit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *circuit {
            Circuit::Open { until } | Circuit::HalfOpen { until } if now < until => Err(until - now),
            Circuit::Closed { .. } => Ok(()),
            Circuit::Open { .. } | Circuit::HalfOpen { .. } => {
                *circuit = Circuit::HalfOpen { until: now + OPEN_FOR };
                Ok(())
            }
        }
    }

    /// The server answered as it should.
    pub(super) fn succeeded(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Circuit::Closed { failures: 0 };
    }

    /// The server failed.
    pub(super) fn failed(&self, now: Instant) {
        let mut circuit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *circuit = match *circuit {
            Circuit::Closed { failures } if failures + 1 < FAILURES_MAX => {
                Circuit::Closed { failures: failures + 1 }
            }
            _ => Circuit::Open { until: now + OPEN_FOR },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new();
        for _ in 0..FAILURES_MAX {
            assert_eq!(breaker.enter(now), Ok(()));
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row() {
        let now = Instant::now();
        assert_eq!(opened(now).enter(now), Err(OPEN_FOR));
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let now = Instant::now();
        let breaker = Breaker::new();
        for _ in 0..3 * FAILURES_MAX {
            breaker.failed(now);
            breaker.succeeded();
        }
        assert_eq!(breaker.enter(now), Ok(()));
    }

    #[test]
    fn half_open_lets_one_try_and_its_success_closes() {
        let start = Instant::now();
        let breaker = opened(start);
        let later = start + OPEN_FOR;
        assert_eq!(breaker.enter(later), Ok(()));
        assert_eq!(breaker.enter(later), Err(OPEN_FOR));
        breaker.succeeded();
        assert_eq!(breaker.enter(later), Ok(()));
    }

    #[test]
    fn half_open_opens_again_on_a_failure() {
        let start = Instant::now();
        let breaker = opened(start);
        let later = start + OPEN_FOR;
        assert_eq!(breaker.enter(later), Ok(()));
        breaker.failed(later);
        assert_eq!(breaker.enter(later + OPEN_FOR / 2), Err(OPEN_FOR / 2));
    }

    #[test]
    fn one_who_tries_and_never_comes_back_does_not_block_it_for_ever() {
        let start = Instant::now();
        let breaker = opened(start);
        assert_eq!(breaker.enter(start + OPEN_FOR), Ok(()));
        assert_eq!(breaker.enter(start + 2 * OPEN_FOR), Ok(()));
    }
}
