//! The dataflow of one worker: fold and identity are timely operators of our own between differential
//! collections, counts are differential's. The one file that knows timely and differential.
//!
//! ```text
//! events ─▶ fold ─▶ records, effects ─▶ identity ─▶ counted devices ─▶ count
//!             └──────── rows ──────────────┴──────────── rows ──────────┴──▶ EpochOutput
//! ```
//! Times are epochs; each operator waits until its epoch is complete, so that what an epoch changes is
//! a function of the set of its events, however they were batched.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use differential_dataflow::{AsCollection, operators::CountTotal};
use fail::fail_point;
use hashbrown::HashMap;
use timely::{
    dataflow::{
        InputHandle, ProbeHandle, Stream,
        channels::pact::Pipeline,
        operators::{Capability, Inspect, Probe, core::Map as _, generic::Operator},
    },
    worker::Worker,
};

use crate::{
    decisions::Scoped,
    describe::{CountChange, CountItem, Counted, Describer},
    dictionary::{Dictionary, RecordId, ScopeId},
    exclusive::{Exclusive, ExclusiveCount},
    fold::{Fold, RecordChange},
    identity::Identity,
    issues::Issues,
    normalise::Sighting,
    record::Record,
    resolve::{Placed, Redirect},
    restore::Piece,
    rows::{CountRow, EpochOutput, IssueRow, State},
    rules::Rules,
    snapshots::{Snapshots, Undecided},
};

/// An event, ready for the dataflow.
#[derive(Clone)]
pub enum Event {
    /// A normalised observation.
    Sighting(Box<Sighting>),
    /// What a decision does, that came (+1) or went (-1).
    Effect(Box<Scoped>, isize),
    /// Nothing: an epoch in which the restored state alone settles.
    Nothing,
}

/// What the fold tells identity.
#[derive(Clone)]
enum Folded {
    Record(Arc<Record>),
    Effect(Box<Scoped>),
    /// Nothing: the epoch closes all the same.
    Nothing,
}

/// Devices, and of them those that answered, did not, and were not asked.
type Tally = (isize, (isize, (isize, isize)));

/// What is counted of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeGauges {
    /// Devices, as `device_counts` has them.
    pub devices: u64,
    /// Of them, those that are retired.
    pub retired: u64,
    /// Exclusive claims, and who holds them.
    pub exclusive: ExclusiveCount,
}

/// What one worker knows after an epoch, besides rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Records ever seen.
    pub records: u64,
    /// Blocks decided since the start.
    pub blocks_decided: u64,
    /// Nodes of the biggest core or block.
    pub biggest_block: u64,
    /// By partition. Of an epoch that tells no rows, devices are those that were told before.
    pub scopes: BTreeMap<Arc<str>, ScopeGauges>,
}

/// What an epoch left to be collected.
#[derive(Default)]
pub struct Closing {
    /// Rows.
    pub output: EpochOutput,
    /// Fetches that wait for a verdict.
    pub undecided: Vec<Undecided>,
    /// The tenant's last TICK.
    pub tick: Option<i64>,
    /// Sizes.
    pub gauges: Gauges,
    /// Whether rows of devices, records and evidence are not told now.
    is_quiet: bool,
    tallies: BTreeMap<Counted, (Option<Tally>, Option<Tally>)>,
}

/// Where events come in, each (event, epoch, 1).
type Input = InputHandle<u64, timely::container::CapacityContainerBuilder<Vec<(Event, u64, isize)>>>;

/// The dataflow of one worker, and its handles.
pub struct Dataflow {
    input: Input,
    probe: ProbeHandle<u64>,
    dictionary: Rc<RefCell<Dictionary>>,
    fold: Rc<RefCell<Folding>>,
    identity: Rc<RefCell<Identifying>>,
    closing: Rc<RefCell<Closing>>,
    /// Devices by partition, and of them those that are retired.
    devices: BTreeMap<Arc<str>, (u64, u64)>,
    /// Of the state that is read back: what comes after the records.
    rest: State,
}

/// The state of the operator `fold`.
struct Folding {
    fold: Fold,
    snapshots: Snapshots,
}

/// The state of the operator `identity`.
struct Identifying {
    identity: Identity,
    describer: Describer,
    issues: Issues,
    exclusive: Exclusive,
}

