//! What crosses crates: the oracle of identity, and what the tests share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

pub mod database;
pub mod fuzz;
pub mod log_conformance;
pub mod observations;
pub mod oracle;
pub mod propagate;
pub mod services;
pub mod stand;
pub mod tenant;
pub mod views_conformance;
pub mod worlds;
