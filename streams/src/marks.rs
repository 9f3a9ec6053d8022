//! Marks of a record: the greatest and least of what was said of it as a whole, and how they are kept.
//!
//! Most records are told by FULL asserts of one source: their last assert is their last FULL one, lists their place, and
//! nothing else is known. So the rest lies apart, where there is any.

use std::net::IpAddr;

use crate::{
    record::{Asserted, Now},
    rows::Order,
};

/// What was said of a record as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Marks {
    /// The last assert.
    pub last_assert: Option<Asserted>,
    /// The last FULL assert.
    pub last_full: Option<Asserted>,
    /// Order of the last END of its own.
    pub last_end: Option<Order>,
    /// Begin of the first fetch that listed it; absent where it was ever asserted outside of one.
    pub first_fetch: Option<i64>,
    /// Whether it was ever asserted outside of a fetch.
    pub seen_outside: bool,
    /// Begin of the last fetch that listed it.
    pub last_fetch: Option<i64>,
    /// The latest verdict on reachability: (event time, up).
    pub probe: Option<(i64, bool)>,
    /// The first address listed by the last assert that lists any.
    pub place: Option<(Order, IpAddr)>,
    /// The END that counts now: what was asserted before it is not current.
    pub end_now: Option<Order>,
    /// Whether the latest verdict on reachability holds now.
    pub probe_holds: bool,
}

/// Marks, as they are kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    last_assert: Asserted,
    first_fetch: i64,
    last_fetch: i64,
    place: Option<IpAddr>,
    seen_outside: bool,
    full: Full,
    pub(crate) now: Now,
    apart: Option<Box<Apart>>,
}

/// Which assert was the last FULL one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Never,
    TheLast,
    Apart,
}

/// What few records have.
#[derive(Clone, Debug, Default, PartialEq)]
struct Apart {
    last_full: Option<Asserted>,
    last_end: Option<Order>,
    end_now: Option<Order>,
    probe: Option<(i64, bool)>,
    probe_holds: bool,
    /// Of the place, where it is not that of the last assert.
    listed: Option<Order>,
}

/// Of what never was.
const NEVER: i64 = i64::MIN;
const NEVER_ASSERTED: Asserted = (Order { time: NEVER, hash: 0 }, NEVER);

fn known<T: PartialEq>(value: T, never: T) -> Option<T> {
    (value != never).then_some(value)
}

impl Default for Kept {
    fn default() -> Self {
        let (last_assert, first_fetch, last_fetch) = (NEVER_ASSERTED, NEVER, NEVER);
        Self {
            last_assert,
            first_fetch,
            last_fetch,
            place: None,
            seen_outside: false,
            full: Full::Never,
            now: Now::default(),
            apart: None,
        }
    }
}

impl Kept {
    pub(crate) fn last_assert(&self) -> Option<Asserted> {
        known(self.last_assert, NEVER_ASSERTED)
    }

    pub(crate) fn last_full(&self) -> Option<Asserted> {
        match self.full {
            Full::Never => None,
            Full::TheLast => Some(self.last_assert),
            Full::Apart => self.apart.as_ref().and_then(|apart| apart.last_full),
        }
    }

    pub(crate) fn end_now(&self) -> Option<Order> {
        self.apart.as_ref().and_then(|apart| apart.end_now)
    }

    pub(crate) fn place(&self) -> Option<IpAddr> {
        self.place
    }

    pub(crate) fn marks(&self) -> Marks {
        let apart = self.apart.as_deref();
        let listed = apart.and_then(|apart| apart.listed).unwrap_or(self.last_assert.0);
        Marks {
            last_assert: self.last_assert(),
            last_full: self.last_full(),
            last_end: apart.and_then(|apart| apart.last_end),
            first_fetch: known(self.first_fetch, NEVER),
            seen_outside: self.seen_outside,
            last_fetch: known(self.last_fetch, NEVER),
            probe: apart.and_then(|apart| apart.probe),
            place: self.place.map(|ip| (listed, ip)),
            end_now: self.end_now(),
            probe_holds: apart.is_some_and(|apart| apart.probe_holds),
        }
    }

    pub(crate) fn of(marks: Marks, now: Now) -> Self {
        let last_assert = marks.last_assert.unwrap_or(NEVER_ASSERTED);
        let full = match marks.last_full {
            None => Full::Never,
            full if full == marks.last_assert => Full::TheLast,
            Some(_) => Full::Apart,
        };
        let apart = Apart {
            last_full: marks.last_full.filter(|_| full == Full::Apart),
            last_end: marks.last_end,
            end_now: marks.end_now,
            probe: marks.probe,
            probe_holds: marks.probe_holds,
            listed: marks.place.map(|(order, _)| order).filter(|order| *order != last_assert.0),
        };
        Self {
            last_assert,
            first_fetch: marks.first_fetch.unwrap_or(NEVER),
            last_fetch: marks.last_fetch.unwrap_or(NEVER),
            place: marks.place.map(|(_, ip)| ip),
            seen_outside: marks.seen_outside,
            full,
            now,
            apart: (apart != Apart::default()).then(|| Box::new(apart)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::{option, prelude::*};

    use super::*;

    prop_compose! {
        fn order()(time in 0i64..3, hash in 0u64..2) -> Order {
            Order { time, hash }
        }
    }

    prop_compose! {
        fn marks()(
            last_assert in option::of((order(), 0i64..2)),
            last_full in option::of((order(), 0i64..2)),
            last_end in option::of(order()),
            first_fetch in option::of(0i64..2),
            seen_outside in any::<bool>(),
            last_fetch in option::of(0i64..2),
            probe in option::of((0i64..2, any::<bool>())),
            place in option::of((order(), any::<bool>().prop_map(|is| IpAddr::V4(Ipv4Addr::new(10, 0, 0, is.into()))))),
            end_now in option::of(order()),
            probe_holds in any::<bool>(),
        ) -> Marks {
            Marks {
                last_assert, last_full, last_end, first_fetch, seen_outside, last_fetch, probe, place, end_now,
                probe_holds,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_given(marks in marks(), other in marks()) {
            let kept = |marks| Kept::of(marks, Now::default());
            prop_assert_eq!(kept(marks).marks(), marks);
            prop_assert_eq!(kept(marks) == kept(other), marks == other);
        }
    }
}
