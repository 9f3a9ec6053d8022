//! The whole pipeline: log, driver, PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

/// As the program has it: what is measured of memory is of that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod changed;
mod clocks;
mod dead_letters;
mod hostile;
mod kill;
mod orders;
mod pressure;
mod restored;
mod snapshots;
mod writers;
