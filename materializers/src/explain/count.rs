//! Of what an inventory is made up, and what changed how many devices it has.

use std::collections::BTreeMap;

use serde::Serialize;
use serviceradar_schemas::time;
use serviceradar_streams::rows::Uid;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    inventory::Inventory,
    postgres::{session::views_error, state::Micros},
    views::ViewsError,
};

/// Devices that are told of each cause.
const TOLD_MAX: i64 = 20;
/// Records that are told of each of them.
const RECORDS_TOLD_MAX: i32 = 5;
/// Why a record is not placed: the first of these words of `device_evidence.state` that one of its claims or addresses has.
pub const REASONS: [&str; 10] = [
    "quarantined",
    "generic",
    "ambiguous",
    "bridging",
    "blocked",
    "refused",
    "expired",
    "lapsed",
    "corroborating",
    "linking",
];

/// The epoch that the views show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EpochAt {
    /// The active generation.
    pub generation: i32,
    /// Its last epoch.
    pub epoch: i64,
    /// When that one was closed, microseconds since the Unix epoch; RFC 3339 in JSON.
    #[serde(with = "time::rfc3339")]
    pub closed_at: i64,
}

/// Of what an inventory is made up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Devices, those that are retired among them.
    pub devices: i64,
    /// Devices by state.
    pub states: BTreeMap<String, i64>,
    /// Records that there are.
    pub records: i64,
    /// Of them, those that are open.
    pub open: i64,
    /// Records by where they are.
    pub placed: Vec<Placed>,
}

/// Records that are placed alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// `anchored`, `attached`, `provisional`, `unplaced` or `closed`.
    pub placement: String,
    /// Of those that are `unplaced`: a word of `device_evidence.state`, or `nothing` where they claim nothing.
    pub reason: Option<String>,
    /// Whether they have a device.
    pub with_device: bool,
    /// How many they are.
    pub records: i64,
    /// How many of them are open.
    pub open: i64,
    /// Devices that they are of.
    pub devices: i64,
    /// Devices that open ones of them are of.
    pub devices_open: i64,
}

/// A summand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Which records: `first` (one of each device that records make), `further` (the others of these devices),
    /// `attached`, `unplaced/<reason>`, `closed/history` (of a device) or `closed/alone`.
    pub of: String,
    /// How many.
    pub records: i64,
    /// How many of them are open. Of `first`: devices that have an open record.
    pub open: i64,
}

/// The records as a sum that gives all of them, and, in words, what does not add up.
pub fn sum(counted: &Counted) -> (Vec<Line>, Vec<String>) {
    let line = |of: String, records, open| Line { of, records, open };
    let makes = |placed: &&Placed| matches!(&*placed.placement, "anchored" | "provisional");
    let making = |count: fn(&Placed) -> i64| counted.placed.iter().filter(makes).map(count).sum::<i64>();
    let (first, first_open) = (making(|of| of.devices), making(|of| of.devices_open));
    let mut lines = vec![
        line("first".to_owned(), first, first_open),
        line("further".to_owned(), making(|of| of.records) - first, making(|of| of.open) - first_open),
    ];
    for placed in counted.placed.iter().filter(|placed| !makes(placed)) {
        let of = match (&*placed.placement, &placed.reason, placed.with_device) {
            ("closed", _, true) => "closed/history".to_owned(),
            ("closed", _, false) => "closed/alone".to_owned(),
            (placement, Some(reason), _) => format!("{placement}/{reason}"),
            (placement, None, _) => placement.to_owned(),
        };
        lines.push(line(of, placed.records, placed.open));
    }
    let mut faults = Vec::new();
    let mut check = |what: &str, found: i64, wanted: i64| {
        if found != wanted {
            faults.push(format!("{what} come to {found}, and there are {wanted}"));
        }
    };
    check("the records", lines.iter().map(|line| line.records).sum(), counted.records);
    check("the open records", lines.iter().map(|line| line.open).sum(), counted.open);
    check("the devices that records make", first, counted.devices);
    check("the devices by state", counted.states.values().sum(), counted.devices);
    (lines, faults)
}

