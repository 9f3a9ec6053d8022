//! Plan: what goes and what stays, and what present asserts alone would make of the devices: which keep their uids by
//! themselves, which by a pin, and which would split, merge or vanish all the same.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::Serialize;
use serviceradar_schemas::{Action, Claim, Decision, Operation, Source, Target};
use serviceradar_streams::{
    decisions::Taken,
    engine::EngineError,
    normalise::Sighting,
    resolve::Placed,
    rows::{EvidenceRow, Order, RecordRow, Uid},
};

use super::{Truncate, TruncateError, kept_id, list};
use crate::{
    operations::{Operations, TRUNCATE},
    preview::{Becomes, Placements},
    recompute::{Recompute, RecomputeError},
    topics::Partition,
    verify::each_piece,
};

/// Namespaces of ours, which nobody can pin.
const OURS: [&str; 2] = ["ip", "detached"];

/// What becomes of the events of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// They go, and a crawl brings what is so now.
    CrawledAgain,
    /// They go.
    Lost,
    /// They are published again.
    Kept,
}

/// What a source has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OfSource {
    /// `partition/kind/instance`.
    pub source: String,
    /// What becomes of it.
    pub fate: Fate,
    /// Records.
    pub records: u64,
    /// Of them, open ones.
    pub open: u64,
    /// Events, but for TICKs.
    pub events: u64,
}

/// A claim that is to name its device as it names it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The device.
    pub uid: Uid,
    /// The partition.
    pub partition: String,
    /// The claim.
    pub claim: Claim,
}

impl Pin {
    /// The decision that pins it.
    pub(super) fn decision(&self, of: &Operation) -> Decision {
        Decision {
            id: format!("{}/{}", of.id, self.uid),
            event_time: of.event_time,
            partition: self.partition.clone(),
            action: "pin_uid".to_owned(),
            target: Target { claim: Some(self.claim.clone()), ..Target::default() },
            actor: of.actor.clone(),
            reason: format!("its device keeps the uid {} when the log is truncated", self.uid),
            ..Decision::default()
        }
    }
}

/// What a truncation would do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Sources, in order.
    pub sources: Vec<OfSource>,
    /// Devices that there are.
    pub devices: u64,
    /// Events of the log that the views, by which all this is told, do not have.
    pub behind: u64,
    /// Pins that are to be published.
    pub pins: Vec<Pin>,
    /// What present asserts would make of devices otherwise, in spite of those.
    pub becomes: Vec<Becomes>,
    /// The intent of one that was interrupted, and is gone on with.
    pub interrupted: Option<Operation>,
    /// The tenant's last TICK: time does not go back.
    pub(super) tick: Option<i64>,
}

/// What the views hold.
#[derive(Default)]
struct Before {
    devices: HashSet<Uid>,
    /// The claim that names a device.
    names: HashMap<Uid, EvidenceRow>,
    /// The device of a record.
    records: BTreeMap<Arc<str>, Option<Uid>>,
    /// Open records of what is crawled again: where their last FULL assert stands, and when they were asserted last.
    present: HashMap<Arc<str>, (Option<Order>, i64)>,
    sources: BTreeMap<(String, Source), OfSource>,
    tick: Option<i64>,
}

impl Truncate {
    /// What becomes of a source's events.
    fn fate(&self, partition: &str, source: &Source) -> Fate {
        let is_crawled = self.crawled.iter().any(|(of, crawled)| of == partition && crawled == source);
        match is_crawled {
            true => Fate::CrawledAgain,
            false if self.lost.contains(source) => Fate::Lost,
            false => Fate::Kept,
        }
    }

    /// Whether an event is published again. Of TICKs the last is.
    pub(super) fn keeps(&self, sighting: &Sighting, tick: Option<i64>) -> bool {
        match sighting.action {
            Action::Tick => tick.is_none_or(|last| sighting.event_time >= last),
            _ => self.fate(&sighting.partition, &sighting.source) == Fate::Kept,
        }
    }