impl Dataflow {
    /// Builds the dataflow in a worker.
    pub fn build(worker: &mut Worker, tenant: &str, rules: &Arc<Rules>) -> Self {
        let dictionary = Rc::new(RefCell::new(Dictionary::new(tenant)));
        let folding = Rc::new(RefCell::new(Folding {
            fold: Fold::new(dictionary.clone(), rules.clone()),
            snapshots: Snapshots::new(dictionary.clone()),
        }));
        let closing = Rc::new(RefCell::new(Closing::default()));
        let identifying = Rc::new(RefCell::new(Identifying {
            identity: Identity::new(dictionary.clone(), rules),
            describer: Describer::new(dictionary.clone(), rules.clone()),
            issues: Issues::new(dictionary.clone()),
            exclusive: Exclusive::new(dictionary.clone()),
        }));
        let mut input = InputHandle::new();
        let probe = ProbeHandle::new();
        worker.dataflow(|scope| {
            let events = input.to_stream(scope);
            let (fold, closes) = (folding.clone(), closing.clone());
            let folded = per_epoch(events, "fold", FoldStep { fold, closing: closes, effects: Vec::new() });
            let step = IdentityStep {
                dictionary: dictionary.clone(),
                folding: folding.clone(),
                identifying: identifying.clone(),
                closing: closing.clone(),
                folded: Vec::new(),
            };
            let counted = per_epoch(folded, "identity", step);
            let tallies = tally(counted).as_collection().count_total();
            let sink = closing.clone();
            tallies
                .inner
                .inspect(move |((key, tally), _, diff)| {
                    let mut closing = sink.borrow_mut();
                    let entry = closing.tallies.entry(*key).or_default();
                    if *diff < 0 { entry.0 = Some(*tally) } else { entry.1 = Some(*tally) }
                })
                .probe_with(&probe);
        });
        Self {
            input,
            probe,
            dictionary,
            fold: folding,
            identity: identifying,
            closing,
            devices: BTreeMap::new(),
            rest: State::default(),
        }
    }

    /// Takes in a piece of the state that was read from the views. Call before the first epoch, and then `restored`.
    pub fn restore(&mut self, piece: Piece) -> Result<(), String> {
        let rest = &piece.state;
        self.rest.snapshots.extend_from_slice(&rest.snapshots);
        self.rest.snapshot_members.extend_from_slice(&rest.snapshot_members);
        let mut folding = self.fold.borrow_mut();
        for row in &rest.watermarks {
            folding.fold.restore_watermark(row);
        }
        folding.fold.restore(piece)
    }

    /// All pieces of the state are taken in.
    pub fn restored(&mut self) {
        let Folding { fold, snapshots } = &mut *self.fold.borrow_mut();
        fold.restored();
        let State { snapshots: rows, snapshot_members: members, .. } = std::mem::take(&mut self.rest);
        snapshots.restore(&rows, &members, fold.facts());
    }

    /// Takes events of the epoch that is open.
    pub fn feed(&mut self, worker: &mut Worker, events: Vec<Event>) {
        let time = *self.input.time();
        for event in events {
            self.input.send((event, time, 1));
        }
        self.input.flush();
        worker.step();
    }

    /// Runs the epoch that is open to its end. A quiet one tells no rows of devices, records and evidence: `rows`
    /// does, or remembers them; it must be called before an epoch that is not quiet.
    pub fn epoch(&mut self, worker: &mut Worker, events: Vec<Event>, is_quiet: bool) -> Closing {
        self.closing.borrow_mut().is_quiet = is_quiet;
        let time = *self.input.time();
        self.input.send((Event::Nothing, time, 1));
        for event in events {
            self.input.send((event, time, 1));
        }
        self.input.advance_to(time + 1);
        let (probe, next) = (&self.probe, time + 1);
        worker.step_while(|| probe.less_than(&next));
        let mut closing = self.closing.take();
        closing.output.counts = Default::default();
        let dictionary = self.dictionary.borrow();
        for (key, (before, after)) in std::mem::take(&mut closing.tallies) {
            let row = |tally: Tally| count_row(key, tally, &dictionary);
            let (before, after) = (before.map(row), after.map(row));
            if let Some(row) = after.as_ref().or(before.as_ref()) {
                let now = after.as_ref().map_or(0, |row| row.devices.unsigned_abs());
                note_devices(&mut self.devices, row, now);
            }
            match (before, after) {
                (None, Some(row)) => closing.output.counts.new.push(row),
                (Some(old), Some(row)) if old != row => {
                    closing.output.counts.changed.push(row);
                }
                (Some(old), None) => {
                    closing.output.counts.gone.push((old.partition, old.dimension, old.value));
                }
                _ => {}
            }
        }
        for (partition, (devices, retired)) in &self.devices {
            let of = closing.gauges.scopes.entry(partition.clone()).or_default();
            (of.devices, of.retired) = (*devices, *retired);
        }
        closing
    }

