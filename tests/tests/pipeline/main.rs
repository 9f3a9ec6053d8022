//! The whole pipeline: log, driver, PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod changed;
mod dead_letters;
mod kill;
mod orders;
mod snapshots;
mod writers;