/// What changed how many devices there are since an instant, by the journals.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Since {
    /// The instant, microseconds since the Unix epoch; RFC 3339 in JSON, as all times.
    #[serde(with = "time::rfc3339")]
    pub at: i64,
    /// When the journal begins; none where it is empty.
    #[serde(with = "time::rfc3339_option")]
    pub begins: Option<i64>,
    /// How many devices there were then.
    pub then: i64,
    /// How many there are now: as counted, not by the journal.
    pub now: i64,
    /// What happened since, by change and cause.
    pub causes: Vec<Cause>,
}

/// Changes that have one cause.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cause {
    /// `created`, `merged`, `split`, `retired` or `forgotten`.
    pub change: String,
    /// In words: the source that was first to speak of the device, a word of `device_merges.rule`, or what the journal says.
    pub cause: String,
    /// How many devices.
    pub devices: i64,
    /// Some of them, the latest first.
    pub told: Vec<Told>,
}

/// A device that was gained, lost or retired.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// When the epoch was closed.
    #[serde(with = "time::rfc3339")]
    pub at: i64,
    /// The epoch.
    pub epoch: i64,
    /// The device.
    pub uid: Uid,
    /// Its name, where one is known.
    pub name: Option<String>,
    /// Of `merged` the device into which, of `split` the one out of which.
    pub other: Option<Uid>,
    /// The claim that did it, `namespace:value`.
    pub claim: Option<String>,
    /// The records that moved; else those that the device has now, the first asserted first. Some of them.
    pub records: Vec<String>,
}

impl Since {
    /// How many devices were gained and lost: new ones and split ones; merged ones and forgotten ones.
    pub fn balance(&self) -> (i64, i64) {
        let of = |changes: [&str; 2]| {
            let causes = self.causes.iter().filter(|cause| changes.contains(&&*cause.change));
            causes.map(|cause| cause.devices).sum::<i64>()
        };
        (of(["created", "split"]), of(["merged", "forgotten"]))
    }

    /// How many devices there should be now, where there are others.
    pub fn fault(&self) -> Option<i64> {
        let (gained, lost) = self.balance();
        let wanted = self.then + gained - lost;
        (wanted != self.now).then_some(wanted)
    }
}

impl Inventory {
    /// The epoch that the views show; none before the first.
    pub async fn epoch_at(&mut self) -> Result<Option<EpochAt>, ViewsError> {
        let select = "SELECT g.id, e.epoch, e.closed_at FROM pipeline_generations g
            JOIN pipeline_epochs e ON e.generation = g.id WHERE g.state = 'active' ORDER BY e.epoch DESC LIMIT 1";
        let rows = self.session.query(select, &[]).await?;
        let read = |row: &Row| EpochAt {
            generation: row.get(0),
            epoch: row.get(1),
            closed_at: row.get::<_, Micros>(2).0,
        };
        Ok(rows.first().map(read))
    }