    /// Finds out what a truncation would do; changes nothing. `told` hears how many events were read, of how many.
    pub async fn plan(&self, mut told: impl FnMut(u64, u64)) -> Result<Plan, TruncateError> {
        let operations = Operations::read(&*self.log).await?;
        let is_ours = |of: &&Operation| of.action == TRUNCATE && of.tenant.as_deref() == Some(&*self.tenant);
        let mut interrupted = operations.unfinished().find(is_ours).cloned();
        if let Some(Operation { reason, .. }) = &interrupted
            && *reason != self.what_goes()
        {
            return Err(TruncateError::Other {
                tenant: self.tenant.clone(),
                interrupted: reason.clone(),
                wanted: self.what_goes(),
            });
        }
        if let Some(known) = interrupted.take_if(|of| operations.is_done(&kept_id(of))) {
            // Views and log may be emptied already, and tell nothing more; and nothing more need be known.
            return Ok(Plan { interrupted: Some(known), ..Plan::default() });
        }
        let mut stored = self.views.stored(&self.tenant).await?;
        let rules = stored.rules().await?.unwrap_or_default();
        let frontiers = stored.resume().await?.frontiers;
        let mut before = Before::default();
        each_piece(&mut stored, |piece| {
            before.devices.extend(piece.devices.new.iter().filter_map(|row| row.uid.parse::<Uid>().ok()));
            piece.evidence.new.into_iter().for_each(|row| before.name(row));
            piece.records.new.into_iter().for_each(|row| before.record(self, row));
            let ticks = piece.watermarks.new.iter().filter(|row| row.partition.is_none());
            before.tick = before.tick.max(ticks.map(|row| row.at).max());
        })
        .await?;
        drop(stored);
        // One that was interrupted is finished, whatever is there by now; after one that was finished nothing need be there.
        if !operations.all().iter().any(|of| is_ours(&of) && of.reason == self.what_goes()) {
            self.check(&before)?;
        }
        let ends = frontiers.iter().map(|frontier| {
            let partition =
                Partition { topic: frontier.topic.clone(), log_partition: frontier.log_partition };
            (partition, frontier.events_end())
        });
        let recompute = Recompute {
            tenant: self.tenant.clone(),
            rules,
            workers: self.workers,
            log: self.log.clone(),
            writers: self.writers.clone(),
            clock: self.clock.clone(),
            ends: ends.collect(),
            known_until: None,
            refusals: Default::default(),
        };
        let mut behind = 0;
        for (partition, end) in &recompute.ends {
            let log_end = self.log.offsets(&partition.topic, partition.log_partition).await?.end;
            behind += log_end.saturating_sub(*end);
        }
        let (now, events) = (self.clock.now(), recompute.events().await?);
        let take = |sighting| self.afterwards(&mut before, sighting, now);
        let recomputed = recompute.run(take, |_| true, None, |done| told(done, events)).await?;
        let Before { devices, names, records, sources, tick, .. } = before;
        let mut engine = recomputed.engine;
        let comparing = tokio::task::spawn_blocking(move || {
            let becomes = engine.places(|placed| becomes(&records, &placed))?.0;
            let pins: Vec<Pin> = to_pin(&becomes).filter_map(|uid| pin(uid, names.get(&uid)?)).collect();
            if pins.is_empty() {
                return Ok((pins, becomes));
            }
            let id = Operation { id: "plan".to_owned(), event_time: now, ..Operation::default() };
            let taken = pins.iter().filter_map(|pin| Taken::read(pin.decision(&id), None).ok());
            engine.load(taken.collect())?;
            let becomes = engine.places(|placed| self::becomes(&records, &placed))?.0;
            Ok::<_, EngineError>((pins, becomes))
        });
        let compared = comparing.await.map_err(|error| RecomputeError::Task(error.to_string()))?;
        let (pins, becomes) = compared?;
        let (sources, devices) = (sources.into_values().collect(), devices.len() as u64);
        Ok(Plan { sources, devices, behind, pins, becomes, interrupted, tick })
    }

    fn check(&self, before: &Before) -> Result<(), TruncateError> {
        let known = || list(before.sources.values().map(|of| &of.source));
        let is_there = |source: &Source| before.sources.keys().any(|(_, known)| known == source);
        if let Some(missing) = self.lost.iter().find(|source| !is_there(source)) {
            return Err(TruncateError::NoSource {
                tenant: self.tenant.clone(),
                source_name: missing.to_string(),
                known: known(),
            });
        }
        // A source that nobody knows may be one that is known, by another name: its devices would be there twice over.
        let is_crawled = |source| before.sources.is_empty() || before.sources.contains_key(source);
        if self.lost.is_empty() && !self.crawled.iter().any(is_crawled) {
            return Err(TruncateError::NothingGoes {
                tenant: self.tenant.clone(),
                known: known(),
                crawled: self.what_is_crawled(),
            });
        }
        Ok(())
    }

