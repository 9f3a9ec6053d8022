//! Fold and steps 1 to 7, as the dataflow runs them; a hub of devices; and silence.

use std::{cell::RefCell, collections::HashSet, rc::Rc, sync::Arc, time::Duration};

use serviceradar_schemas::{Action, Claim, Observation};
use serviceradar_streams::{
    decisions::Effect,
    dictionary::Dictionary,
    engine::{Batch, Engine},
    fold::Fold,
    identity::Identity,
    normalise::{ClaimKey, Sighting, normalise},
    place::Device,
    record::Record,
    rules::Rules,
};

use crate::{
    Figures, Result,
    measure::{Times, cpu, grouped, rate, resident, timed},
    world::{self, BATCH, BEGINNING, RECORDS},
};

/// Batches of changes, and changes of one record.
const BATCHES: usize = 50;
const ONES: usize = 1_000;
/// Records of a hub.
const HUB: usize = 10_000;
/// Records of as many devices as are loaded while nothing happens, and for how many minutes.
const IDLE_RECORDS: usize = 2_000_000;
const IDLE_TICKS: i64 = 20;
const MINUTE: i64 = 60_000_000;

struct Steps {
    fold: Fold,
    identity: Identity,
}

impl Steps {
    fn start() -> Self {
        let dictionary = Rc::new(RefCell::new(Dictionary::new("bench")));
        let rules = Arc::new(Rules::default());
        let fold = Fold::new(dictionary.clone(), rules.clone());
        Self { fold, identity: Identity::new(dictionary, &rules) }
    }

    /// The times of the fold and of the steps.
    fn epoch(&mut self, sightings: &[Sighting]) -> [Duration; 2] {
        let Self { fold, identity } = self;
        let (changes, folding) = timed(|| {
            sightings.iter().for_each(|sighting| _ = fold.take(sighting));
            fold.settle()
        });
        let (_, stepping) = timed(|| identity.step(fold.facts(), &changes, &[]));
        [folding, stepping]
    }

    /// The clusters there are.
    fn devices(&self) -> usize {
        let of = |record: &Arc<Record>| match self.identity.placer.placed(record.id).device? {
            Device::Cluster(cluster) => Some(cluster),
            Device::Address(_) => None,
        };
        self.fold.facts().records().filter_map(of).collect::<HashSet<_>>().len()
    }
}

fn ready(observations: impl Iterator<Item = Observation>) -> Result<Vec<Sighting>> {
    observations.map(|observation| Ok(normalise(observation, None)?)).collect()
}

fn expect_devices(steps: &Steps, devices: usize) -> Result<()> {
    match steps.devices() {
        found if found == devices => Ok(()),
        found => Err(format!("{found} devices, not {devices}").into()),
    }
}

/// Times of all records, at once.
struct Load {
    normalising: Duration,
    folding: Duration,
    stepping: Duration,
}

/// Loads what these records say.
fn load(steps: &mut Steps, observation: impl Fn(usize) -> Observation) -> Result<Load> {
    let (mut normalising, mut folding) = (Duration::ZERO, Duration::ZERO);
    for first in (0..RECORDS).step_by(BATCH) {
        let observations: Vec<_> =
            (first..first + BATCH).map(|at| observation(world::nth_changed(at))).collect();
        let (sightings, time) = timed(|| ready(observations.into_iter()));
        normalising += time;
        let sightings = sightings?;
        folding += timed(|| sightings.iter().for_each(|sighting| _ = steps.fold.take(sighting))).1;
    }
    let (changes, settling) = timed(|| steps.fold.settle());
    let Steps { fold, identity } = &mut *steps;
    let (_, stepping) = timed(|| identity.step(fold.facts(), &changes, &[]));
    expect_devices(steps, RECORDS / 2)?;
    Ok(Load { normalising, folding: folding + settling, stepping })
}

/// Steps 1 to 6: of records that have no addresses, so that step 7 finds nothing to do.
pub(crate) fn steps_to_6() -> Result<Figures> {
    let without = |record| Observation { addresses: Vec::new(), ..world::observation(record, 0) };
    let load = load(&mut Steps::start(), without)?;
    Ok([("load".to_owned(), rate(RECORDS, load.stepping))].into())
}

