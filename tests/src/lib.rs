//! What crosses crates: the oracle of identity, and what the tests share.

pub mod log_conformance;
pub mod oracle;
