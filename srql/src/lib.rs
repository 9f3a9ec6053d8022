//! SRQL: one line of `key:value` terms, read once, checked against one catalogue, answered by one statement over the
//! views of one tenant.

mod arrow;
mod bucket;
pub mod catalogue;
mod claims;
pub mod complete;
pub mod cursor;
pub mod error;
mod indexed;
mod literal;
pub mod live;
mod nested;
pub mod page;
pub mod parse;
pub mod plan;
mod predicate;
mod rate;
pub mod reader;
pub mod reference;
pub mod service;
pub mod statement;
mod stats;
pub mod syntax;
pub mod time_range;
pub mod written;
