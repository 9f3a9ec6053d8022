//! An explanation tells what the rows say: each record hangs on the others by what they share, what is offered first is
//! what the device shows, and two devices are kept apart for a reason.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serviceradar_streams::{
    explain::{self, Known, compare},
    rows::{DeviceRow, RecordRow, Uid},
};
use serviceradar_tests::worlds::{World, worlds};

use crate::{Checked, cases, run, structure::at_every_epoch, tables::Tables};

/// What a reader of the views knows of each device.
fn known(tables: &Tables) -> Vec<Known> {
    let of = |device: &DeviceRow| {
        let uid: Option<Uid> = device.uid.parse().ok();
        let records: Vec<RecordRow> =
            tables.records.values().filter(|record| record.uid == uid).cloned().collect();
        let keys: BTreeSet<&str> = records.iter().map(|record| &*record.record_key).collect();
        let evidence = tables.evidence.values().filter(|row| keys.contains(&*row.record_key));
        let in_partition = |partition: &str| partition == device.partition;
        let accepted = tables.snapshots.values().filter(|fetch| fetch.verdict == Some("accepted"));
        let accepted = accepted.filter(|fetch| in_partition(&fetch.partition));
        let mut last: BTreeMap<_, i64> = BTreeMap::new();
        for fetch in accepted {
            let begin = last.entry(fetch.source.clone()).or_insert(fetch.begin);
            *begin = fetch.begin.max(*begin);
        }
        let watermarks = tables.watermarks.values();
        Known {
            evidence: evidence.cloned().collect(),
            decisions: tables
                .decisions
                .values()
                .filter(|row| row.in_force && in_partition(&row.decision.partition))
                .cloned()
                .collect(),
            issues: tables.issues.values().filter(|row| in_partition(&row.partition)).cloned().collect(),
            accepted: last.into_iter().collect(),
            watermarks: watermarks
                .filter(|row| row.partition.as_deref().is_none_or(in_partition))
                .cloned()
                .collect(),
            records,
            device: device.clone(),
        }
    };
    tables.devices.values().map(of).collect()
}

fn explained(world: &World, tables: &Tables) -> Checked {
    let rules = run::rules(world);
    let all = known(tables);
    for known in &all {
        let told = explain::device(known, &rules).map_err(TestCaseError::fail)?;
        prop_assert_eq!(told.records.len(), known.records.len());
        let root = explain::root(known).unwrap_or_default();
        for record in &told.records {
            let is_root = &*record.record_key == root;
            let hangs = record.placement != "anchored" || is_root || record.link.is_some();
            prop_assert!(hangs, "{record:?} hangs on nothing, in {known:#?}");
            if let Some(step) = &record.link {
                let claims: BTreeSet<String> = known
                    .evidence
                    .iter()
                    .filter(|row| row.record_key == step.record_key)
                    .map(|row| format!("{}:{}", row.namespace, row.value))
                    .collect();
                prop_assert!(claims.contains(&step.by), "{step:?}: {claims:?}");
            }
        }
        prop_assert_eq!(told.named_by.is_none(), known.device.confidence == "provisional", "{:#?}", known);
        for (name, shown) in [
            ("hostname", &known.device.hostname),
            ("vendor", &known.device.vendor_name),
            ("model", &known.device.model),
            ("site", &known.device.site),
            ("ip", &known.device.ip),
        ] {
            let offers = explain::attribute(known, &rules, name).map_err(TestCaseError::fail)?;
            let first = offers.as_ref().map(|told| told.offers[0].value.clone());
            prop_assert_eq!(&first, shown, "{} of {:#?}", name, offers);
            for offer in offers.iter().flat_map(|told| &told.offers) {
                prop_assert_eq!(offer.lost_by.is_none(), Some(&offer.value) == shown.as_ref(), "{:?}", offer);
            }
        }
        for (tag, value) in &known.device.tags {
            let offers = explain::attribute(known, &rules, &format!("tags.{tag}"));
            let first = offers.map_err(TestCaseError::fail)?.map(|told| told.offers[0].value.clone());
            prop_assert_eq!(first.as_ref(), Some(value));
        }
    }
    for (one, other) in all.iter().zip(all.iter().skip(1)) {
        let (a, b) = (explain::root(one).unwrap_or_default(), explain::root(other).unwrap_or_default());
        let (there, back) = (compare((a, one), (b, other)), compare((b, other), (a, one)));
        prop_assert!(!there.one_device && !there.why.is_empty());
        let claims = |of: &explain::Comparison| -> Vec<_> {
            of.shared.iter().map(|shared| (shared.claim.clone(), shared.state)).collect()
        };
        prop_assert_eq!(claims(&there), claims(&back));
        let links = there.shared.iter().find(|shared| shared.state == "linking");
        prop_assert!(links.is_none(), "{links:?} links in two devices");
        let same = compare((a, one), (a, one));
        prop_assert!(same.one_device && same.path.is_empty());
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn an_explanation_tells_what_the_rows_say(world in worlds()) {
        at_every_epoch(&world, |tables| explained(&world, tables))?;
    }
}
