//! Queries.

use proptest::prelude::*;
use serviceradar_srql::{
    catalogue::entities,
    plan::{Extent, plan},
    statement::Parameter,
};
use serviceradar_tests::fuzz::{Checked, changed, fuzz};

const QUERIES: &[&str] = &[
    "in:devices hostname:%cam% !vendor_name:Axis last_seen:<-30d sort:last_seen:desc limit:20",
    "in:devices (type:Router OR NOT type:(Firewall,\"Load balancer\")) tags.\"rack no\":'7 a' count:true",
    "in:devices ip:10.0.0.0/8 -ip:10.0.0.1..10.0.0.9 mac:AA-BB-CC-DD-EE-01 os.name:* fe80::1",
    "in:device_history time:[2026-01-01,today] tz:Europe/Berlin device.site:dfw fields:uid,change",
    "in:devices stats:\"count() as n, p95(risk_score), sum(if(type = 'x',1,0)) by type, cidr(ip,24)\" having:n>=2 sort:n:desc",
    "in:devices network_interfaces:(ip:10.% !(mac:AA-BB-% OR name:(eth0,'a b'))) network_interfaces.mac:*",
    "in:device_history bucket:1h agg:rate value_field:epoch stats:rate(epoch) NOT device.network_interfaces:(ip:*)",
    "in:device_records attributes.\"a\\\"b\":x\\%y records first_seen:[2026-01-01 08:30:00,]",
];

const TOKENS: &[&[u8]] = &[
    b"in:",
    b"devices ",
    b" OR ",
    b" AND ",
    b"NOT ",
    b"(",
    b")",
    b"[",
    b"]",
    b"..",
    b"%",
    b"*",
    b"\"",
    b"'",
    b"`",
    b"\\",
    b":",
    b",",
    b"!",
    b"-",
    b"stats:",
    b" by ",
    b" as ",
    b"cidr(",
    b"sum(if(",
    b"having:",
    b"time:",
    b"last_",
    b"9999999999",
    b"tz:",
    b"limit:",
    b">=",
    b"\xc3\xa9",
    b"\0",
    b"\xff",
    b"sr:",
    b"network_interfaces:(",
    b"network_interfaces.",
    b"device.",
    b"rate(",
    b"agg:",
    b"/33",
    b"1e308",
];

/// Planned or refused, with places in the query; what is bound is what the database can take.
fn check(bytes: &[u8]) -> Checked {
    let text = String::from_utf8_lossy(bytes);
    match plan(&text, 1_767_225_600_000_000, Extent::first()) {
        Ok(plan) => {
            for (number, parameter) in (1..).zip(&plan.statements[0].parameters) {
                prop_assert!(
                    plan.statements[0].sql.contains(&format!("${number}::")),
                    "${} is not in {}",
                    number,
                    plan.statements[0].sql
                );
                let texts = match parameter {
                    Parameter::Text(text) => std::slice::from_ref(text),
                    Parameter::Texts(texts) => texts,
                    _ => &[],
                };
                prop_assert!(texts.iter().all(|text| !text.contains('\0')));
            }
            prop_assert!(entities().any(|entity| entity.name() == plan.entity.name()));
        }
        Err(errors) => {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(text.get(error.span.0..error.span.1).is_some(), "{:?} of {:?}", error, text);
                prop_assert!(!error.message.is_empty());
            }
        }
    }
    Ok(())
}

#[test]
fn srql() {
    let queries = prop::sample::select(QUERIES).prop_map(|query| query.as_bytes().to_vec());
    fuzz("srql", changed(queries, TOKENS), check);
}
