//! All that publishes: sync integrations, and the faker that stands in for what they sync with.
//!
//! Everything here turns what a source says into observations and appends them to the log;
//! nothing here decides what a device is.

pub mod faker;
pub mod publish;
pub mod sync;
