//! The bytes of each released version, made by another implementation (Python's fastavro 1.13)
//! from the JSON beside them: what is in logs must be read for ever.

use serde::de::DeserializeOwned;
use serviceradar_schemas::{Decision, Decoder, DeviceChange, Event, Observation, Operation, encode};

fn assert_golden<E>(json: &str, hex: &str)
where
    E: Event + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let event: E = serde_json::from_str(json).unwrap();
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let golden: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    assert_eq!(Decoder::<E>::new().decode(&golden).unwrap(), event);
    assert_eq!(encode(&event), golden, "the encoding of {} drifted", E::NAME);
}

#[test]
fn golden_observation() {
    assert_golden::<Observation>(
        include_str!("../golden/observation.json"),
        include_str!("../golden/observation.hex"),
    );
}

#[test]
fn golden_decision() {
    assert_golden::<Decision>(
        include_str!("../golden/decision.json"),
        include_str!("../golden/decision.hex"),
    );
}

#[test]
fn golden_device_change() {
    assert_golden::<DeviceChange>(
        include_str!("../golden/device_change.json"),
        include_str!("../golden/device_change.hex"),
    );
}

#[test]
fn golden_operation() {
    assert_golden::<Operation>(
        include_str!("../golden/operation.json"),
        include_str!("../golden/operation.hex"),
    );
}
