//! Spans: the claims and addresses that a record ever had, each from its first to its last assertion.

use std::net::IpAddr;

use crate::{dictionary::ClaimId, record::Asserted};

/// What a claim or address is at the present watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Asserted, and its record open.
    Current,
    /// Asserted by a fetch that nobody has judged yet: it counts as lapsed.
    Listed,
    /// No longer asserted, not long ago.
    Lapsed,
    /// No longer asserted, long ago; or replaced.
    Expired,
}

impl Status {
    /// Whether it may link.
    pub fn is_live(self) -> bool {
        self != Status::Expired
    }

    /// Whether its record asserts it now, judged or not.
    pub fn is_asserted(self) -> bool {
        matches!(self, Status::Current | Status::Listed)
    }
}

/// A claim that the record ever had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimSpan {
    /// Which.
    pub claim: ClaimId,
    /// What it is now.
    pub status: Status,
    /// Absent where they are the record's: see `Record::times`.
    pub times: Option<Box<Times>>,
}

/// An address that the record ever had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSpan {
    /// Which.
    pub ip: IpAddr,
    /// Whether it is current.
    pub current: bool,
    /// Absent where they are the record's: see `Record::times`.
    pub times: Option<Box<Times>>,
}

/// When a claim or address was asserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Earliest event time.
    pub first_seen: i64,
    /// Earliest intake time.
    pub first_asserted: i64,
    /// Its last assertion; absent where that is the record's last FULL assert.
    pub last: Option<Asserted>,
}

/// A claim or an address of a record.
pub trait Span: Clone + PartialEq {
    /// By what lists of them are sorted.
    type Key: Ord + Copy;

    /// Which.
    fn key(&self) -> Self::Key;

    /// Its times, where they are not the record's.
    fn times(&self) -> Option<&Times>;

    /// A new one, or one like this, with other times.
    fn with(key: Self::Key, known: Option<&Self>, times: Option<Box<Times>>) -> Self;
}

impl Span for ClaimSpan {
    type Key = ClaimId;

    fn key(&self) -> ClaimId {
        self.claim
    }

    fn times(&self) -> Option<&Times> {
        self.times.as_deref()
    }

    fn with(claim: ClaimId, known: Option<&Self>, times: Option<Box<Times>>) -> Self {
        Self { claim, status: known.map_or(Status::Expired, |known| known.status), times }
    }
}

impl Span for AddressSpan {
    type Key = IpAddr;

    fn key(&self) -> IpAddr {
        self.ip
    }

    fn times(&self) -> Option<&Times> {
        self.times.as_deref()
    }

    fn with(ip: IpAddr, known: Option<&Self>, times: Option<Box<Times>>) -> Self {
        Self { ip, current: known.is_some_and(|known| known.current), times }
    }
}
