//! Which Armis to crawl, and how.

use std::time::Duration;

use cidr::IpCidr;
use serviceradar_schemas::{Source, observation::is_key_part};

/// Most pages fetched at once: more only makes Armis answer 429.
const CONCURRENCY_MAX: usize = 32;
/// Most devices of a page: Armis gives no more.
const PAGE_SIZE_MAX: usize = 5_000;

/// A secret, which is never printed.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Keeps `secret`, without the blanks and line ends that files bring along.
    pub fn new(secret: &str) -> Self {
        Self(secret.trim().to_owned())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Which Armis to crawl, and how.
#[derive(Clone, Debug)]
pub struct ArmisConfig {
    /// Its address, e.g. `https://example.armis.com`.
    pub url: String,
    /// What it gives access tokens for.
    pub secret: Secret,
    /// Its instance: the source of its records is `armis/<instance>`.
    pub instance: String,
    /// The partition its addresses are of.
    pub partition: String,
    /// Which devices, in Armis' query language.
    pub aql: String,
    /// Devices asked for per page.
    pub page_size: usize,
    /// Pages fetched at once.
    pub concurrency: usize,
    /// Addresses that are left out; a device that has no others is left out whole.
    pub exclude: Vec<IpCidr>,
    /// How long one request may take, answer included.
    pub request_timeout: Duration,
    /// The first wait before a request is tried again; it doubles each time.
    pub retry_base: Duration,
}

impl ArmisConfig {
    /// All devices of `url`, 1,000 to a page, four pages at once.
    pub fn new(url: &str, secret: &str, instance: &str) -> Self {
        Self {
            url: url.to_owned(),
            secret: Secret::new(secret),
            instance: instance.to_owned(),
            partition: "default".to_owned(),
            aql: "in:devices".to_owned(),
            page_size: 1_000,
            concurrency: 4,
            exclude: Vec::new(),
            request_timeout: Duration::from_secs(30),
            retry_base: Duration::from_millis(250),
        }
    }

    /// The source of its records.
    pub fn source(&self) -> Source {
        Source { kind: "armis".to_owned(), instance: self.instance.clone() }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let within = |what, value: usize, most| match (1..=most).contains(&value) {
            true => Ok(()),
            false => Err(ConfigError::OutOfRange { what, value, most }),
        };
        within("page size", self.page_size, PAGE_SIZE_MAX)?;
        within("number of pages fetched at once", self.concurrency, CONCURRENCY_MAX)?;
        for (what, part) in [("instance", &self.instance), ("partition", &self.partition)] {
            if !is_key_part(part) {
                return Err(ConfigError::NotAPart { what, value: part.clone() });
            }
        }
        Ok(())
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A number is out of range.
    #[error("the {what} is {value}: give 1 to {most}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// As given.
        value: usize,
        /// The most that is taken.
        most: usize,
    },
    /// A part of the record key has not the form of one.
    #[error("the {what} is {value:?}: give 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-`")]
    NotAPart {
        /// Which part.
        what: &'static str,
        /// As given.
        value: String,
    },
    /// The address is none.
    #[error("{url:?} is no address of an Armis: {why}; give one like https://example.armis.com")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}
