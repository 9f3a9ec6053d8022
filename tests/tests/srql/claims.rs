//! Values of claims are found in any spelling of their own namespace, and in no other.

use serviceradar_streams::{
    changes::Changes,
    rows::{EpochOutput, EvidenceRow, EvidenceState},
};
use serviceradar_tests::{database::Database, views_conformance};

use super::{ask, fill, reader};

const HELD: [(&str, &str); 6] = [
    ("mac", "001b21aabb01"),
    ("serial", "CISCO:ABC1"),
    ("hwuuid", "4c4c4544-0042"),
    ("hostname", "host-1"),
    ("armis/hq", "AbC"),
    ("armis/hq", "abc"),
];

#[tokio::test]
async fn a_claim_is_found_as_its_namespace_spells_it() {
    let database = Database::migrated_timescale().await;
    let evidence = HELD.map(|(namespace, value)| EvidenceRow {
        record_key: "default/armis/hq/1".into(),
        namespace: namespace.into(),
        value: value.into(),
        claim_uid: None,
        ip: None,
        state: EvidenceState::Linking,
        leads: false,
        first_seen: 0,
        first_asserted: 0,
        last: None,
    });
    let output = EpochOutput {
        records: Changes { new: vec![views_conformance::full_record("1", 3)], ..Changes::default() },
        evidence: Changes { new: evidence.to_vec(), ..Changes::default() },
        ..EpochOutput::default()
    };
    fill(&database.views().await, "acme", output).await;
    let mut reader = reader(&database).await;
    for (value, found) in [
        ("00-1B-21-AA-BB-01", &["001b21aabb01"][..]),
        ("00:1b:21:%", &["001b21aabb01"]),
        ("'cisco: abc1'", &["CISCO:ABC1"]),
        ("4C4C4544-0042", &["4c4c4544-0042"]),
        ("HOST-1.", &["host-1"]),
        // Of what no rule normalises equality is exact.
        ("AbC", &["AbC"]),
        ("ABC", &[]),
        ("(ABC,abc,Host-1)", &["abc", "host-1"]),
        ("%BC", &["AbC", "abc"]),
        ("''", &[]),
    ] {
        let query = format!("in:device_identifiers value:{value} fields:value sort:value");
        let answer = ask(&mut reader, "acme", &query, 0).await.unwrap();
        let values: Vec<&str> = answer.rows.iter().map(|row| row[0].as_str().unwrap()).collect();
        assert_eq!(values, found, "{query}");
        let query = format!("in:device_identifiers !value:{value}");
        let others = ask(&mut reader, "acme", &query, 0).await.unwrap().rows.len();
        assert_eq!(others, HELD.len() - found.len(), "{query}");
    }
}
