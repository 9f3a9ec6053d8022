//! Names of schemas: the parsing canonical form and its CRC-64-AVRO, as the Avro specification
//! (1.12, "Schema Fingerprints") has them.

use apache_avro::Schema;
use crc::{Algorithm, Crc};

const EMPTY: u64 = 0xc15d_213a_a4d7_a795;

const CRC_64_AVRO: Crc<u64> = Crc::<u64>::new(&Algorithm {
    width: 64,
    poly: EMPTY.reverse_bits(),
    init: EMPTY.reverse_bits(),
    refin: true,
    refout: true,
    xorout: 0,
    check: 0,
    residue: 0,
});

const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// The parsing canonical form. The crate `apache-avro` leaves a logical type as `{"type":"long"}`,
/// where the specification wants `"long"`, and gives it another fingerprint than all other clients.
pub fn canonical_form(schema: &Schema) -> String {
    PRIMITIVES.iter().fold(schema.canonical_form(), |form, name| {
        form.replace(&format!("{{\"type\":\"{name}\"}}"), &format!("\"{name}\""))
    })
}

/// CRC-64-AVRO of the parsing canonical form, little-endian.
pub fn fingerprint(schema: &Schema) -> [u8; 8] {
    CRC_64_AVRO.checksum(canonical_form(schema).as_bytes()).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the Avro project: `share/test/data/schema-tests.txt`.
    #[test]
    fn fingerprints_are_those_of_the_specification() {
        for (schema, expected) in [
            (r#""null""#, 7_195_948_357_588_979_594_i64),
            (r#""boolean""#, -6_970_731_678_124_411_036),
            (r#"{"name":"foo","type":"fixed","size":15}"#, 1_756_455_273_707_447_556),
        ] {
            let schema = Schema::parse_str(schema).unwrap();
            assert_eq!(fingerprint(&schema), expected.to_le_bytes(), "{schema:?}");
        }
    }

    #[test]
    fn logical_types_are_left_out() {
        let micros = r#"{"type":"long","logicalType":"timestamp-micros"}"#;
        let schema = Schema::parse_str(micros).unwrap();
        assert_eq!(canonical_form(&schema), r#""long""#);
    }
}
