//! materializers
