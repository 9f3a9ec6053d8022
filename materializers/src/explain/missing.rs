//! What there is of a claim, and what keeps it from being a device's.

use std::net::IpAddr;

use serde::Serialize;
use serviceradar_schemas::time;
use serviceradar_streams::{
    normalise::{self, ClaimKey, NO_MAC, claim_key, mac},
    rows::{IssueRow, Uid},
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    inventory::Inventory,
    postgres::{session::views_error, state::Micros},
    views::ViewsError,
};

/// Most records that are told of a claim.
pub const TRACES_MAX: i64 = 100;

/// A claim or an address that somebody looks for, as the views would have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// E.g. `mac`, `serial`, `armis/hq`; `ip` of an address.
    pub namespace: String,
    /// Normalised.
    pub value: String,
}

/// Why a text is nothing to look for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWanted {
    /// It is neither a claim nor an address.
    #[error(
        "{0:?} is no claim: give namespace:value, an address or a MAC, e.g. serial:acme:123, 10.1.2.3 or 00:1b:21:00:00:01"
    )]
    Unreadable(String),
    /// It is one that the normaliser drops from every observation.
    #[error("{what} is kept of no observation: {why}")]
    Dropped {
        /// As given.
        what: String,
        /// In words.
        why: &'static str,
    },
}

impl Wanted {
    /// Reads `namespace:value`, an address (prefix length and zone are passed over), or a MAC in any usual spelling.
    pub fn read(what: &str) -> Result<Self, NotWanted> {
        let dropped = |why| NotWanted::Dropped { what: what.to_owned(), why };
        let address = what.strip_prefix("ip:").unwrap_or(what);
        match normalise::ip(address) {
            Some(ip) => return Ok(Self { namespace: "ip".to_owned(), value: ip.to_string() }),
            None if address.parse::<IpAddr>().is_ok() => {
                return Err(dropped("an address that is nobody's own"));
            }
            None => {}
        }
        let claim = match mac(what) {
            Ok(mac) => ClaimKey::Mac(mac),
            Err(why) if why != NO_MAC => return Err(dropped(why)),
            Err(_) => {
                let unreadable = || NotWanted::Unreadable(what.to_owned());
                let (namespace, value) = what.split_once(':').ok_or_else(unreadable)?;
                claim_key(namespace, value).map_err(dropped)?
            }
        };
        let (namespace, value) = claim.text();
        Ok(Self { namespace: namespace.to_owned(), value: String::from(&*value) })
    }

    /// How producers may have written its value, beside how it was given: of a MAC the usual ways.
    pub fn spellings(&self, given: &str) -> Vec<String> {
        let bare =
            given.strip_prefix(&*self.namespace).and_then(|rest| rest.strip_prefix(':')).unwrap_or(given);
        let mut spellings = vec![self.value.clone(), bare.to_owned()];
        if self.namespace == "mac" {
            let digits: Vec<char> = self.value.chars().collect();
            let spelt = |digits_each: usize, between: &str| {
                let parts: Vec<String> =
                    digits.chunks(digits_each).map(|part| part.iter().collect()).collect();
                parts.join(between)
            };
            spellings.extend([spelt(2, ":"), spelt(2, "-"), spelt(4, ".")]);
        }
        spellings.sort_unstable();
        spellings.dedup();
        spellings
    }
}

/// What a claim's record has to do with a device of the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A device has the claim.
    There,
    /// The record has ended, or asserts the claim no more.
    Over,
    /// The record makes no device of the claim: it is with the device that has its address, or with none.
    Elsewhere,
    /// The record is in a device by other claims; this one links nothing.
    Refused,
    /// The record is in another partition of the tenant.
    OtherPartition,
}

/// Why a record, or a claim of it, is over. Times are microseconds since the Unix epoch, RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Over {
    /// Its source said so.
    Ended {
        /// The order time of that.
        #[serde(with = "time::rfc3339")]
        at: i64,
    },
    /// An accepted fetch of its source did not list it.
    NotListed {
        /// The begin of the last one.
        #[serde(with = "time::rfc3339")]
        at: i64,
    },
    /// Nobody saw it for `record_ttl`.
    Unseen {
        /// When it was seen last.
        #[serde(with = "time::rfc3339")]
        at: i64,
    },
    /// The record goes on without the claim.
    NotAsserted {
        /// When it was asserted last.
        #[serde(with = "time::rfc3339")]
        at: i64,
    },
}

