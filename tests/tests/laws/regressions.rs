//! Worlds that broke a law once, each named after what went wrong, shrunk to what matters.

use proptest::prelude::TestCaseError;
use serviceradar_schemas::time::{DAY, MINUTE};
use serviceradar_streams::rows::Placement;
use serviceradar_tests::worlds::{Assert, Deed, Ruling, Step, World};

use crate::{
    Checked,
    additions::revoke_restores,
    agreement::agrees,
    journals::journals,
    order::{duplicates, incremental, permutation, reload, scopes_apart, snapshot_plus_tail},
    run::at_once,
    structure::{at_every_epoch, counts, exclusive, placements, redirects},
};

const ARMIS: u8 = 0;
const MAPPER: u8 = 1;
const ARMIS_B: u8 = 2;
const NETBOX: u8 = 3;
const SWEEP: u8 = 4;
/// Places of claims: two universal MACs, a local one, a serial, and a hardware UUID.
const MAC_0: u8 = 0;
const MAC_1: u8 = 1;
const MAC_2: u8 = 2;
const MAC_3: u8 = 3;
const LOCAL_MAC: u8 = 9;
const SERIAL: u8 = 11;
const HWUUID: u8 = 16;

/// Every law that takes a world alone.
fn every_law(world: &World) -> Checked {
    incremental(world)?;
    let last_first: Vec<u16> = (0..world.steps.len() as u16).rev().collect();
    permutation(world, &last_first)?;
    duplicates(world, &last_first)?;
    for at in 0..=world.steps.len() {
        reload(world, at)?;
        snapshot_plus_tail(world, at)?;
    }
    scopes_apart(world, "default")?;
    agrees(world)?;
    journals(world)?;
    for law in [placements, counts, redirects, exclusive] {
        at_every_epoch(world, law)?;
    }
    Ok(())
}

fn step(deed: Deed) -> Step {
    Step { deed, ..Step::default() }
}

fn says(source: u8, key: u8, claims: &[u8]) -> Step {
    step(Deed::Assert(Assert { source, key, claims: claims.to_vec(), ..Assert::default() }))
}

fn decides(ruling: Ruling) -> Step {
    step(Deed::Decide { ruling, revoke: false })
}

fn takes_back(ruling: Ruling) -> Step {
    step(Deed::Decide { ruling, revoke: true })
}

fn in_a_new_epoch(step: Step) -> Step {
    Step { cut: true, ..step }
}

fn after(wait: i64, step: Step) -> Step {
    Step { after: wait, ..step }
}

fn placement(world: &World, record: &str) -> Checked<(Placement, Option<String>)> {
    let tables = at_once(world, &world.events)?;
    let row = tables.records.get(record).ok_or_else(|| TestCaseError::fail("no such record"))?;
    Ok((row.placement, row.uid.map(|uid| uid.to_string())))
}

/// A batch tore a component and took the rest of it away: its label was free twice, and the next two
/// components were one.
#[test]
fn strangers_were_one_core() -> Checked {
    let world = World::of(
        vec![
            says(MAPPER, 1, &[HWUUID, SERIAL]),
            says(SWEEP, 0, &[HWUUID]),
            says(MAPPER, 0, &[SERIAL + 1]),
            in_a_new_epoch(after(30 * DAY + MINUTE, step(Deed::Tick))),
            in_a_new_epoch(says(ARMIS_B, 0, &[MAC_0])),
            says(NETBOX, 0, &[MAC_1]),
        ],
        false,
    );
    every_law(&world)?;
    assert_ne!(placement(&world, "default/armis/b/1")?, placement(&world, "default/netbox/x/1")?);
    Ok(())
}

/// Of two values that were pinned to one device, the order of a hash table chose.
#[test]
fn the_later_pin_counts() -> Checked {
    let world = World::of(
        vec![
            says(ARMIS, 0, &[MAC_0, SERIAL]),
            decides(Ruling::PinValue(MAC_0, 0, 1)),
            after(MINUTE, decides(Ruling::PinValue(SERIAL, 0, 2))),
            after(MINUTE, decides(Ruling::PinValue(SERIAL, 1, 2))),
            after(MINUTE, decides(Ruling::PinValue(MAC_0, 1, 1))),
        ],
        false,
    );
    every_law(&world)?;
    let tables = at_once(&world, &world.events)?;
    let shown: Vec<_> =
        tables.devices.values().map(|row| (row.name.clone(), row.vendor_name.clone())).collect();
    assert_eq!(shown, [(Some("pinned-2".to_owned()), Some("pinned-1".to_owned()))]);
    Ok(())
}