    /// What there is of an event once the log was truncated and crawled: of what is crawled again the present asserts of
    /// open records, as if they came now and in no fetch.
    fn afterwards(&self, before: &mut Before, mut sighting: Sighting, now: i64) -> Option<Sighting> {
        if sighting.action == Action::Tick {
            return self.keeps(&sighting, before.tick).then_some(sighting);
        }
        let fate = before.of_source(self, &sighting.partition, &sighting.source, |of| {
            of.events += 1;
            of.fate
        });
        match fate {
            Fate::Kept => Some(sighting),
            Fate::Lost => None,
            Fate::CrawledAgain if sighting.action != Action::Assert => None,
            Fate::CrawledAgain => {
                let Sighting { partition, source, native_key, .. } = &sighting;
                let (full, last) = before.present.get(&*format!("{partition}/{source}/{native_key}"))?;
                if full.is_some_and(|full| sighting.order < full) {
                    return None;
                }
                // A crawl says at once what several asserts said one after the other.
                (sighting.event_time, sighting.intake_time, sighting.fetch) = (*last, now, None);
                Some(sighting)
            }
        }
    }
}

impl Before {
    fn name(&mut self, row: EvidenceRow) {
        if let Some(uid) = row.claim_uid.map(Uid).filter(|uid| self.devices.contains(uid))
            && !OURS.contains(&&*row.namespace)
        {
            self.names.entry(uid).or_insert(row);
        }
    }

    fn record(&mut self, of: &Truncate, row: RecordRow) {
        if let Some((partition, source, _)) = RecordRow::split(&row.record_key) {
            let fate = self.of_source(of, partition, &source, |of| {
                of.records += 1;
                of.open += u64::from(row.open);
                of.fate
            });
            if fate == Fate::CrawledAgain && row.open {
                let (full, last) = (row.last_full.map(|(order, _)| order), row.last_assert.map(|(_, at)| at));
                self.present.insert(row.record_key.clone(), (full, last.unwrap_or_default()));
            }
        }
        self.records.insert(row.record_key, row.uid);
    }

    fn of_source<T>(
        &mut self,
        of: &Truncate,
        partition: &str,
        source: &Source,
        note: impl FnOnce(&mut OfSource) -> T,
    ) -> T {
        let entry = self.sources.entry((partition.to_owned(), source.clone()));
        note(entry.or_insert_with(|| OfSource {
            source: format!("{partition}/{source}"),
            fate: of.fate(partition, source),
            records: 0,
            open: 0,
            events: 0,
        }))
    }
}

/// What becomes of devices, by where their records were and where they are.
fn becomes(before: &BTreeMap<Arc<str>, Option<Uid>>, after: &[Placed]) -> Vec<Becomes> {
    let mut placements = Placements::default();
    for placed in after {
        placements.note(before.get(&placed.record_key).copied().flatten(), placed.uid);
    }
    let is_gone = |key: &Arc<str>| after.binary_search_by(|placed| placed.record_key.cmp(key)).is_err();
    before.iter().filter(|(key, _)| is_gone(key)).for_each(|(_, uid)| placements.note(*uid, None));
    placements.becomes()
}

/// The devices that a pin lets keep their uid: those that would be the same under another, and those that would come apart
/// into others.
fn to_pin(becomes: &[Becomes]) -> impl Iterator<Item = Uid> {
    becomes.iter().filter_map(|becomes| match becomes {
        Becomes::Renamed { uid, .. } => Some(*uid),
        Becomes::Split { uid, into } if !into.contains(uid) => Some(*uid),
        _ => None,
    })
}

fn pin(uid: Uid, name: &EvidenceRow) -> Option<Pin> {
    let (partition, ..) = RecordRow::split(&name.record_key)?;
    let claim = Claim { namespace: (&*name.namespace).into(), value: (&*name.value).into() };
    Some(Pin { uid, partition: partition.to_owned(), claim })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_pinned_where_its_uid_would_go_though_its_records_stay() {
        let uid = |n: u128| format!("sr:00000000-0000-0000-0000-{n:012}").parse::<Uid>().unwrap();
        let becomes = [
            Becomes::Merged { uids: vec![uid(1), uid(2)], into: uid(1) },
            Becomes::Split { uid: uid(3), into: vec![uid(3), uid(4)] },
            Becomes::Split { uid: uid(5), into: vec![uid(6), uid(7)] },
            Becomes::Renamed { uid: uid(8), into: uid(9) },
            Becomes::Vanished { uid: uid(10) },
            Becomes::Appeared { uid: uid(11) },
        ];
        assert_eq!(to_pin(&becomes).collect::<Vec<_>>(), [uid(5), uid(8)]);
    }
}
