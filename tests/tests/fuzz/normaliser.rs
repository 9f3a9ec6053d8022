//! Observations as they were decoded.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serviceradar_schemas::{
    Action, Decoder, Observation, Text, encode,
    observation::{ADDRESSES_MAX, CLAIMS_MAX},
};
use serviceradar_streams::{
    claim::is_name,
    normalise::{AHEAD_MAX, ClaimKey, EARLIEST, Sighting, normalise},
};
use serviceradar_tests::{
    fuzz::{Checked, changed, fuzz},
    observations::{any_observations, claim_of, observation_of, unnoted},
    oracle,
    worlds::BEGINNING,
};

use crate::assert_told;

/// When the log took them.
const INTAKE: i64 = BEGINNING;

fn check(bytes: &[u8]) -> Checked {
    // What cannot be decoded is another target's.
    let Ok(observation) = Decoder::<Observation>::new().decode(bytes) else {
        return Ok(());
    };
    let sighting = match normalise(observation.clone(), Some(INTAKE)) {
        Ok(sighting) => sighting,
        Err(refusal) => return assert_told(refusal),
    };
    assert_holdable(&sighting)?;
    if matches!(sighting.action, Action::Assert) {
        assert_claims(&observation, &sighting)?;
    }
    let twice = normalise(observation_of(&sighting), Some(INTAKE)).map(unnoted);
    prop_assert_eq!(twice, Ok(unnoted(sighting)));
    Ok(())
}

/// Every view can hold it: no NUL, nothing too long for a key of an index, times within the calendar.
fn assert_holdable(sighting: &Sighting) -> Checked {
    let Sighting { partition, source, attributes, claims, addresses, .. } = sighting;
    prop_assert!(is_name(partition) && is_name(&source.kind) && is_name(&source.instance));
    let times = [Some(sighting.event_time), sighting.fetch.as_ref().map(|fetch| fetch.begin)];
    for time in times.into_iter().flatten() {
        prop_assert!((EARLIEST..=INTAKE + AHEAD_MAX).contains(&time), "{}", time);
    }
    prop_assert!(addresses.len() <= ADDRESSES_MAX && claims.len() <= CLAIMS_MAX);
    prop_assert!(attributes.is_sorted_by(|a, b| a.0 < b.0), "two attributes of one name");
    let mut texts: Vec<(&str, usize)> = vec![(&sighting.native_key, 1_024)];
    texts.extend(sighting.fetch.iter().map(|fetch| (&*fetch.id, 256)));
    texts.extend(
        sighting
            .collector
            .iter()
            .flat_map(|of| [&of.agent, &of.gateway, &of.address])
            .map(|text| (&**text, 256)),
    );
    texts.extend(attributes.iter().flat_map(|(name, value)| [(&**name, 1_024), (&**value, 8_192)]));
    let counted = |of: &&(Text, Text)| matches!(of.0.as_str(), "vendor" | "site" | "device_type");
    texts.extend(attributes.iter().filter(counted).map(|(_, value)| (&**value, 1_024)));
    for claim in claims {
        if let ClaimKey::Text(namespace, value) = claim {
            texts.extend([(&**namespace, 256), (&**value, 1_024)]);
        }
    }
    for (text, limit) in texts {
        prop_assert!(!text.contains('\0'), "a NUL in {:.80?}", text);
        prop_assert!(text.len() <= limit, "{} bytes, over {}: {:.80?}", text.len(), limit, text);
    }
    Ok(())
}

/// The claims are those of the oracle, which has rules of its own; no namespace of ours is among them.
fn assert_claims(observation: &Observation, sighting: &Sighting) -> Checked {
    let read: Vec<(String, String)> = sighting
        .claims
        .iter()
        .map(claim_of)
        .map(|claim| (claim.namespace.to_string(), claim.value.to_string()))
        .collect();
    let distinct: BTreeSet<(String, String)> = read.iter().cloned().collect();
    prop_assert_eq!(distinct.len(), read.len());
    prop_assert!(read.iter().all(|(namespace, _)| !matches!(&**namespace, "ip" | "detached" | "")));
    let expected: BTreeSet<(String, String)> = oracle::normalise::claims(observation).into_iter().collect();
    prop_assert_eq!(distinct, expected);
    prop_assert_eq!(&sighting.addresses, &oracle::normalise::addresses(observation));
    Ok(())
}

const TOKENS: &[&[u8]] =
    &[b"\0", b" ", b":", b".", b"/", b"%", "\u{130}".as_bytes(), "\u{149}".as_bytes(), &[0x80, 0x40]];

#[test]
fn normalising_is_total_and_idempotent_and_what_comes_out_fits() {
    let whole = || any_observations().prop_map(|of| encode(&of));
    fuzz("normaliser", prop_oneof![3 => whole(), 1 => changed(whole(), TOKENS)], check);
}
