//! Worlds: small random logs that bring the rules of identity to their edges.
//!
//! A world is a list of steps, each told in small numbers, so that a failing one shrinks to what
//! matters and can be kept as a test. Few sources speak of few machines, with whatever makes that
//! hard: MACs that machines share, pasted serials, late and repeated events, equal times, fetches
//! and their verdicts, decisions of every kind, and times at the very end of each window.

mod shapes;
mod strategy;

use std::{collections::BTreeMap, fmt, ops::Range};

use serviceradar_schemas::{
    Action, Address, Claim, Collector, Coverage, Decision, Observation, Probe, Snapshot, Source, Target,
    time::DAY,
};

pub use strategy::{OneLine, orders, rulings, worlds};

/// Most steps of a world without a shape: enough for three sources to meet, few enough to read.
pub const STEPS_MAX: usize = 32;
/// When worlds begin: 2026-03-01, microseconds.
pub const BEGINNING: i64 = 1_772_323_200_000_000;
const YEAR: i64 = 365 * DAY;
/// Kind and instance of the sources.
pub const SOURCES: [(&str, &str); 8] = [
    ("armis", "hq"),
    ("mapper", "m1"),
    ("armis", "b"),
    ("netbox", "x"),
    ("sweep", "s1"),
    ("agent", "a1"),
    ("integration", "i1"),
    ("mapper", "m2"),
];
/// The partitions; most happens in the first.
pub const PARTITIONS: [&str; 2] = ["default", "lab"];
/// What records claim. `strategy` knows the places.
pub const CLAIMS: [(&str, &str); 34] = [
    ("mac", "00:1b:21:00:00:00"),
    ("mac", "00:1b:21:00:00:01"),
    ("mac", "00:1b:21:00:00:02"),
    ("mac", "00:1b:21:00:00:03"),
    ("mac", "00:1b:21:00:00:04"),
    ("mac", "00:1b:21:00:00:05"),
    ("mac", "00:1b:21:00:00:06"),
    ("mac", "00:1b:21:00:00:07"),
    ("mac", "00:1b:21:00:00:dc"),
    ("mac", "02:42:ac:00:00:01"),
    ("mac", "02:42:ac:00:00:02"),
    ("serial", "acme:s-1"),
    ("serial", "acme:s-2"),
    ("serial", "acme:s-3"),
    ("serial", "acme:s-4"),
    ("serial", "acme:s-5"),
    ("hwuuid", "4c4c4544-0001"),
    ("hwuuid", "4c4c4544-0002"),
    ("cloud", "i-1"),
    ("cloud", "i-2"),
    ("agent", "1"),
    ("agent", "2"),
    ("armis/hq", "1"),
    ("armis/hq", "2"),
    ("netbox/x", "1"),
    ("integration/i1", "1"),
    ("integration/i2", "1"),
    ("hostname", "host-1"),
    ("hostname", "Host-2."),
    ("mac", "001B.2100.0000"),
    ("serial", " ACME : s-1 "),
    ("asset", "tag 7"),
    ("mac", "ff:ff:ff:ff:ff:ff"),
    ("detached", "default/mapper/m1/1"),
];
/// Places beyond that list: as many MACs and serials as chains and hubs need.
pub const MANY_MACS: Range<u8> = 64..128;
/// See `MANY_MACS`.
pub const MANY_SERIALS: Range<u8> = 128..192;
/// Where records are; the last two in subnets with leases of their own, one written in two ways.
pub const ADDRESSES: [&str; 6] =
    ["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1/24", "2001:db8::1", "10.8.0.1", "10.9.0.1"];
/// Attributes that steps set.
pub const ATTRIBUTES: u8 = 6;

/// One thing that happens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// How long after the step before the log takes it in, microseconds.
    pub after: i64,
    /// How far its own time is behind that of the log, microseconds; ahead, if negative.
    pub late: i64,
    /// Whether a new epoch begins with it.
    pub cut: bool,
    /// Whether in the second partition.
    pub elsewhere: bool,
    /// What.
    pub deed: Deed,
}

