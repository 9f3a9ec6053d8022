//! Views: what an epoch changed, written in one transaction, exactly once.

pub mod views;
