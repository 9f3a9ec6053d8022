//! The `serviceradar` binary.

fn main() {}
