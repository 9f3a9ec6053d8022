//! What the `serviceradar` binary is made of that others may use too: its configuration and the private PostgreSQL.

pub mod config;
pub mod folders;
pub mod memory;
pub mod metrics;
pub mod postgres;