/// A record that has, or had, a claim.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trace {
    /// The partition.
    pub partition: String,
    /// The record.
    pub record_key: String,
    /// Its device.
    pub uid: Option<Uid>,
    /// The device's name.
    pub name: Option<String>,
    /// `active`, `stale` or `retired`.
    pub device_state: Option<String>,
    /// `anchored`, `attached`, `provisional`, `unplaced` or `closed`.
    pub placement: String,
    /// Whether the record is open.
    pub open: bool,
    /// What the claim does: a word of `device_evidence.state`.
    pub state: String,
    /// Event time at which it was asserted first.
    #[serde(with = "time::rfc3339")]
    pub first_seen: i64,
    /// Event time at which it was asserted last.
    #[serde(with = "time::rfc3339_option")]
    pub last_seen: Option<i64>,
    /// Why it is over, where it is.
    pub over: Option<Over>,
    /// What else the record claims, each as `namespace state`; sorted.
    pub others: Vec<String>,
}

impl Trace {
    /// Where it stands, for whoever looks into a partition.
    pub fn standing(&self, partition: &str) -> Standing {
        if self.partition != partition {
            return Standing::OtherPartition;
        }
        match (&*self.placement, &*self.state) {
            ("anchored", "linking" | "corroborating" | "lapsed") | ("provisional", "corroborating") => {
                Standing::There
            }
            ("closed", _) | (_, "lapsed" | "expired") => Standing::Over,
            ("anchored", _) => Standing::Refused,
            _ => Standing::Elsewhere,
        }
    }
}

/// What a record's row says of when it was asserted and when it ended, microseconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Times {
    asserted: Option<i64>,
    ended: Option<i64>,
    /// Begin of the last fetch of its source that was accepted.
    accepted: Option<i64>,
    /// When the claim was asserted last.
    last_seen: i64,
}

/// Why a claim of a record is over; nothing where it is not. An accepted fetch counts before all else of its time.
fn over(open: bool, state: &str, times: Times) -> Option<Over> {
    let Times { asserted, ended, accepted, last_seen: at } = times;
    if open {
        return matches!(state, "lapsed" | "expired").then_some(Over::NotAsserted { at });
    }
    let ended = ended.filter(|ended| asserted.is_none_or(|asserted| *ended >= asserted));
    let accepted = accepted.filter(|begin| asserted.is_none_or(|asserted| *begin > asserted));
    Some(match (ended, accepted) {
        (Some(at), _) => Over::Ended { at },
        (None, Some(at)) => Over::NotListed { at },
        (None, None) => Over::Unseen { at },
    })
}

impl Inventory {
    /// The records that have or had a claim, in all partitions of the tenant: those of the partition given first, and of
    /// these those with a device. [`TRACES_MAX`] at most.
    pub async fn traces(&mut self, wanted: &Wanted, partition: &str) -> Result<Vec<Trace>, ViewsError> {
        let select = "SELECT r.partition, r.record_key, r.uid, d.name, d.state, r.placement, r.open, e.state, e.first_seen,
                CASE WHEN e.last_time IS NULL THEN r.full_event_time ELSE e.last_seen END, r.assert_time, r.end_time,
                (SELECT max(s.begin) FROM snapshots s WHERE s.partition = r.partition AND s.verdict = 'accepted'
                    AND s.source_kind = r.source_kind AND s.source_instance = r.source_instance),
                ARRAY(SELECT DISTINCT o.namespace || ' ' || o.state FROM device_evidence o
                    WHERE o.record_key = r.record_key AND (o.namespace <> $1 OR o.value <> $2) ORDER BY 1)
            FROM device_evidence e JOIN device_records r USING (record_key) LEFT JOIN devices d ON d.uid = r.uid
            WHERE e.namespace = $1 AND e.value = $2
            ORDER BY r.partition = $3 DESC, r.placement IN ('anchored', 'provisional') DESC, e.state = 'linking' DESC,
                r.open DESC, r.record_key LIMIT $4";
        let Wanted { namespace, value } = wanted;
        let rows = self.session.query(select, &[namespace, value, &partition, &TRACES_MAX]).await?;
        rows.iter().map(trace).collect::<Result<_, _>>().map_err(views_error)
    }

    /// What the rules say, in a partition, of a claim and of the records that have it.
    pub async fn issues(
        &mut self,
        wanted: &Wanted,
        partition: &str,
        traces: &[Trace],
    ) -> Result<Vec<IssueRow>, ViewsError> {
        let own = traces.iter().filter(|trace| trace.partition == partition);
        let records = own.map(|trace| ("record", &*trace.record_key));
        let claim = [(&*wanted.namespace, &*wanted.value)];
        let (namespaces, values): (Vec<&str>, Vec<&str>) = claim.into_iter().chain(records).unzip();
        self.issues_of(partition, &namespaces, &values).await
    }
}

