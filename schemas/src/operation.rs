//! `Operation`: what an operator's verb is about to do, and that it is done.

use serde::{Deserialize, Serialize};

/// Whether an operation is ahead or over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// Written before.
    #[default]
    Intent,
    /// Written after.
    Done,
}

/// Offsets of a log partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OffsetRange {
    /// `<tenant>.<stream>`.
    pub topic: String,
    /// Which of its log partitions.
    pub log_partition: i32,
    /// The first offset.
    pub from: i64,
    /// The offset behind the last.
    pub to: i64,
}

/// As people write it, the first and the offset behind the last: `t.observations/0:17-42`.
impl std::fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}-{}", self.topic, self.log_partition, self.from, self.to)
    }
}

/// Why a text is no range of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give TOPIC/PARTITION:FROM-TO, TO being the offset behind the last, e.g. t1.observations/0:17-42")]
pub struct NoRange;

impl std::str::FromStr for OffsetRange {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let parts = || {
            let (partition, offsets) = text.rsplit_once(':')?;
            let (topic, log_partition) = partition.rsplit_once('/')?;
            let (from, to) = offsets.split_once('-')?;
            let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
            let (from, to): (i64, i64) = (digits(from)?, digits(to)?);
            let log_partition = i32::try_from(digits(log_partition)?).ok()?;
            let is_range = from < to && !topic.is_empty();
            is_range.then(|| Self { topic: topic.to_owned(), log_partition, from, to })
        };
        parts().ok_or(NoRange)
    }
}

/// An operation as it stands in the log `system.operations`. Which fields are used depends on its action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Its intent and its end have the same.
    pub id: String,
    /// Before, or after.
    pub phase: Phase,
    /// `rebuild`, `promote`, `rollback`, `truncate`, `restore`, `accept_gap`, `remove_tenant`, `bound_intake`,
    /// `reseed`, `republish`, `import`, `as_of`.
    pub action: String,
    /// Whose; none where it is of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Who does it.
    pub actor: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// When it was written, microseconds since the Unix epoch.
    #[serde(with = "crate::time::rfc3339")]
    pub event_time: i64,
    /// Offsets that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<OffsetRange>,
    /// The generation of the views that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i32>,
    /// That generation's fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// That generation's rules, JSON with every default filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
    /// Of `restore` and `truncate`: SHA-256 of the archive's manifest, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Of `bound_intake`: no intake time in the ranges counts as later, microseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::time::rfc3339_option")]
    pub intake_max: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_written() {
        let range = OffsetRange { topic: "t1.observations".into(), log_partition: 3, from: 17, to: 42 };
        assert_eq!(range.to_string(), "t1.observations/3:17-42");
        assert_eq!(range.to_string().parse(), Ok(range));
        for wrong in ["", "t/0", "t/0:1", "t/0:5-5", "t/0:6-5", "t/x:1-2", "t/-1:1-2", "/0:1-2", "t/0:+1-2"] {
            assert_eq!(wrong.parse::<OffsetRange>(), Err(NoRange), "{wrong}");
        }
    }
}