/// Fold, and steps 1 to 7.
pub(crate) fn steps() -> Result<Figures> {
    let mut figures = Figures::new();
    let mut put = |name: &str, value: String| _ = figures.insert(name.to_owned(), value);
    let before = resident();
    let mut steps = Steps::start();
    let load = load(&mut steps, |record| world::observation(record, 0))?;
    put("normalise", rate(RECORDS, load.normalising));
    put("fold", rate(RECORDS, load.folding));
    put("load", rate(RECORDS, load.stepping));
    let (mut of_steps, mut of_all) = (Times::default(), Times::default());
    for batch in 0..BATCHES {
        let changed =
            (batch * BATCH..(batch + 1) * BATCH).map(|at| world::observation(world::nth_changed(at), 1));
        let [folding, stepping] = steps.epoch(&ready(changed)?);
        of_steps.add(stepping);
        of_all.add(folding + stepping);
    }
    for (of, times) in [("", of_steps), ("with fold: ", of_all)] {
        put(&format!("{of}changes"), rate(BATCHES * BATCH, times.total()));
        put(&format!("{of}batch p99"), format!("{:.1}", times.percentile(99)));
    }
    let mut times = Times::default();
    for at in BATCHES * BATCH..BATCHES * BATCH + ONES {
        let sightings = ready([world::observation(world::nth_changed(at), 1)].into_iter())?;
        times.add(steps.epoch(&sightings).iter().sum());
    }
    put("one p50", format!("{:.1}", times.percentile(50) * 1e3));
    // At the end: until then the allocator keeps what the load needed for a while.
    put("memory", grouped(((resident() - before) / (RECORDS / 2) as f64) as u64));
    expect_devices(&steps, RECORDS / 2)?;
    Ok(figures)
}

/// A claim that 10,000 records of as many devices have: it is generic, until it is allowed.
pub(crate) fn hub() -> Result<Figures> {
    let pasted = Claim { namespace: "hwuuid".into(), value: "pasted".into() };
    let observations = (0..RECORDS / 10).map(|record| {
        let mut observation = world::observation(record, 0);
        // Of devices whose records are one core: of others the second would clash with the hub, and stay away.
        if record % 2 == 0 && record / 2 % 2 == 1 && record / 4 < HUB {
            observation.claims.push(pasted.clone());
        }
        observation
    });
    let mut steps = Steps::start();
    steps.epoch(&ready(observations)?);
    expect_devices(&steps, RECORDS / 20)?;
    let allowed = Effect::Allow(ClaimKey::Text("hwuuid".into(), "pasted".into()));
    let mut decide = |diff: isize, devices: usize| {
        let effects = [(("default".to_owned(), allowed.clone()), diff)];
        let Steps { fold, identity } = &mut steps;
        let time = timed(|| identity.step(fold.facts(), &[], &effects)).1;
        expect_devices(&steps, devices).map(|()| format!("{:.1}", time.as_secs_f64() * 1e3))
    };
    let join = decide(1, RECORDS / 20 - HUB + 1)?;
    let split = decide(-1, RECORDS / 20)?;
    Ok([("join".to_owned(), join), ("split".to_owned(), split)].into())
}

/// The engine with a million devices, all rows told, when nothing comes but a TICK a minute.
pub(crate) fn idle() -> Result<Figures> {
    let before = resident();
    let mut engine = Engine::start("bench", &Arc::new(Rules::default()), 1)?;
    for first in (0..IDLE_RECORDS).step_by(BATCH) {
        engine.feed(ready((first..first + BATCH).map(|record| world::observation(record, 0)))?)?;
    }
    engine.load(Vec::new())?;
    engine.rows(&mut |_| true)?;
    engine.epoch(Batch::default())?;
    let memory = grouped(((resident() - before) / (IDLE_RECORDS / 2) as f64) as u64);
    let tick = |minute: i64| Observation {
        id: format!("tick-{minute}"),
        event_time: BEGINNING + 3_600_000_000 + minute * MINUTE,
        partition: "default".to_owned(),
        source: world::observation(0, 0).source,
        action: Action::Tick,
        ..Observation::default()
    };
    let began = cpu();
    for minute in 0..IDLE_TICKS {
        engine.epoch(Batch { sightings: ready([tick(minute)].into_iter())?, decisions: Vec::new() })?;
    }
    let each = (cpu() - began).as_secs_f64() * 1e3 / IDLE_TICKS as f64;
    Ok([("tick".to_owned(), format!("{each:.2}")), ("memory".to_owned(), memory)].into())
}
