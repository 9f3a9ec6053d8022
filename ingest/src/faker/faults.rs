//! Faults that can be switched on: what real servers do on bad days.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

/// Most faults that wait their turn; more are refused, so that a script cannot fill the memory.
pub const FAULTS_MAX: usize = 64;

/// What goes wrong with an answer to a request for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// 401: every token given out so far has expired.
    ExpiredToken,
    /// 429 with `Retry-After`.
    TooManyRequests {
        /// Seconds that `Retry-After` asks for.
        retry_after: u64,
    },
    /// 500.
    ServerError,
    /// The right answer, late.
    SlowPage {
        /// Milliseconds before it comes.
        millis: u64,
    },
    /// The right page, whose `next` leads back to itself.
    LyingNext,
    /// The first half of the body.
    TruncatedBody,
    /// The last result left out.
    ShortPage,
    /// The first page, whatever was asked for.
    RepeatedPage,
}

/// A fault and when it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmedFault {
    /// What goes wrong.
    #[serde(flatten)]
    pub fault: Fault,
    /// Requests that pass before.
    #[serde(default)]
    pub after: u32,
    /// Requests that it strikes, one after the other.
    #[serde(default = "once")]
    pub times: u32,
}

fn once() -> u32 {
    1
}

impl ArmedFault {
    /// Strikes the next `times` requests.
    pub fn now(fault: Fault, times: u32) -> Self {
        Self { fault, after: 0, times }
    }
}

/// [`FAULTS_MAX`] faults wait already.
#[derive(Debug, thiserror::Error)]
#[error("{FAULTS_MAX} faults wait their turn already: fetch some pages first")]
pub struct TooManyFaults;

/// The faults that wait their turn, in order.
#[derive(Default)]
pub(super) struct Faults(Mutex<VecDeque<ArmedFault>>);

impl Faults {
    pub(super) fn arm(&self, fault: ArmedFault) -> Result<(), TooManyFaults> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= FAULTS_MAX {
            return Err(TooManyFaults);
        }
        waiting.push_back(fault);
        Ok(())
    }

    /// What strikes the request that came just now.
    pub(super) fn strike(&self) -> Option<Fault> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.front().is_some_and(|first| first.times == 0) {
            waiting.pop_front();
        }
        let first = waiting.front_mut()?;
        if let Some(rest) = first.after.checked_sub(1) {
            first.after = rest;
            return None;
        }
        first.times -= 1;
        Some(first.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_strike_in_turn_and_then_no_more() {
        let faults = Faults::default();
        faults.arm(ArmedFault { fault: Fault::ServerError, after: 1, times: 2 }).unwrap();
        faults.arm(ArmedFault::now(Fault::LyingNext, 1)).unwrap();
        let struck: Vec<_> = (0..5).map(|_| faults.strike()).collect();
        let server_error = Some(Fault::ServerError);
        assert_eq!(struck, [None, server_error, server_error, Some(Fault::LyingNext), None]);
    }

    #[test]
    fn no_more_faults_wait_than_the_limit() {
        let faults = Faults::default();
        for _ in 0..FAULTS_MAX {
            faults.arm(ArmedFault::now(Fault::ServerError, 1)).unwrap();
        }
        assert!(faults.arm(ArmedFault::now(Fault::ServerError, 1)).is_err());
    }

    #[test]
    fn a_fault_reads_from_json() {
        let json = r#"{"fault":"too_many_requests","retry_after":2,"times":3}"#;
        let fault = Fault::TooManyRequests { retry_after: 2 };
        assert_eq!(serde_json::from_str::<ArmedFault>(json).unwrap(), ArmedFault::now(fault, 3));
    }
}
