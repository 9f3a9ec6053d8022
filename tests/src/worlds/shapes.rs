//! Shapes: what random steps seldom come to, told on purpose, with numbers small enough to shrink.

use std::ops::Range;

use proptest::{collection::vec, prelude::*, sample::select};
use serviceradar_schemas::time::{DAY, MINUTE};

use super::{
    Assert, Deed, MANY_MACS, MANY_SERIALS, Ruling, Step,
    strategy::{edge, step},
};

const ARMIS: u8 = 0;
const MAPPER: u8 = 1;
const ARMIS_B: u8 = 2;
const NETBOX: u8 = 3;
const SWEEP: u8 = 4;
const AGENT: u8 = 5;
const MAPPER_2: u8 = 7;
/// Places in `CLAIMS`: an agent, a serial, a hardware UUID and an instance.
const PASTED: [u8; 4] = [20, 11, 16, 18];
const SERIAL: u8 = 11;
/// Sources that share a hub: with ids of their own, without, of all kinds, and one that repeats itself.
const HUBS: [&[u8]; 4] = [&[ARMIS, ARMIS_B], &[MAPPER, MAPPER_2], &[ARMIS, NETBOX, MAPPER, AGENT], &[MAPPER]];
/// Whom decisions are about: most have ids that clash.
const WHO: [u8; 4] = [ARMIS, ARMIS, MAPPER, NETBOX];
const DOCK: u8 = 8;
const LOCAL_MAC: u8 = 9;
/// What is said of a fetch: whether each accepts it, and whether it is a revocation.
const VERDICTS: [&[(bool, bool)]; 7] = [
    &[],
    &[(true, false)],
    &[(true, false)],
    &[(false, false)],
    &[(true, false), (true, true)],
    &[(true, false), (false, false)],
    &[(true, false), (false, false), (false, true)],
];
/// Epochs of a shape, at most: long ones are told in longer epochs.
const EPOCHS_MAX: usize = 12;

/// The steps of one shape.
pub(super) fn shape() -> impl Strategy<Value = Vec<Step>> {
    let shapes = prop_oneof![
        1 => chain(),
        1 => hub(),
        1 => pasted(),
        1 => table_of_others(),
        1 => recreated(),
        1 => corrected(),
        1 => dhcp(),
        1 => fetches(),
        5 => decided(),
        1 => months(),
    ];
    (shapes, 1..=6usize).prop_map(|(mut steps, every)| {
        let every = every.max(steps.len().div_ceil(EPOCHS_MAX));
        for step in steps.iter_mut().step_by(every) {
            step.cut = true;
        }
        steps
    })
}

fn says(source: u8, key: u8, claims: impl IntoIterator<Item = u8>) -> Assert {
    Assert { source, key, full: true, claims: claims.into_iter().collect(), ..Assert::default() }
}

fn told(deed: Deed) -> Step {
    Step { deed, ..Step::default() }
}

fn asserted(assert: Assert) -> Step {
    told(Deed::Assert(assert))
}

fn ended(source: u8, key: u8) -> Step {
    told(Deed::End { source, key })
}

fn after(wait: i64) -> Step {
    Step { after: wait, ..Step::default() }
}

fn decides(ruling: Ruling, revoke: bool) -> Step {
    Step { after: MINUTE, cut: true, ..told(Deed::Decide { ruling, revoke }) }
}

fn either<T: Clone + std::fmt::Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = T> {
    select(of)
}

/// Records each of which shares one claim with the next, told in some order; one of them lets go, and
/// may take hold again. At the ends there may be two that clash.
fn chain() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![1 => 2..30u8, 2 => 30..=34u8];
    let how = (either(&[MANY_MACS.start, MANY_SERIALS.start]), 1..=3u8, any::<bool>(), any::<bool>());
    (length, how, any::<u8>(), any::<bool>()).prop_map(|(length, how, breaks, heals)| {
        let (claims, stride, backwards, clashing) = how;
        let link = |at: u8| {
            let is_end = at == 0 || at + 1 == length;
            let source = if clashing && is_end { ARMIS } else { [MAPPER, MAPPER_2][usize::from(at % 2)] };
            says(source, at, [claims + at, claims + at + 1])
        };
        let by_stride = |first: u8| (first..length).step_by(usize::from(stride));
        let mut order: Vec<u8> = (0..stride).flat_map(by_stride).collect();
        if backwards {
            order.reverse();
        }
        let mut steps: Vec<Step> = order.into_iter().map(|at| asserted(link(at))).collect();
        let loose = link(breaks % length);
        let half = Assert { claims: loose.claims[..1].to_vec(), ..loose.clone() };
        steps.extend([asserted(half), after(30 * DAY + MINUTE)]);
        if heals {
            steps.push(asserted(loose));
        }
        steps
    })
}

