//! How worlds are drawn: what is usual often, and what is at an edge often enough.

use std::{
    fmt,
    ops::{Deref, Range},
};

use proptest::{collection::vec, prelude::*, sample::select};
use serviceradar_schemas::time::{DAY, HOUR, MINUTE, SECOND};

use super::{ADDRESSES, ATTRIBUTES, Assert, CLAIMS, Deed, Ruling, STEPS_MAX, Step, World, shapes::shape};

/// The windows and leases of the rules, at whose ends something changes.
const WINDOWS: [i64; 7] = [15 * MINUTE, HOUR, 6 * HOUR, DAY, 72 * HOUR, 7 * DAY, 30 * DAY];
/// Places in `CLAIMS`: MACs that meet often, serials, and all of tier 1.
const MACS: Range<u8> = 0..4;
const SERIALS: Range<u8> = 11..16;
const TIER_1: Range<u8> = 11..27;
/// An event time this late is before the year 2000: a clock that was never set.
const NEVER_SET: i64 = 30 * 365 * DAY;

/// Random worlds: of steps alone, and of shapes with some steps between them.
pub fn worlds() -> impl Strategy<Value = World> {
    let shaped = vec(prop_oneof![2 => shape(), 1 => vec(step(), 1..8)], 1..=3);
    let steps = prop_oneof![
        3 => vec(step(), 1..=STEPS_MAX),
        1 => shaped.prop_map(|parts| parts.concat()),
    ];
    (steps, prop::bool::weighted(0.25)).prop_map(|(steps, small_caps)| World::of(steps, small_caps))
}

/// Where each event of a world goes when it is put in another order.
pub fn orders() -> impl Strategy<Value = OneLine<u16>> {
    vec(any::<u16>(), STEPS_MAX).prop_map(OneLine)
}

/// A list that a failing law shows on one line.
#[derive(Clone)]
pub struct OneLine<T>(pub Vec<T>);

impl<T: fmt::Debug> fmt::Debug for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl<T> Deref for OneLine<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let (cut, elsewhere) = (prop::bool::weighted(0.3), prop::bool::weighted(0.1));
    (after(), late(), cut, elsewhere, deed()).prop_map(|(after, late, cut, elsewhere, deed)| Step {
        after,
        late,
        cut,
        elsewhere,
        deed,
    })
}

/// At the end of a window, a moment before it, or a minute: watermarks are whole minutes.
pub(super) fn edge() -> impl Strategy<Value = i64> {
    (select(&WINDOWS[..]), select(&[0, 1, MINUTE][..])).prop_map(|(window, less)| window - less)
}

fn after() -> impl Strategy<Value = i64> {
    let soon = select(&[0, SECOND, MINUTE][..]);
    prop_oneof![6 => soon, 1 => edge()]
}

fn late() -> impl Strategy<Value = i64> {
    let ahead = select(&[-4 * MINUTE, -5 * MINUTE, -10 * MINUTE][..]);
    prop_oneof![
        30 => Just(0),
        4 => select(&[1, MINUTE][..]),
        6 => edge(),
        2 => ahead,
        1 => Just(NEVER_SET),
    ]
}

/// Few sources say most, so that they speak of each other's machines, and again of their own.
fn source() -> impl Strategy<Value = u8> {
    select(&[0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3, 4, 4, 5, 6, 7, 7][..])
}

fn key() -> impl Strategy<Value = u8> {
    select(&[0, 0, 0, 1, 1, 2, 3][..])
}

fn deed() -> impl Strategy<Value = Deed> {
    let finish = (source(), 0..3u8, select(&[0, 0, 1][..])).prop_map(|(source, fetch, more)| Deed::Finish {
        source,
        fetch,
        more,
    });
    let end = (source(), key()).prop_map(|(source, key)| Deed::End { source, key });
    let decide =
        (rulings(), prop::bool::weighted(0.25)).prop_map(|(ruling, revoke)| Deed::Decide { ruling, revoke });
    prop_oneof![
        1 => Just(Deed::Tick),
        1 => (0..8u8).prop_map(|ago| Deed::Again { ago }),
        16 => assert().prop_map(Deed::Assert),
        1 => end,
        1 => source().prop_map(|source| Deed::Begin { source }),
        1 => finish,
        4 => decide,
    ]
}

fn assert() -> impl Strategy<Value = Assert> {
    let who = (source(), key(), prop::bool::weighted(0.6), claims());
    let what = (
        vec(0..ADDRESSES.len() as u8, 0..3),
        vec((0..ATTRIBUTES, 0..3u8), 0..3),
        prop_oneof![4 => Just(0u8), 1 => 1..3u8],
        prop::option::weighted(0.3, 0..3u8),
        prop::bool::weighted(0.05),
    );
    (who, what).prop_map(|((source, key, full, claims), (addresses, values, probe, fetch, twin))| Assert {
        source,
        key,
        full,
        claims,
        addresses,
        values,
        probe,
        fetch,
        twin,
    })
}

/// Some of what a machine has; MACs alone; anything; or a pasted list of serials.
fn claims() -> impl Strategy<Value = Vec<u8>> {
    let of_a_machine = (0..4u8, vec(0..8usize, 0..4)).prop_map(|(machine, which)| {
        let has = of_machine(machine);
        which.into_iter().map(|place| has[place]).collect()
    });
    let pasted = prop::sample::subsequence(SERIALS.collect::<Vec<u8>>(), 2..=5);
    prop_oneof![
        8 => vec(MACS, 1..4),
        8 => of_a_machine,
        2 => vec(0..CLAIMS.len() as u8, 0..3),
        1 => (pasted, vec(0..CLAIMS.len() as u8, 0..2)).prop_map(|(pasted, more)| [pasted, more].concat()),
    ]
}

/// Two MACs of its own, one that the next machine has too, a dock, a serial, a hardware UUID that two
/// share, a local MAC and a host name.
fn of_machine(machine: u8) -> [u8; 8] {
    let own = 2 * machine;
    let shared = (own + 2) % 8;
    let (half, parity) = (machine / 2, machine % 2);
    [own, own + 1, shared, 8, SERIALS.start + machine, 16 + half, 9 + parity, 27 + half]
}

/// What decisions say.
pub fn rulings() -> impl Strategy<Value = Ruling> {
    // Mostly of a few, so that decisions meet what they are about, and each other.
    let claim = || prop_oneof![3 => select(&[0, 1, 8, 9, 11, 12, 22][..]), 1 => 0..CLAIMS.len() as u8];
    let fetch = || (source(), 0..3u8);
    let detach = (source(), key(), prop::bool::weighted(0.1));
    let linked = (TIER_1, prop_oneof![9 => TIER_1, 1 => claim()]);
    prop_oneof![
        2 => claim().prop_map(Ruling::Block),
        3 => claim().prop_map(Ruling::Allow),
        2 => linked.prop_map(|(a, b)| Ruling::Link(a, b)),
        2 => detach.prop_map(|(source, key, stray)| Ruling::Detach { source, key, stray }),
        1 => claim().prop_map(Ruling::PinUid),
        2 => (claim(), 0..2u8, 0..3u8).prop_map(|(of, attribute, value)| Ruling::PinValue(of, attribute, value)),
        2 => fetch().prop_map(|(source, fetch)| Ruling::Accept { source, fetch }),
        1 => fetch().prop_map(|(source, fetch)| Ruling::Hold { source, fetch }),
    ]
}