    /// Counts devices and records, each where it is.
    pub async fn counted(&mut self) -> Result<Counted, ViewsError> {
        let states = "SELECT state, count(*) FROM devices GROUP BY state ORDER BY state";
        let rows = self.session.query(states, &[]).await?;
        let states: BTreeMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let totals = "SELECT (SELECT count(*) FROM devices), count(*), count(*) FILTER (WHERE open) FROM device_records";
        let totals = self.session.query_one(totals, &[]).await?;
        let placed = "SELECT placement, reason, uid IS NOT NULL, count(*), count(*) FILTER (WHERE open),
                count(DISTINCT uid), count(DISTINCT uid) FILTER (WHERE open)
            FROM (SELECT r.placement, r.uid, r.open, CASE WHEN r.placement = 'unplaced' THEN coalesce(
                    (SELECT w.word FROM unnest($1::text[]) WITH ORDINALITY AS w (word, place)
                     WHERE w.word IN (SELECT e.state FROM device_evidence e WHERE e.record_key = r.record_key)
                     ORDER BY w.place LIMIT 1), 'nothing') END AS reason
                  FROM device_records r) AS r
            GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";
        let rows = self.session.query(placed, &[&&REASONS[..]]).await?;
        let read = |row: &Row| Placed {
            placement: row.get(0),
            reason: row.get(1),
            with_device: row.get(2),
            records: row.get(3),
            open: row.get(4),
            devices: row.get(5),
            devices_open: row.get(6),
        };
        Ok(Counted {
            devices: totals.get(0),
            states,
            records: totals.get(1),
            open: totals.get(2),
            placed: rows.iter().map(read).collect(),
        })
    }

    /// What changed how many devices there are since an instant, microseconds since the Unix epoch; there are `now`.
    pub async fn since(&mut self, at: i64, now: i64) -> Result<Since, ViewsError> {
        let then = "SELECT coalesce(sum(CASE WHEN change IN ('created', 'split') THEN 1 ELSE -1 END)
                FILTER (WHERE at < $1), 0)::bigint, min(at)
            FROM device_history WHERE change IN ('created', 'split', 'merged', 'forgotten')";
        let row = self.session.query_one(then, &[&Micros(at)]).await?;
        let mut since = Since {
            at,
            begins: row.get::<_, Option<Micros>>(1).map(|begins| begins.0),
            then: row.get(0),
            now,
            causes: Vec::new(),
        };
        // A row of the journal that says how many records moved says it of that device alone: the rule is the cause.
        let select = "WITH told AS (
                SELECT h.uid, h.change, h.at, h.epoch, coalesce(h.after ->> 'name', h.before ->> 'name') AS name,
                    m.other, m.claim, m.records,
                    CASE WHEN m.rule IS NOT NULL THEN m.rule
                         WHEN h.cause ~ ' records (came from|went to) ' THEN 'records moved'
                         WHEN h.cause <> '' THEN h.cause
                         WHEN h.change = 'created' THEN coalesce((
                             SELECT 'observed by ' || r.source_kind || '/' || r.source_instance FROM device_records r
                             WHERE r.uid = h.uid ORDER BY r.first_asserted, r.record_key LIMIT 1), 'observed')
                         WHEN h.change = 'retired' THEN 'no record is open'
                         ELSE 'no record is left' END AS cause
                FROM device_history h LEFT JOIN LATERAL (
                    SELECT m.rule, m.claim, m.records,
                        CASE WHEN h.change = 'merged' THEN m.to_uid ELSE m.from_uid END AS other
                    FROM device_merges m
                    WHERE h.change IN ('merged', 'split') AND m.at = h.at AND m.generation = h.generation
                        AND m.epoch = h.epoch
                        AND (h.change = 'merged' AND m.from_uid = h.uid OR h.change = 'split' AND m.to_uid = h.uid)
                    ORDER BY cardinality(m.records) DESC, m.from_uid, m.to_uid LIMIT 1) AS m ON true
                WHERE h.at >= $1 AND h.change <> 'changed')
            SELECT t.change, t.cause, t.devices, t.at, t.epoch, t.uid, coalesce(t.name, d.name), t.other, t.claim,
                (coalesce(t.records, (SELECT array_agg(r.record_key ORDER BY r.first_asserted, r.record_key)
                                      FROM device_records r WHERE r.uid = t.uid), '{}'))[1:$3]
            FROM (SELECT told.*, count(*) OVER (PARTITION BY change, cause) AS devices,
                      row_number() OVER (PARTITION BY change, cause ORDER BY at DESC, uid) AS place FROM told) AS t
            LEFT JOIN devices d ON d.uid = t.uid
            WHERE t.place <= $2 ORDER BY t.change, t.cause, t.place";
        let rows = self.session.query(select, &[&Micros(at), &TOLD_MAX, &RECORDS_TOLD_MAX]).await?;
        for row in &rows {
            let (of, told) = told(row).map_err(views_error)?;
            match since.causes.last_mut().filter(|cause| cause.change == of.change && cause.cause == of.cause)
            {
                Some(cause) => cause.told.push(told),
                None => since.causes.push(Cause { told: vec![told], ..of }),
            }
        }
        Ok(since)
    }
}

