//! The long run: more logs than one thread has time for, in parts that threads take one after the other.
//! Each part has worlds of its own, so that they are the same ones however many cores there are.

use std::{
    panic::resume_unwind,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use proptest::test_runner::{Config, RngSeed, TestRunner};
use serviceradar_tests::worlds::{World, worlds};

use crate::{Checked, cases, seed};

/// Logs of a run, unless `PROPTEST_CASES` asks for another number.
pub(crate) const LOGS: u32 = 10_000;
/// Its parts.
const PARTS: u32 = 16;

fn config(logs: u32, part: u32) -> Config {
    let asked = cases();
    let seed = seed(&asked).wrapping_mul(PARTS.into()).wrapping_add(part.into());
    Config { cases: logs.div_ceil(PARTS), rng_seed: RngSeed::Fixed(seed), ..asked }
}

/// As many logs as asked for.
pub(crate) fn logs() -> u32 {
    if std::env::var_os("PROPTEST_CASES").is_some() { cases().cases } else { LOGS }
}

/// Checks so many worlds.
#[expect(clippy::panic, reason = "a world that fails is printed as it can be pasted")]
pub(crate) fn in_parts(logs: u32, law: impl Fn(&World) -> Checked + Sync) {
    let next = AtomicU32::new(0);
    let take_parts = || {
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= PARTS {
                break;
            }
            if let Err(failed) = TestRunner::new(config(logs, part)).run(&worlds(), |world| law(&world)) {
                next.store(PARTS, Ordering::Relaxed);
                panic!("in part {part}: {failed}");
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        for thread in (0..threads).map(|_| scope.spawn(take_parts)).collect::<Vec<_>>() {
            if let Err(failed) = thread.join() {
                resume_unwind(failed);
            }
        }
    });
}