/// What happens. Numbers are places in the lists above, taken around.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub enum Deed {
    /// Time passes.
    #[default]
    Tick,
    /// A record is asserted.
    Assert(Assert),
    /// A record ends.
    End { source: u8, key: u8 },
    /// A fetch begins.
    Begin { source: u8 },
    /// A fetch ends, and tells by how many too many records it had. Of its source's fetches 0 is the latest.
    Finish { source: u8, fetch: u8, more: i64 },
    /// An event is delivered again; 0 is the latest.
    Again { ago: u8 },
    /// Somebody decides, or takes back such a decision.
    Decide { ruling: Ruling, revoke: bool },
}

/// How a record is asserted.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Assert {
    pub source: u8,
    pub key: u8,
    pub full: bool,
    pub claims: Vec<u8>,
    pub addresses: Vec<u8>,
    /// Attribute and value.
    pub values: Vec<(u8, u8)>,
    /// 0 none, 1 down, 2 up.
    pub probe: u8,
    /// Which of the fetches that its source has begun; 0 is the latest.
    pub fetch: Option<u8>,
    /// With id and times of the record's event before: at equal order both count.
    pub twin: bool,
}

/// What a decision says.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Ruling {
    Block(u8),
    Allow(u8),
    Link(u8, u8),
    /// Source and key; `stray`: of the other partition, which is refused.
    Detach {
        source: u8,
        key: u8,
        stray: bool,
    },
    PinUid(u8),
    /// Claim, attribute and value.
    PinValue(u8, u8, u8),
    Accept {
        source: u8,
        fetch: u8,
    },
    Hold {
        source: u8,
        fetch: u8,
    },
}

/// An event of the log, with its intake time.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "worlds are small, and boxes would be in every match")]
pub enum Event {
    /// An observation.
    Observation(Observation, i64),
    /// A decision.
    Decision(Decision, i64),
}

impl Event {
    /// The partition it belongs to; none of a TICK, which is for all.
    pub fn partition(&self) -> Option<&str> {
        match self {
            Event::Observation(observation, _) => {
                (observation.action != Action::Tick).then_some(&*observation.partition)
            }
            Event::Decision(decision, _) => Some(&decision.partition),
        }
    }
}

/// A log.
#[derive(Clone)]
pub struct World {
    /// What it was made of.
    pub steps: Vec<Step>,
    /// Whether its rules have caps so small that few records pass them.
    pub small_caps: bool,
    /// In the order of the log.
    pub events: Vec<Event>,
}

/// As it can be pasted into a test.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "World::of(vec![")?;
        for step in &self.steps {
            writeln!(f, "    {step:?},")?;
        }
        write!(f, "], {})", self.small_caps)
    }
}

impl World {
    /// The world of some steps.
    pub fn of(steps: Vec<Step>, small_caps: bool) -> Self {
        let mut told = Telling { now: BEGINNING, ..Telling::default() };
        for step in &steps {
            let event = told.event(step);
            told.events.push(event);
        }
        World { steps, small_caps, events: told.events }
    }

    /// The intake time of the last event.
    pub fn now(&self) -> i64 {
        BEGINNING + self.steps.iter().map(|step| step.after).sum::<i64>()
    }
}

/// What is known while a world is told.
#[derive(Default)]
struct Telling {
    now: i64,
    events: Vec<Event>,
    /// Begins by partition and source.
    fetches: BTreeMap<(String, Source), Vec<Snapshot>>,
    /// Native keys that each fetch listed.
    listed: BTreeMap<(String, Source, i64), Vec<String>>,
    /// Id, time and fetch of each record's last event.
    last: BTreeMap<String, (String, i64, Option<Snapshot>)>,
}

impl Telling {
    fn event(&mut self, step: &Step) -> Event {
        self.now += step.after;
        let partition = PARTITIONS[usize::from(step.elsewhere)].to_owned();
        let event_time = self.now - step.late;
        let observation = Observation {
            id: format!("e{:03}", self.events.len()),
            event_time,
            partition: partition.clone(),
            ..Observation::default()
        };
        let observation = match &step.deed {
            Deed::Tick => Observation { action: Action::Tick, source: source(0), ..observation },
            Deed::Assert(assert) => self.assert(assert, observation),
            Deed::End { source: of, key } => Observation {
                action: Action::End,
                source: source(*of),
                native_key: native_key(*of, *key),
                ..observation
            },
            Deed::Begin { source: of } => self.begin(*of, observation),
            Deed::Finish { source: of, fetch, more } => self.finish(*of, *fetch, *more, observation),
            Deed::Again { ago } => return self.again(*ago, observation),
            Deed::Decide { ruling, revoke } => {
                let decision = self.decision(ruling, *revoke, partition, event_time);
                return Event::Decision(decision, self.now);
            }
        };
        Event::Observation(observation, self.now)
    }

