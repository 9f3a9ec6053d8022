//! Events in their JSON form, as integrators write them: the fields of the schema under their names, times as RFC 3339,
//! fields with defaults left out at will. A field that nobody knows is an error: it would be lost in silence.

use serde::de::DeserializeOwned;

use crate::excerpt;

/// Why a text is no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no event in JSON: {0}")]
pub struct JsonError(String);

/// Reads one event, of a line or a whole text.
pub fn read<E: DeserializeOwned>(text: &[u8]) -> Result<E, JsonError> {
    serde_json::from_slice(text).map_err(|error| JsonError(excerpt(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use crate::{
        Action, Address, Claim, Collector, Coverage, Decision, Observation, Probe, Snapshot, Source, time,
    };

    const LEAST: &str =
        r#"{"event_time":"2026-01-01T00:00:00Z","source":{"kind":"armis","instance":"hq"},"action":"TICK"}"#;

    fn read(text: &str) -> Result<Observation, String> {
        super::read(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_with_defaults_may_be_left_out() {
        let least = Observation {
            event_time: 1_767_225_600_000_000,
            partition: "default".to_owned(),
            source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
            action: Action::Tick,
            ..Observation::default()
        };
        assert_eq!(read(LEAST), Ok(least));
    }

    /// The form of the logs that are given with the rules of identity.
    #[test]
    fn every_field_has_the_name_it_has_in_the_schema() {
        let line = r#"{"id": "40-000043", "event_time": "2026-03-01T20:25:22.5Z", "partition": "plant",
            "source": {"kind": "mapper", "instance": "m1"}, "native_key": "sw-40-10", "action": "ASSERT",
            "coverage": "FULL", "claims": [{"namespace": "mac", "value": "00-1b-21-00-9c-90"}],
            "addresses": [{"ip": "10.40.10.39", "mac": "00:1b:21:00:9c:90", "interface": "eth0"}, {"ip": "::1"}],
            "hostname": "sw-10", "probe": "DOWN", "risk_score": 7, "tags": {"PCI": ""}, "attributes": {"rack": "7"},
            "collector": {"agent": "agent-34", "gateway": "g1", "address": "10.0.0.1"},
            "snapshot": {"id": "s", "begin": "2026-03-01T20:00:00+01:00", "count": 3}}"#;
        let address = |ip: &str| Address { ip: ip.to_owned(), ..Address::default() };
        let expected = Observation {
            id: "40-000043".to_owned(),
            event_time: time::parse("2026-03-01T20:25:22.5Z").unwrap(),
            partition: "plant".to_owned(),
            source: Source { kind: "mapper".to_owned(), instance: "m1".to_owned() },
            native_key: "sw-40-10".to_owned(),
            action: Action::Assert,
            coverage: Coverage::Full,
            claims: vec![Claim { namespace: "mac".into(), value: "00-1b-21-00-9c-90".into() }],
            addresses: vec![
                Address {
                    mac: Some("00:1b:21:00:9c:90".to_owned()),
                    interface: Some("eth0".to_owned()),
                    ..address("10.40.10.39")
                },
                address("::1"),
            ],
            hostname: Some("sw-10".to_owned()),
            probe: Probe::Down,
            risk_score: Some(7),
            tags: [("PCI".into(), "".into())].into(),
            attributes: [("rack".into(), "7".into())].into(),
            collector: Some(Collector {
                agent: "agent-34".to_owned(),
                gateway: "g1".to_owned(),
                address: "10.0.0.1".to_owned(),
            }),
            snapshot: Some(Snapshot {
                id: "s".to_owned(),
                begin: time::parse("2026-03-01T19:00:00Z").unwrap(),
                count: Some(3),
            }),
            ..Observation::default()
        };
        assert_eq!(read(line), Ok(expected.clone()));
        assert_eq!(read(&serde_json::to_string(&expected).unwrap()), Ok(expected));
    }

    /// In parts, too: a misspelt `interface` would be gone without a word.
    #[test]
    fn a_field_that_nobody_knows_is_named() {
        let with = |part: &str| read(&LEAST.replace("\"action\"", &format!("{part},\"action\"")));
        for part in [
            r#""colour":"red""#,
            r#""claims":[{"namespace":"mac","value":"1","colour":"red"}]"#,
            r#""addresses":[{"ip":"10.0.0.1","colour":"red"}]"#,
            r#""collector":{"agent":"a","colour":"red"}"#,
            r#""snapshot":{"id":"s","begin":"2026-01-01T00:00:00Z","colour":"red"}"#,
        ] {
            let told = with(part).unwrap_err();
            assert!(told.contains("unknown field `colour`, expected"), "{told}");
        }
        let source = LEAST.replace("\"hq\"", r#""hq","colour":"red""#);
        assert!(read(&source).unwrap_err().contains("unknown field `colour`"));
    }

    #[test]
    fn what_is_no_observation_says_why() {
        for (text, why) in [
            ("", "EOF"),
            (r#"{"action":"TICK"}"#, "missing field `event_time`"),
            (&LEAST.replace("TICK", "DANCE"), "unknown variant `DANCE`"),
            (&LEAST.replace("2026-01-01T", "yesterday "), "is not an RFC 3339 time"),
            (&LEAST.replace("2026-01-01T", "9999-12-31T"), "or is out of range"),
            (&LEAST.replace("hq", r"\ud800"), "hex escape"),
            (&format!("{LEAST}{LEAST}"), "trailing characters"),
            (&LEAST.replace("\"kind\"", "\"instance\""), "duplicate field `instance`"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
        let long = read(&LEAST.replace("TICK", &"\u{130}".repeat(64 * 1024))).unwrap_err();
        assert!(long.len() < 1_000, "{} bytes", long.len());
    }

    #[test]
    fn decisions_are_read_likewise() {
        let line = r#"{"id":"d1","event_time":"2026-03-01T00:20:00Z","action":"detach","target":{"record":"default/mapper/m1/x"},"actor":"ops"}"#;
        let decision: Decision = super::read(line.as_bytes()).unwrap();
        assert_eq!(
            (&*decision.partition, decision.target.record.as_deref()),
            ("default", Some("default/mapper/m1/x"))
        );
        let odd = line.replace("\"record\"", "\"records\"");
        assert!(
            super::read::<Decision>(odd.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("unknown field `records`")
        );
    }
}
