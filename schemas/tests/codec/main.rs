//! Events as bytes: against golden bytes, against the crate `apache-avro`, and against garbage.

#![allow(clippy::unwrap_used, clippy::panic)]

mod containers;
mod dissect;
mod garbage;
mod golden;
mod samples;
mod values;
mod writers;