    fn assert(&mut self, assert: &Assert, observation: Observation) -> Observation {
        let source = source(assert.source);
        let mut observation = Observation {
            native_key: native_key(assert.source, assert.key),
            coverage: if assert.full { Coverage::Full } else { Coverage::Partial },
            claims: assert.claims.iter().map(|place| claim(*place)).collect(),
            addresses: assert.addresses.iter().map(|ip| address(*ip)).collect(),
            probe: [Probe::None, Probe::Down, Probe::Up][usize::from(assert.probe % 3)],
            collector: (assert.probe > 0)
                .then(|| Collector { agent: format!("a{}", assert.key), ..Collector::default() }),
            snapshot: assert.fetch.and_then(|which| self.fetch(&observation.partition, &source, which)),
            source,
            ..observation
        };
        for (attribute, value) in &assert.values {
            set(&mut observation, *attribute, *value);
        }
        let key = observation.record_key();
        if let (true, Some((id, time, fetch))) = (assert.twin, self.last.get(&key).cloned()) {
            (observation.id, observation.event_time, observation.snapshot) = (id, time, fetch);
        }
        let of = (observation.id.clone(), observation.event_time, observation.snapshot.clone());
        self.last.insert(key, of);
        if let Some(snapshot) = &observation.snapshot {
            let of = (observation.partition.clone(), observation.source.clone(), snapshot.begin);
            self.listed.entry(of).or_default().push(observation.native_key.clone());
        }
        observation
    }

    /// An event from before, which comes in later; where its times count only as far as the log's, as
    /// it came in then: otherwise it would say something else. Where there is none, time passes.
    fn again(&self, ago: u8, tick: Observation) -> Event {
        let Some(place) = usize::from(ago).checked_rem(self.events.len()) else {
            return Event::Observation(
                Observation { action: Action::Tick, source: source(0), ..tick },
                self.now,
            );
        };
        let mut event = self.events[self.events.len() - 1 - place].clone();
        let (times, intake) = match &mut event {
            Event::Observation(it, intake) => {
                ([Some(it.event_time), it.snapshot.as_ref().map(|fetch| fetch.begin)], intake)
            }
            Event::Decision(it, intake) => ([Some(it.event_time), it.target.begin], intake),
        };
        if times.into_iter().flatten().all(|time| (BEGINNING - YEAR..=*intake).contains(&time)) {
            *intake = self.now;
        }
        event
    }

    fn begin(&mut self, of: u8, observation: Observation) -> Observation {
        let snapshot =
            Snapshot { id: format!("f{}", self.events.len()), begin: observation.event_time, count: None };
        let fetches = self.fetches.entry((observation.partition.clone(), source(of)));
        fetches.or_default().push(snapshot.clone());
        Observation {
            action: Action::SnapshotBegin,
            source: source(of),
            snapshot: Some(snapshot),
            ..observation
        }
    }

    fn finish(&self, of: u8, which: u8, more: i64, observation: Observation) -> Observation {
        let source = source(of);
        let never_begun = Snapshot { id: "f0".into(), begin: observation.event_time, count: None };
        let snapshot = self.fetch(&observation.partition, &source, which).unwrap_or(never_begun);
        let of = (observation.partition.clone(), source.clone(), snapshot.begin);
        let mut listed = self.listed.get(&of).cloned().unwrap_or_default();
        listed.sort();
        listed.dedup();
        let count = Some(listed.len() as i64 + more);
        Observation {
            action: Action::SnapshotEnd,
            source,
            snapshot: Some(Snapshot { count, ..snapshot }),
            ..observation
        }
    }

