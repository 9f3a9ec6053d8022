//! SRQL: one line of `key:value` terms, read once, checked against one catalogue, answered by one statement over the
//! views of one tenant.

mod bucket;
pub mod catalogue;
pub mod complete;
pub mod cursor;
pub mod error;
pub mod live;
pub mod page;
pub mod parse;
pub mod plan;
mod predicate;
pub mod reader;
pub mod reference;
mod rate;
pub mod service;
pub mod statement;
mod stats;
pub mod syntax;
pub mod time_range;
pub mod written;