    /// All issues there are.
    pub fn issues(&self) -> Vec<IssueRow> {
        self.identity.borrow().issues.all()
    }

    /// Where all records are, in no particular order.
    pub fn placed(&self) -> Vec<Placed> {
        let folding = self.fold.borrow();
        let (dictionary, placer) = (self.dictionary.borrow(), &self.identity.borrow().identity.placer);
        let placed = |record: RecordId| {
            let at = placer.placed(record);
            let uid = at.device.and_then(|device| placer.uid(device));
            Placed { record_key: Arc::<str>::from(dictionary.key(record)), placement: at.placement, uid }
        };
        folding.fold.facts().records().map(|record| placed(record.id)).collect()
    }

    /// Where claims and addresses lead: from uid to uid, sorted.
    pub fn redirects(&self) -> Vec<Redirect> {
        let folding = self.fold.borrow();
        let identity = &self.identity.borrow().identity;
        identity.placer.redirects(&identity.context(folding.fold.facts()))
    }

    /// Tells all rows of devices, records and evidence, or remembers them: see `Describer::rows`.
    pub fn rows(&self, tell: Option<&mut dyn FnMut(EpochOutput) -> bool>) {
        let folding = self.fold.borrow();
        let Identifying { identity, describer, .. } = &mut *self.identity.borrow_mut();
        describer.rows(identity, folding.fold.facts(), tell);
    }
}

/// What an operator does with its input, which comes in pieces, and at the end of an epoch.
trait Step {
    type Input: Clone + 'static;
    type Output: Clone + 'static;
    /// Takes in something that comes (+1) or goes (-1).
    fn take(&mut self, item: Self::Input, diff: isize);
    /// Closes the epoch.
    fn close(&mut self) -> Vec<(Self::Output, isize)>;
}

/// An operator that tells what an epoch changes once it is complete. One epoch is open at a time.
fn per_epoch<'scope, S: Step + 'static>(
    stream: Stream<'scope, u64, Vec<(S::Input, u64, isize)>>,
    name: &str,
    mut step: S,
) -> Stream<'scope, u64, Vec<(S::Output, u64, isize)>> {
    stream.unary_frontier(Pipeline, name, move |_, _| {
        let mut open: Option<Capability<u64>> = None;
        move |(input, frontier), output| {
            input.for_each_stamp(|stamp, data| {
                if let Some(capability) = stamp.retain_least(output.output_index()) {
                    open.get_or_insert(capability);
                }
                for (item, _, diff) in data.flat_map(|data| data.drain(..)) {
                    step.take(item, diff);
                }
            });
            if let Some(capability) = open.take_if(|open| !frontier.frontier().less_equal(open.time())) {
                let time = *capability.time();
                let results = step.close().into_iter().map(|(item, diff)| (item, time, diff));
                output.session(&capability).give_iterator(results);
            }
        }
    })
}

/// Folds events as they come.
struct FoldStep {
    fold: Rc<RefCell<Folding>>,
    closing: Rc<RefCell<Closing>>,
    effects: Vec<(Scoped, isize)>,
}

impl Step for FoldStep {
    type Input = Event;
    type Output = Folded;

    fn take(&mut self, event: Event, _: isize) {
        match event {
            Event::Nothing => {}
            Event::Effect(effect, diff) => self.effects.push((*effect, diff)),
            Event::Sighting(sighting) => {
                let Folding { fold, snapshots } = &mut *self.fold.borrow_mut();
                let record = fold.take(&sighting);
                snapshots
                    .take(&sighting, record.and_then(|id| fold.facts().record(id)).map(|record| &**record));
            }
        }
    }

    fn close(&mut self) -> Vec<(Folded, isize)> {
        fail_point!("in-fold");
        let Folding { fold, snapshots } = &mut *self.fold.borrow_mut();
        let effects = std::mem::take(&mut self.effects);
        for (effect, diff) in &effects {
            fold.decide(effect, *diff);
            snapshots.decide(effect, *diff);
        }
        let records = fold.settle();
        let (rows, members) = snapshots.settle();
        let mut closing = self.closing.borrow_mut();
        closing.output.snapshots = rows;
        closing.output.snapshot_members = members;
        for (row, is_new) in fold.moved() {
            if is_new {
                closing.output.watermarks.new.push(row);
            } else {
                closing.output.watermarks.changed.push(row);
            }
        }
        closing.undecided = snapshots.undecided(fold);
        closing.tick = fold.tick();
        let mut out = Vec::with_capacity(records.len() * 2 + effects.len());
        for (before, after) in records {
            out.extend(before.map(|before| (Folded::Record(before), -1)));
            out.push((Folded::Record(after), 1));
        }
        out.extend(effects.into_iter().map(|(effect, diff)| (Folded::Effect(Box::new(effect)), diff)));
        out.push((Folded::Nothing, 1));
        out
    }
}

