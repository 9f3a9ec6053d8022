//! Chores: what a driver does every so often.

use std::time::{Duration, Instant};

/// How often a TICK is published.
const TICK_EVERY: Duration = Duration::from_secs(60);
/// How often a writer says that it is alive.
pub(crate) const BEAT_EVERY: Duration = Duration::from_secs(5);
/// How often witnesses are read back.
const WITNESS_EVERY: Duration = Duration::from_secs(60);
/// How often new log partitions are looked for.
const DISCOVER_EVERY: Duration = Duration::from_secs(10);

/// How often the settings of the log are checked.
const SETTINGS_EVERY: Duration = Duration::from_secs(60 * 60);

/// How often what is no longer kept is forgotten.
const RETENTION_EVERY: Duration = Duration::from_secs(60 * 60);

/// When a chore is due.
pub(crate) struct Chore {
    every: Duration,
    last: Option<Instant>,
}

impl Chore {
    fn new(every: Duration) -> Self {
        Self { every, last: Some(Instant::now()) }
    }

    /// Whether it is due; then it is not again for a while.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= self.every);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}

/// When each is due.
pub(crate) struct Chores {
    pub(crate) beat: Chore,
    pub(crate) tick: Chore,
    pub(crate) discover: Chore,
    pub(crate) witness: Chore,
    pub(crate) settings: Chore,
    pub(crate) retention: Chore,
}

impl Chores {
    /// None is due yet but the settings: whoever started the driver need not have looked.
    pub(crate) fn new() -> Self {
        Self {
            beat: Chore::new(BEAT_EVERY),
            tick: Chore::new(TICK_EVERY),
            discover: Chore::new(DISCOVER_EVERY),
            witness: Chore::new(WITNESS_EVERY),
            retention: Chore::new(RETENTION_EVERY),
            settings: Chore { every: SETTINGS_EVERY, last: None },
        }
    }
}
