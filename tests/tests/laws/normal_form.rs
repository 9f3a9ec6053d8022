//! Normalising is total, idempotent, and the same in engine and oracle.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serviceradar_streams::normalise::normalise;
use serviceradar_tests::{
    observations::{claim_of, observation_of, observations, unnoted},
    oracle,
    worlds::BEGINNING,
};

use crate::cases;

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn normalise_is_idempotent(observation in observations()) {
        let once = normalise(observation, Some(BEGINNING)).map_err(|refusal| TestCaseError::reject(refusal.to_string()))?;
        let twice = normalise(observation_of(&once), Some(BEGINNING))?;
        prop_assert_eq!(unnoted(twice), unnoted(once));
    }

    #[test]
    fn engine_and_oracle_read_the_same_claims_and_addresses(observation in observations()) {
        let claims: BTreeSet<(String, String)> = oracle::normalise::claims(&observation).into_iter().collect();
        let addresses = oracle::normalise::addresses(&observation);
        let sighting = normalise(observation, Some(BEGINNING)).map_err(|refusal| TestCaseError::reject(refusal.to_string()))?;
        let read = sighting.claims.iter().map(|key| {
            let claim = claim_of(key);
            (claim.namespace.to_string(), claim.value.to_string())
        });
        prop_assert_eq!(read.collect::<BTreeSet<_>>(), claims);
        prop_assert_eq!(sighting.addresses, addresses);
    }
}