/// A device, and what it is told of.
fn told(row: &Row) -> Result<(Cause, Told), tokio_postgres::Error> {
    let cause =
        Cause { change: row.try_get(0)?, cause: row.try_get(1)?, devices: row.try_get(2)?, told: Vec::new() };
    let told = Told {
        at: row.try_get::<_, Micros>(3)?.0,
        epoch: row.try_get(4)?,
        uid: Uid(row.try_get(5)?),
        name: row.try_get(6)?,
        other: row.try_get::<_, Option<Uuid>>(7)?.map(Uid),
        claim: row.try_get(8)?,
        records: row.try_get(9)?,
    };
    Ok((cause, told))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(placement: &str, reason: Option<&str>, of_records: [i64; 4]) -> Placed {
        let [records, open, devices, devices_open] = of_records;
        Placed {
            placement: placement.to_owned(),
            reason: reason.map(str::to_owned),
            with_device: devices > 0,
            records,
            open,
            devices,
            devices_open,
        }
    }

    fn counted() -> Counted {
        Counted {
            devices: 6,
            states: [("active".to_owned(), 5), ("retired".to_owned(), 1)].into(),
            records: 28,
            open: 20,
            placed: vec![
                placed("anchored", None, [9, 7, 4, 3]),
                placed("attached", None, [5, 5, 2, 2]),
                placed("closed", None, [1, 0, 0, 0]),
                placed("closed", None, [4, 0, 1, 0]),
                placed("provisional", None, [3, 3, 2, 2]),
                placed("unplaced", Some("generic"), [4, 3, 0, 0]),
                placed("unplaced", Some("nothing"), [2, 2, 0, 0]),
            ],
        }
    }

    #[test]
    fn each_record_is_in_one_summand() {
        let (lines, faults) = sum(&counted());
        assert_eq!(faults, Vec::<String>::new());
        let told: Vec<(&str, i64, i64)> =
            lines.iter().map(|line| (&*line.of, line.records, line.open)).collect();
        let wanted = [
            ("first", 6, 5),
            ("further", 6, 5),
            ("attached", 5, 5),
            ("closed/alone", 1, 0),
            ("closed/history", 4, 0),
            ("unplaced/generic", 4, 3),
            ("unplaced/nothing", 2, 2),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn what_does_not_add_up_is_said() {
        let faults = |of: Counted| sum(&of).1.len();
        assert_eq!(faults(Counted { records: 27, ..counted() }), 1);
        assert_eq!(faults(Counted { open: 21, ..counted() }), 1);
        assert_eq!(faults(Counted { states: BTreeMap::new(), ..counted() }), 1);
        assert_eq!(faults(Counted { devices: 7, ..counted() }), 2, "of records, and by state");
    }

    #[test]
    fn devices_then_and_what_came_and_went_are_those_of_now() {
        let cause = |change: &str, devices| Cause { change: change.to_owned(), devices, ..Cause::default() };
        let causes = vec![
            cause("created", 3),
            cause("created", 4),
            cause("forgotten", 1),
            cause("merged", 2),
            cause("retired", 9),
            cause("split", 5),
        ];
        let since = Since { then: 10, now: 19, causes, ..Since::default() };
        assert_eq!((since.balance(), since.fault()), ((12, 3), None));
        assert_eq!(Since { now: 18, ..since }.fault(), Some(19));
    }
}