fn trace(row: &Row) -> Result<Trace, tokio_postgres::Error> {
    let time = |at: usize| row.try_get::<_, Option<Micros>>(at).map(|at| at.map(|at| at.0));
    let (open, state): (bool, String) = (row.try_get(6)?, row.try_get(7)?);
    let first_seen = row.try_get::<_, Micros>(8)?.0;
    let last_seen = time(9)?;
    let times = Times {
        asserted: time(10)?,
        ended: time(11)?,
        accepted: time(12)?,
        last_seen: last_seen.unwrap_or(first_seen),
    };
    Ok(Trace {
        partition: row.try_get(0)?,
        record_key: row.try_get(1)?,
        uid: row.try_get::<_, Option<Uuid>>(2)?.map(Uid),
        name: row.try_get(3)?,
        device_state: row.try_get(4)?,
        placement: row.try_get(5)?,
        open,
        over: over(open, &state, times),
        state,
        first_seen,
        last_seen,
        others: row.try_get(13)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(what: &str) -> (String, String) {
        let Wanted { namespace, value } = Wanted::read(what).unwrap();
        (namespace, value)
    }

    #[test]
    fn what_is_looked_for_is_read_as_the_views_have_it() {
        for (what, namespace, value) in [
            ("10.1.2.3", "ip", "10.1.2.3"),
            ("ip:10.1.2.3/24", "ip", "10.1.2.3"),
            ("2001:DB8::1", "ip", "2001:db8::1"),
            ("00:1B:21:00:00:01", "mac", "001b21000001"),
            ("mac:001b.2100.0001", "mac", "001b21000001"),
            ("serial:acme:x1", "serial", "ACME:X1"),
            ("armis/hq:7", "armis/hq", "7"),
        ] {
            assert_eq!(read(what), (namespace.to_owned(), value.to_owned()), "{what}");
        }
        for what in ["ff:ff:ff:ff:ff:ff", "mac:0", "127.0.0.1", "serial:acme:NONE", "detached:x"] {
            assert!(matches!(Wanted::read(what), Err(NotWanted::Dropped { .. })), "{what}");
        }
        for what in ["", "lt-000001"] {
            assert_eq!(Wanted::read(what), Err(NotWanted::Unreadable(what.to_owned())));
        }
    }

    #[test]
    fn a_mac_is_looked_for_in_the_ways_that_it_is_written() {
        let given = "mac:00-1B-21-00-00-01";
        let spellings = Wanted::read(given).unwrap().spellings(given);
        for spelling in
            ["001b21000001", "00:1b:21:00:00:01", "00-1b-21-00-00-01", "001b.2100.0001", "00-1B-21-00-00-01"]
        {
            assert!(spellings.iter().any(|known| known == spelling), "{spelling}: {spellings:?}");
        }
    }

    #[test]
    fn what_is_over_says_by_what() {
        let times = Times { asserted: Some(10), ended: None, accepted: None, last_seen: 9 };
        assert_eq!(over(true, "linking", times), None);
        assert_eq!(over(true, "expired", times), Some(Over::NotAsserted { at: 9 }));
        assert_eq!(over(false, "expired", times), Some(Over::Unseen { at: 9 }));
        // A fetch that began when it was asserted listed it.
        let accepted = |begin| Times { accepted: Some(begin), ..times };
        assert_eq!(over(false, "lapsed", accepted(10)), Some(Over::Unseen { at: 9 }));
        assert_eq!(over(false, "lapsed", accepted(11)), Some(Over::NotListed { at: 11 }));
        // An END from before it was asserted again is none of it.
        let ended = |at| Times { ended: Some(at), ..accepted(11) };
        assert_eq!(over(false, "lapsed", ended(10)), Some(Over::Ended { at: 10 }));
        assert_eq!(over(false, "lapsed", ended(9)), Some(Over::NotListed { at: 11 }));
    }

    #[test]
    fn only_a_claim_that_counts_is_there() {
        let of = |placement: &str, state: &str| Trace {
            partition: "default".to_owned(),
            record_key: "default/armis/hq/1".to_owned(),
            uid: None,
            name: None,
            device_state: None,
            placement: placement.to_owned(),
            open: true,
            state: state.to_owned(),
            first_seen: 0,
            last_seen: None,
            over: None,
            others: Vec::new(),
        };
        for (placement, state, standing) in [
            ("anchored", "linking", Standing::There),
            ("anchored", "lapsed", Standing::There),
            ("anchored", "expired", Standing::Over),
            ("anchored", "quarantined", Standing::Refused),
            ("provisional", "corroborating", Standing::There),
            ("provisional", "generic", Standing::Elsewhere),
            ("provisional", "lapsed", Standing::Over),
            ("attached", "corroborating", Standing::Elsewhere),
            ("attached", "expired", Standing::Over),
            ("unplaced", "blocked", Standing::Elsewhere),
            ("closed", "lapsed", Standing::Over),
        ] {
            assert_eq!(of(placement, state).standing("default"), standing, "{placement} {state}");
        }
        assert_eq!(of("anchored", "linking").standing("plant"), Standing::OtherPartition);
    }
}
