//! The dataflow from observations to devices, and the rules it applies.

pub mod rows;
