//! The catalogue of topics: `<tenant>.<stream>`, and what each stream keeps.

/// Log partitions of a new topic.
pub const LOG_PARTITIONS_DEFAULT: u32 = 6;

/// What stands where a tenant's name does in topics that are no tenant's.
pub const SYSTEM: &str = "system";

/// A stream of a tenant, or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// `Observation`, kept for ever.
    Observations,
    /// `Decision`, kept for ever.
    Decisions,
    /// `DeviceChange`, compacted.
    DeviceChanges,
    /// Refused bytes, unchanged, 30 days.
    DeadLetters,
    /// `Operation`, kept for ever; one for all tenants.
    Operations,
}

impl Stream {
    /// Every stream a tenant has.
    pub const ALL: [Stream; 4] =
        [Stream::Observations, Stream::Decisions, Stream::DeviceChanges, Stream::DeadLetters];

    /// The part of the topic's name after the tenant.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Observations => "observations",
            Stream::Decisions => "decisions",
            Stream::DeviceChanges => "device-changes",
            Stream::DeadLetters => "dead-letters",
            Stream::Operations => "operations",
        }
    }

    /// The topic of `tenant` for this stream; that of all for what is not a tenant's own.
    pub fn topic(self, tenant: &str) -> String {
        let tenant = if self == Stream::Operations { SYSTEM } else { tenant };
        format!("{tenant}.{}", self.name())
    }

    /// Log partitions of a new topic.
    pub fn log_partitions(self) -> u32 {
        match self {
            Stream::Observations | Stream::DeviceChanges => LOG_PARTITIONS_DEFAULT,
            Stream::Decisions | Stream::DeadLetters | Stream::Operations => 1,
        }
    }
}

/// Splits a topic's name into its tenant and stream name.
pub fn split(topic: &str) -> Option<(&str, &str)> {
    topic.split_once('.')
}

/// Whether `tenant` is a tenant's name: `[a-z0-9-]{1,40}`, and not the reserved [`SYSTEM`].
pub fn is_tenant(tenant: &str) -> bool {
    (1..=40).contains(&tenant.len())
        && tenant != SYSTEM
        && tenant.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
