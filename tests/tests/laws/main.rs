//! The laws of identity as properties of the engine, on random worlds; and the engine against the
//! oracle. Source: `identity.md` of the design, "Laws".
//!
//! A run is the same each time. `PROPTEST_CASES` (default 256) and `PROPTEST_RNG_SEED` ask for more
//! of it, and for others. A world that broke a law is kept in `regressions`.

mod additions;
mod agreement;
mod graphs;
mod groups;
mod journals;
mod normal_form;
mod order;
mod parts;
mod regressions;
#[allow(clippy::unwrap_used, reason = "a database that fails is no law broken")]
mod restart;
mod run;
mod situations;
mod structure;
mod survivorship;
mod tables;

use proptest::{
    prelude::ProptestConfig,
    test_runner::{RngSeed, TestCaseError},
};

/// How a law ends in one world.
type Checked<T = ()> = Result<T, TestCaseError>;

/// As many cases as asked for, the same ones each time.
fn cases() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig {
        rng_seed: RngSeed::Fixed(seed(&asked)),
        failure_persistence: None,
        max_shrink_iters: 50_000,
        max_global_rejects: u32::MAX,
        ..asked
    }
}

fn seed(asked: &ProptestConfig) -> u64 {
    match asked.rng_seed {
        RngSeed::Random => 3,
        RngSeed::Fixed(seed) => seed,
    }
}