/// Judges, joins, places and describes what an epoch changed.
struct IdentityStep {
    dictionary: Rc<RefCell<Dictionary>>,
    folding: Rc<RefCell<Folding>>,
    identifying: Rc<RefCell<Identifying>>,
    closing: Rc<RefCell<Closing>>,
    folded: Vec<(Folded, isize)>,
}

impl Step for IdentityStep {
    type Input = Folded;
    type Output = CountItem;

    fn take(&mut self, item: Folded, diff: isize) {
        self.folded.push((item, diff));
    }

    fn close(&mut self) -> Vec<CountChange> {
        let (changes, effects) = paired(std::mem::take(&mut self.folded));
        let folding = self.folding.borrow();
        let facts = folding.fold.facts();
        let Identifying { identity, describer, issues, exclusive } = &mut *self.identifying.borrow_mut();
        let changed = identity.step(facts, &changes, &effects);
        let mut closing = self.closing.borrow_mut();
        let counts = if closing.is_quiet {
            describer.keep_quiet(identity, facts, &effects)
        } else {
            describer.describe(identity, facts, &changes, &effects, &changed, &mut closing.output)
        };
        closing.output.issues = issues.settle(identity, facts, &changed, &changes);
        exclusive.settle(identity, facts, &changes, &changed.places.devices);
        let dictionary = self.dictionary.borrow();
        let of_scope = |(scope, exclusive): (&ScopeId, &ExclusiveCount)| {
            let of = ScopeGauges { exclusive: *exclusive, ..ScopeGauges::default() };
            (dictionary.partition(*scope).clone(), of)
        };
        closing.gauges = Gauges {
            scopes: exclusive.counts().iter().map(of_scope).collect(),
            records: dictionary.records() as u64,
            blocks_decided: identity.blocks.decided(),
            biggest_block: identity.biggest() as u64,
        };
        counts
    }
}

/// Puts what came and what went of each record next to each other.
fn paired(folded: Vec<(Folded, isize)>) -> (Vec<RecordChange>, Vec<(Scoped, isize)>) {
    let mut effects = Vec::new();
    let mut gone: HashMap<RecordId, Arc<Record>> = HashMap::new();
    let mut changes = Vec::with_capacity(folded.len());
    for (item, diff) in folded {
        match item {
            Folded::Nothing => {}
            Folded::Effect(effect) => effects.push((*effect, diff)),
            Folded::Record(record) if diff < 0 => {
                gone.insert(record.id, record);
            }
            Folded::Record(record) => changes.push((None, record)),
        }
    }
    for (before, after) in &mut changes {
        *before = gone.remove(&after.id);
    }
    (changes, effects)
}

/// Counted devices as differential counts them: per key, with a tally as the difference.
fn tally<'scope>(
    counted: Stream<'scope, u64, Vec<(CountItem, u64, isize)>>,
) -> Stream<'scope, u64, Vec<(Counted, u64, Tally)>> {
    counted.map(|((key, availability), time, diff)| {
        let one = |is: bool| if is { diff } else { 0 };
        let answered = one(availability == Some(true));
        let silent = one(availability == Some(false));
        (key, time, (diff, (answered, (silent, one(availability.is_none())))))
    })
}

/// Notes how many devices a scope has by a row that says so.
fn note_devices(devices: &mut BTreeMap<Arc<str>, (u64, u64)>, row: &CountRow, now: u64) {
    match (row.dimension, &*row.value) {
        ("all", _) => devices.entry(row.partition.clone()).or_default().0 = now,
        ("state", "retired") => devices.entry(row.partition.clone()).or_default().1 = now,
        _ => {}
    }
}

fn count_row(key: Counted, tally: Tally, dictionary: &Dictionary) -> CountRow {
    let (devices, (available, (unavailable, unknown))) = tally;
    let dimension = crate::describe::dimension(dictionary.text_of(key.1));
    CountRow {
        partition: dictionary.text_of(key.0).clone(),
        dimension,
        value: dictionary.text_of(key.2).clone(),
        devices: devices as i64,
        available: available as i64,
        unavailable: unavailable as i64,
        unknown: unknown as i64,
    }
}