/// Many that share one MAC or serial, each with something of its own; some let go of it.
fn hub() -> impl Strategy<Value = Vec<Step>> {
    let sources = either(&HUBS);
    let shared = either(&[MANY_MACS.end - 1, MANY_SERIALS.end - 1]);
    (sources, shared, 3..=40u8, 0..40u8, edge()).prop_map(|(sources, shared, size, leave, wait)| {
        let source = |at: u8| sources[usize::from(at) % sources.len()];
        let joins = |at: u8| asserted(says(source(at), at, [MANY_MACS.start + at, shared]));
        let leaves = |at: u8| asserted(says(source(at), at, [MANY_MACS.start + at]));
        let mut steps: Vec<Step> = (0..size).map(joins).collect();
        steps.extend((0..leave.min(size)).map(leaves));
        steps.push(after(wait));
        steps
    })
}

/// The id of one machine on records of several, some of which end: an agent's on every host that it
/// scanned, a cloned serial.
fn pasted() -> impl Strategy<Value = Vec<Step>> {
    (either(&PASTED), either(&[ARMIS, NETBOX]), 2..=9u8, 0..9u8).prop_map(|(id, source, size, end)| {
        let hosts = (0..size).map(|key| asserted(says(source, key, [id, MANY_MACS.start + key])));
        hosts.chain((0..end.min(size)).map(|key| ended(source, key))).collect()
    })
}

/// An ARP table sent as the MACs of one record, before or after the devices that it lists, and later
/// shorter.
fn table_of_others() -> impl Strategy<Value = Vec<Step>> {
    let how = (either(&[MAPPER, NETBOX, AGENT]), either(&[ARMIS, ARMIS_B, AGENT]), any::<bool>());
    (how, 2..=20u8, 0..3u8).prop_map(|((source, of, first), size, left)| {
        let macs = |size: u8| MANY_MACS.start..MANY_MACS.start + size;
        let table = |size: u8| asserted(says(source, 30, macs(size)));
        let devices = macs(size).map(|mac| asserted(says(of, mac - MANY_MACS.start, [mac])));
        let before = first.then(|| table(size));
        let steps = before.into_iter().chain(devices).chain([table(size), table(left)]);
        steps.collect()
    })
}

/// A record ends, or goes quiet, and what it spoke of is there again under another id of its source.
fn recreated() -> impl Strategy<Value = Vec<Step>> {
    let macs = || prop::sample::subsequence(vec![0u8, 1, 2], 1..=3);
    let how = (either(&[ARMIS, NETBOX, MAPPER]), any::<bool>(), any::<bool>());
    (how, macs(), macs(), edge()).prop_map(|((source, ends, returns), old, new, wait)| {
        let mut steps = vec![asserted(says(source, 0, old.clone()))];
        steps.extend(ends.then(|| ended(source, 0)));
        steps.extend([after(wait), asserted(says(source, 1, new))]);
        steps.extend(returns.then(|| asserted(says(source, 0, old))));
        steps
    })
}

/// A record that says another serial than before, in full or besides, while another may still say the
/// old one.
fn corrected() -> impl Strategy<Value = Vec<Step>> {
    let how = (either(&[ARMIS, NETBOX, AGENT]), any::<bool>(), any::<bool>(), any::<bool>());
    (how, 1..5u8, edge()).prop_map(|((source, full, old_too, new_too), by, wait)| {
        let mut steps = vec![asserted(says(source, 0, [SERIAL, 0]))];
        steps.extend(old_too.then(|| asserted(says(MAPPER, 0, [SERIAL]))));
        steps.extend(new_too.then(|| asserted(says(MAPPER, 1, [SERIAL + by]))));
        steps.push(asserted(Assert { full, ..says(source, 0, [SERIAL + by, 0]) }));
        steps.push(after(wait));
        steps
    })
}

