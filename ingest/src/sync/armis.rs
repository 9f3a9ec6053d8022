//! Sync with Armis: a crawl of all its devices, published as one snapshot.
//!
//! ```text
//! SNAPSHOT_BEGIN, ASSERT for each device in whatever order its pages come, SNAPSHOT_END
//! ```
//!
//! The end is published only when every page arrived and the number of distinct devices is the one
//! that Armis named: a crawl that fails half-way ends nothing.

mod backoff;
mod breaker;
mod client;
mod config;
mod crawl;
mod map;
mod page;
mod token;

pub use breaker::{FAILURES_MAX, OPEN_FOR};
pub use client::{ArmisClient, ClientError, FetchError, RESPONSE_BYTES_MAX, RETRY_AFTER_MAX};
pub use config::{ArmisConfig, ConfigError, Secret};
pub use crawl::{CrawlError, CrawlReport, Progress, crawl, run_every};
pub use map::{MapError, Mapped, Mapping, map};
pub use page::{AccessToken, Page, PageRequest};