    /// One of the fetches that a source has begun.
    fn fetch(&self, partition: &str, source: &Source, which: u8) -> Option<Snapshot> {
        let begun = self.fetches.get(&(partition.to_owned(), source.clone()))?;
        begun.iter().rev().nth(usize::from(which) % begun.len()).cloned()
    }

    fn decision(&self, ruling: &Ruling, revoke: bool, partition: String, at: i64) -> Decision {
        let mut target = Target::default();
        let mut value = None;
        let verdict = |of: u8, fetch: u8, target: &mut Target| {
            let begun = self.fetch(&partition, &source(of), fetch);
            target.begin = Some(begun.map_or(at, |snapshot| snapshot.begin));
            target.source = Some(source(of));
        };
        let action = match ruling {
            Ruling::Block(of) | Ruling::Allow(of) | Ruling::PinUid(of) => {
                target.claim = Some(claim(*of));
                match ruling {
                    Ruling::Block(_) => "block",
                    Ruling::Allow(_) => "allow",
                    _ => "pin_uid",
                }
            }
            Ruling::Link(a, b) => {
                target.claims = Some(vec![claim(*a), claim(*b)]);
                "link"
            }
            Ruling::Detach { source: of, key, stray } => {
                let home = usize::from((partition == PARTITIONS[1]) != *stray);
                let (home, source) = (PARTITIONS[home], source(*of));
                target.record = Some(format!("{home}/{source}/{}", native_key(*of, *key)));
                "detach"
            }
            Ruling::PinValue(of, attribute, pinned) => {
                target.claim = Some(claim(*of));
                target.attribute = Some(["name", "vendor"][usize::from(attribute % 2)].into());
                value = Some(format!("pinned-{pinned}"));
                "pin_value"
            }
            Ruling::Accept { source, fetch } => {
                verdict(*source, *fetch, &mut target);
                "accept_snapshot"
            }
            Ruling::Hold { source, fetch } => {
                verdict(*source, *fetch, &mut target);
                "hold_snapshot"
            }
        };
        Decision {
            id: format!("d{:03}", self.events.len()),
            event_time: at,
            partition,
            action: if revoke { "revoke" } else { action }.into(),
            target,
            value,
            revokes: revoke.then(|| action.into()),
            actor: "ops".into(),
            reason: format!("because of {}", self.events.len()),
        }
    }
}

/// A source by its place.
pub fn source(place: u8) -> Source {
    let (kind, instance) = SOURCES[usize::from(place) % SOURCES.len()];
    Source { kind: kind.into(), instance: instance.into() }
}

/// A claim by its place.
pub fn claim(place: u8) -> Claim {
    if MANY_MACS.contains(&place) {
        return Claim { namespace: "mac".into(), value: format!("00:1b:21:01:00:{place:02x}").into() };
    }
    if MANY_SERIALS.contains(&place) {
        return Claim { namespace: "serial".into(), value: format!("acme:m-{place}").into() };
    }
    let (namespace, value) = CLAIMS[usize::from(place) % CLAIMS.len()];
    Claim { namespace: namespace.into(), value: value.into() }
}

/// An agent's key is what others call it by; a mapper's has slashes in it.
fn native_key(source: u8, key: u8) -> String {
    let key = u16::from(key) + 1;
    match SOURCES[usize::from(source) % SOURCES.len()].0 {
        "mapper" => format!("if/{key}"),
        _ => key.to_string(),
    }
}

fn address(place: u8) -> Address {
    let mac = place.is_multiple_of(2).then(|| CLAIMS[usize::from(place) % 8].1.to_owned());
    Address { ip: ADDRESSES[usize::from(place) % ADDRESSES.len()].into(), mac, interface: None }
}

fn set(observation: &mut Observation, attribute: u8, value: u8) {
    let text = Some(format!("value-{value}"));
    match attribute % ATTRIBUTES {
        0 => observation.name = text,
        1 => observation.vendor = text,
        2 => observation.hostname = text,
        3 => observation.risk_score = Some(i32::from(value) * 40),
        4 => _ = observation.tags.insert("owner".into(), format!("{value}").into()),
        _ => observation.device_type = Some(["Switch", "Laptop"][usize::from(value % 2)].into()),
    }
}