/// A detached record that names many serials was taken for one of those that name too many.
#[test]
fn a_detached_record_is_a_device_whatever_it_says() -> Checked {
    let serials: Vec<u8> = (SERIAL..SERIAL + 5).collect();
    let detached = decides(Ruling::Detach { source: MAPPER, key: 0, stray: false });
    let world = World::of(vec![says(MAPPER, 0, &serials), in_a_new_epoch(detached)], false);
    every_law(&world)?;
    assert_eq!(placement(&world, "default/mapper/m1/if/1")?.0, Placement::Anchored);
    Ok(())
}

/// A decision in one partition took apart a record of another.
#[test]
fn a_decision_reaches_no_other_partition() -> Checked {
    let stray = Step { elsewhere: true, ..decides(Ruling::Detach { source: ARMIS, key: 0, stray: true }) };
    let world = World::of(vec![stray.clone(), says(ARMIS, 0, &[MAC_0]), says(NETBOX, 0, &[MAC_0])], false);
    every_law(&world)?;
    assert_eq!(placement(&world, "default/armis/hq/1")?, placement(&world, "default/netbox/x/1")?);
    Ok(())
}

/// A fetch kept members that came before a verdict, and not those that came after, when the verdict
/// was revoked; one that had nothing but the verdict left a row behind.
#[test]
fn a_revoked_verdict_leaves_nothing_behind() -> Checked {
    let accept = Ruling::Accept { source: ARMIS_B, fetch: 0 };
    let lists = |key| {
        let assert = Assert { source: ARMIS_B, key, fetch: Some(0), ..Assert::default() };
        step(Deed::Assert(assert))
    };
    every_law(&World::of(vec![decides(accept.clone()), in_a_new_epoch(takes_back(accept.clone()))], false))?;
    every_law(&World::of(
        vec![
            step(Deed::Begin { source: ARMIS_B }),
            in_a_new_epoch(lists(0)),
            in_a_new_epoch(decides(accept.clone())),
            in_a_new_epoch(lists(1)),
            in_a_new_epoch(takes_back(accept)),
        ],
        false,
    ))
}

/// A restart read the begin in a decision as it was written, and not as it was clamped.
#[test]
fn a_clamped_begin_stays_clamped() -> Checked {
    let ahead = Step { late: -10 * MINUTE, ..step(Deed::Begin { source: ARMIS }) };
    let accept = decides(Ruling::Accept { source: ARMIS, fetch: 0 });
    let seen_since = in_a_new_epoch(after(7 * MINUTE, says(ARMIS, 0, &[])));
    every_law(&World::of(vec![ahead, in_a_new_epoch(accept), seen_since], false))
}

/// A record outside of all fetches was told as changed by a fetch that changed nothing of its row.
#[test]
fn a_fetch_that_changes_no_row_tells_none() -> Checked {
    let full = Assert { source: NETBOX, full: true, ..Assert::default() };
    let listed = Assert { source: NETBOX, fetch: Some(0), ..Assert::default() };
    every_law(&World::of(
        vec![
            says(NETBOX, 0, &[]),
            after(DAY, step(Deed::Begin { source: NETBOX })),
            step(Deed::Assert(full)),
            in_a_new_epoch(step(Deed::Assert(listed))),
            step(Deed::Tick),
        ],
        false,
    ))
}

/// An issue named the devices of those that claimed the value when it arose.
#[test]
fn an_issue_names_who_claims_the_value_now() -> Checked {
    let serials: Vec<u8> = (SERIAL..SERIAL + 4).chain([HWUUID]).collect();
    every_law(&World::of(
        vec![says(MAPPER, 0, &serials), says(ARMIS, 0, &[]), in_a_new_epoch(says(ARMIS, 0, &[HWUUID]))],
        false,
    ))
}

/// A core over the cap that shares no MAC was none.
#[test]
fn a_lone_core_over_the_cap_is_oversized() -> Checked {
    let world = World::of(
        vec![
            says(MAPPER, 0, &[HWUUID]),
            says(SWEEP, 0, &[HWUUID]),
            in_a_new_epoch(says(MAPPER, 1, &[HWUUID])),
            in_a_new_epoch(says(ARMIS, 0, &[HWUUID])),
            in_a_new_epoch(step(Deed::End { source: ARMIS, key: 0 })),
        ],
        true,
    );
    every_law(&world)?;
    let tables = at_once(&world, &world.events)?;
    assert!(tables.issues.values().any(|issue| issue.kind == "oversized"));
    Ok(())
}