/// Devices that go from address to address, while a sweep sees the addresses alone.
fn dhcp() -> impl Strategy<Value = Vec<Step>> {
    let wait = || prop_oneof![2 => Just(MINUTE), 1 => edge()];
    vec((0..3u8, 0..3u8, wait(), any::<bool>()), 2..10).prop_map(|moves| {
        let of_move = |(device, ip, wait, swept): (u8, u8, i64, bool)| {
            let here = |assert| Assert { addresses: vec![ip], ..assert };
            let moves = Step { after: wait, ..asserted(here(says(ARMIS, device, [device]))) };
            [Some(moves), swept.then(|| asserted(here(says(SWEEP, ip, []))))]
        };
        moves.into_iter().flat_map(of_move).flatten().collect()
    })
}

/// Fetches of one source: what each lists of a few records, how it ends, and what is said of it.
fn fetches() -> impl Strategy<Value = Vec<Step>> {
    let listed = prop::sample::subsequence(vec![0u8, 1, 2, 3], 0..=4);
    let ends = either(&[Some(0), Some(0), Some(1), None]);
    let rounds = vec((listed, ends, either(&VERDICTS), edge()), 1..4);
    (rounds, either(&[ARMIS, MAPPER])).prop_map(|(rounds, source)| {
        let mut steps = Vec::new();
        for (listed, ends, verdicts, wait) in rounds {
            steps.push(Step { after: wait, ..told(Deed::Begin { source }) });
            let member = |key: u8| asserted(Assert { fetch: Some(0), ..says(source, key, [key]) });
            steps.extend(listed.into_iter().map(member));
            steps.extend(ends.map(|more| told(Deed::Finish { source, fetch: 0, more })));
            steps.extend(verdicts.iter().map(|(accepts, revoke)| {
                let ruling = match accepts {
                    true => Ruling::Accept { source, fetch: 0 },
                    false => Ruling::Hold { source, fetch: 0 },
                };
                decides(ruling, *revoke)
            }));
        }
        steps
    })
}

/// A decision about two records that share a claim, or do not, and its revocation.
fn decided() -> impl Strategy<Value = Vec<Step>> {
    let who = (either(&WHO), either(&WHO), any::<bool>());
    let shared = either(&[0, DOCK, LOCAL_MAC, SERIAL]);
    (who, shared, 0..8u8, vec(step(), 0..3), prop::bool::weighted(0.7)).prop_map(
        |((a, b, have_serials), shared, which, under, is_revoked)| {
            let serial = |by: u8| (have_serials || which == 2).then_some(SERIAL + by);
            let mut steps = vec![
                asserted(says(a, 0, [shared, 1].into_iter().chain(serial(1)))),
                asserted(says(b, 1, [shared, 2].into_iter().chain(serial(2)))),
                Step { after: MINUTE, ..told(Deed::Begin { source: a }) },
            ];
            let accept = Ruling::Accept { source: a, fetch: 0 };
            let ruling = match which {
                0 => Ruling::Block(shared),
                1 => Ruling::Allow(shared),
                2 => Ruling::Link(SERIAL + 1, SERIAL + 2),
                3 => Ruling::Detach { source: a, key: 0, stray: false },
                4 => Ruling::PinUid(2),
                5 => Ruling::PinValue(2, 0, 0),
                6 => accept,
                _ => {
                    steps.push(decides(accept, false));
                    Ruling::Hold { source: a, fetch: 0 }
                }
            };
            steps.push(decides(ruling.clone(), false));
            steps.extend(under);
            steps.extend(is_revoked.then(|| decides(ruling, true)));
            steps
        },
    )
}

/// Months that pass by ticks, with little said between them.
fn months() -> impl Strategy<Value = Vec<Step>> {
    const DAYS: Range<i64> = 20..80;
    vec((step(), DAYS), 2..5).prop_map(|months| {
        months.into_iter().flat_map(|(step, days)| [step, Step { cut: true, ..after(days * DAY) }]).collect()
    })
}
