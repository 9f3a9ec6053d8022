//! Views: what an epoch changed, written in one transaction, exactly once.
//!
//! [`views`] is the contract; [`PostgresViews`] keeps it in PostgreSQL, [`MemoryViews`] in memory.

pub mod explain;
pub mod inventory;
mod layout;
pub mod memory;
mod migrations;
pub mod outbox;
pub mod postgres;
pub mod views;

pub use layout::{LAYOUT, Layout};
pub use memory::MemoryViews;
pub use postgres::{Condition, EXTENSIONS, PostgresViews};