/// A MAC that cannot link was called generic.
#[test]
fn a_local_mac_is_never_generic() -> Checked {
    let many = (0..3).map(|key| says(ARMIS, key, &[LOCAL_MAC]));
    every_law(&World::of(many.collect(), true))
}

/// A MAC belonged to the device of a record whose edge to it had been refused.
#[test]
fn a_refused_record_takes_no_mac_along() -> Checked {
    every_law(&World::of(
        vec![
            says(NETBOX, 0, &[MAC_3]),
            after(15 * MINUTE, says(MAPPER, 0, &[MAC_3])),
            decides(Ruling::Allow(MAC_0)),
            says(MAPPER, 0, &[MAC_1, MAC_0]),
            decides(Ruling::Detach { source: NETBOX, key: 0, stray: false }),
            says(ARMIS_B, 0, &[MAC_0]),
            says(ARMIS_B, 1, &[MAC_1]),
        ],
        false,
    ))
}

/// A record that was refused, and had an allowed MAC to stay by, was no issue.
#[test]
fn a_refused_record_that_stays_where_it_is_is_an_issue() -> Checked {
    let world = World::of(
        vec![
            decides(Ruling::Allow(MAC_0)),
            says(MAPPER, 0, &[MAC_2, MAC_1]),
            says(ARMIS_B, 0, &[MAC_0]),
            says(MAPPER, 1, &[MAC_1, MAC_0]),
            in_a_new_epoch(says(ARMIS_B, 1, &[MAC_2])),
        ],
        false,
    );
    every_law(&world)?;
    let tables = at_once(&world, &world.events)?;
    assert!(tables.issues.values().any(|issue| issue.kind == "bridging"));
    Ok(())
}

/// History stayed with a device although a MAC that it had, and that linked nowhere, was allowed.
#[test]
fn history_follows_what_is_allowed_later() -> Checked {
    let world = World::of(
        vec![
            says(ARMIS, 0, &[MAC_1]),
            after(15 * MINUTE, says(MAPPER, 0, &[LOCAL_MAC, MAC_1])),
            after(30 * DAY, step(Deed::Tick)),
            in_a_new_epoch(decides(Ruling::Allow(LOCAL_MAC))),
        ],
        false,
    );
    every_law(&world)?;
    assert_eq!(placement(&world, "default/mapper/m1/if/1")?, (Placement::Closed, None));
    Ok(())
}

/// A device kept the name that the private claim of its history gave it, after that was taken back.
#[test]
fn a_private_claim_names_nothing_once_it_is_gone() -> Checked {
    let world =
        World::of(vec![says(SWEEP, 2, &[MAC_1]), after(30 * DAY + MINUTE, says(MAPPER, 0, &[MAC_1]))], false);
    revoke_restores(&world, Ruling::Detach { source: SWEEP, key: 2, stray: false })
}

/// A lapsed MAC that links one record alone, in a block over the cap, joins nothing: so it belongs to the detached
/// record that asserted it first.
#[test]
fn a_lapsed_mac_in_an_oversized_block_belongs_to_who_asserted_it_first() -> Checked {
    let assert = |source, key, full, claims: &[u8]| Step {
        after: 0,
        late: 0,
        cut: false,
        elsewhere: false,
        deed: Deed::Assert(Assert {
            source,
            key,
            full,
            claims: claims.to_vec(),
            addresses: Vec::new(),
            values: Vec::new(),
            probe: 0,
            fetch: None,
            twin: false,
        }),
    };
    let later = Step { after: 1_000_000, ..assert(NETBOX, 0, true, &[MAC_0]) };
    let detach =
        Deed::Decide { ruling: Ruling::Detach { source: ARMIS, key: 2, stray: false }, revoke: false };
    let steps = vec![
        assert(MAPPER, 0, false, &[MAC_0]),
        assert(ARMIS, 0, false, &[MAC_0]),
        assert(ARMIS, 2, false, &[MAC_3]),
        assert(NETBOX, 0, false, &[MAC_3]),
        assert(SWEEP, 0, false, &[MAC_0, MAC_1]),
        later,
        Step { after: 0, late: 0, cut: false, elsewhere: false, deed: detach },
    ];
    every_law(&World::of(steps, true))
}
