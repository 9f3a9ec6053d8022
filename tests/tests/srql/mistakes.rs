//! What is wrong with a query is said, and what is not is taken.

use serviceradar_srql::{
    error::Code,
    plan::{Extent, Plan, plan},
};

const NOW: i64 = 1_767_225_600_000_000;

fn planned(query: &str) -> Plan {
    plan(query, NOW, Extent::first()).unwrap_or_else(|errors| panic!("{query}: {errors:?}"))
}

#[test]
fn queries_that_can_be_meant_are_taken() {
    let queries = [
        "in:devices fields:name,metadata.\"rack, no\",tags.\"a \\\"b\" sort:metadata.\"rack, no\":desc",
        "in:devices AND hostname:x AND limit:5",
        "in:devices wait... foo..bar 10.2(4) os.version:10.2(4)",
        "in:devices ((a OR b) AND !(c OR -d)) NOT NOT e",
        "in:devices time:[\"-7 days\",] last_seen:\"-7 days\"",
        "in:devices hostname:( a , 'b c' )",
        "in:devices 'NOT' 'OR' \"AND\" not or and Or",
        "in:devices a OR limit:5 b OR (NOT c) AND sort:name d",
        "in:devices network_interfaces:((ip:10.% OR mac:aa:%) !name:(lo,'a b')) !network_interfaces.mac:*",
        "in:device_records device.network_interfaces:(ip:fe80::/10 NOT NOT mac:*)",
        "in:devices Network_Interfaces:( address:10.0.0.1..10.0.0.9 ) stats:'sum(if(network_interfaces.name = eth0,1,0))'",
        "in:devices ip:::ffff:10.0.0.0/104 ip:..10.0.0.9 ip:10.0.0.1..",
        "in:devices stats:'max(last_seen) as t, count() by device_type, cidr(ip,24)' sort:t,device_type",
        "IN:Devices TIMEFRAME:\"14 Days\" ORDER:name Count:Yes",
        "in:devices fe80::1 ::1 AA-BB-CC-DD-EE-01 sr:00000000-0000-0000-0000-000000000001",
    ];
    for query in queries {
        planned(query);
    }
    assert_eq!(planned("in:devices limit:5 limit:7").limit, Some(7));
    let retired = |query: &str| planned(query).statements[0].sql.contains("e.state <> 'retired'");
    assert!(retired("in:devices") && retired("in:devices device.state:x"));
    for query in [
        "in:devices state:stale",
        "in:devices !device_id:00000000-0000-0000-0000-000000000001",
        "in:devices stats:\"count() by state\"",
        "in:devices stats:\"sum(if(state = retired,1,0)) as n\"",
        "in:devices (sr:0f000000-0000-0000-0000-000000000001 OR name:x)",
        "in:devices include_retired:true",
    ] {
        assert!(!retired(query), "{query}");
    }
}

/// Of each query the first mistake, and the text that it is about.
#[test]
fn each_mistake_is_said_where_it_is() {
    let deep = format!("in:devices {}a{}", "(".repeat(40), ")".repeat(40));
    let many = format!("in:devices ({})", "a ".repeat(300));
    let cases = [
        ("in:devices (hostname:)", Code::Syntax, ""),
        ("in:devices a:1 OR hostname:>= OR c", Code::Syntax, " "),
        ("in:devices OR b", Code::Syntax, "OR"),
        ("in:devices b OR", Code::Syntax, "OR"),
        ("in:devices (!)", Code::Syntax, "!"),
        ("in:devices NOT OR b", Code::Syntax, "NOT"),
        ("in:devices NOT NOT OR b", Code::Syntax, "NOT NOT"),
        ("in:devices !AND b", Code::Syntax, "!"),
        ("in:devices a NOT", Code::Syntax, "NOT"),
        ("in:devices a !", Code::Syntax, "!"),
        ("in:devices ! a", Code::Syntax, "!"),
        ("in:devices AND", Code::Syntax, "AND"),
        ("in:devices a AND", Code::Syntax, "AND"),
        ("in:devices a AND OR b", Code::Syntax, "OR"),
        ("in:devices (a OR) b", Code::Syntax, "OR"),
        ("in:devices (OR a) b", Code::Syntax, "OR"),
        ("in:devices a OR limit:5", Code::Syntax, "OR"),
        ("in:devices a OR limit:5 AND", Code::Syntax, "AND"),
        ("in:devices a OR limit:5 OR b", Code::Syntax, "OR"),
        ("in:devices mac:+01b21aabb01", Code::BadValue, "+01b21aabb01"),
        ("in:devices bucket:1d stats:count() fill:null", Code::BadValue, "fill:null"),
        ("in:devices network_interfaces:()", Code::Syntax, "network_interfaces:()"),
        ("in:devices network_interfaces:(ip:10.%", Code::Syntax, "network_interfaces:(ip:10.%"),
        ("in:devices network_interfaces:(eth0,eth1)", Code::Syntax, "eth0,eth1"),
        ("in:devices network_interfaces:(ip:10.% limit:5)", Code::Syntax, "limit:5"),
        ("in:devices network_interfaces:(ip:10.% OR)", Code::Syntax, "OR"),
        ("in:devices network_interfaces:(ip:10.%)x", Code::Syntax, "x"),
        ("in:devices network_interfaces:(hostname:x)", Code::UnknownField, "hostname"),
        (
            "in:devices network_interfaces:(network_interfaces:(ip:*))",
            Code::UnknownField,
            "network_interfaces",
        ),
        ("in:devices network_interfaces:(mac:>aa)", Code::BadOperator, "mac"),
        ("in:devices network_interfaces:(ip:10.0.0.0/99)", Code::BadValue, "10.0.0.0/99"),
        ("in:devices network_interfaces:eth0", Code::BadOperator, "network_interfaces"),
        ("in:devices network_interfaces.speed:9", Code::UnknownField, "network_interfaces.speed"),
        ("in:devices sort:network_interfaces.ip", Code::BadOperator, "network_interfaces.ip"),
        ("in:device_records network_interfaces:(ip:10.%)", Code::UnknownField, "network_interfaces"),
        ("in:devices stats:rate(name)", Code::BadOperator, "rate(name)"),
        ("in:device_counts stats:rate(devices)", Code::BadOperator, "rate(devices)"),
        ("in:devices x:[a(b]", Code::Syntax, ""),
        ("in:devices,records", Code::BadValue, "devices,records"),
        ("in:nonsense in:devices", Code::UnknownEntity, "nonsense"),
        ("in:devices time:foo time:today", Code::BadValue, "foo"),
        ("in:devices last_seen:20260301", Code::BadValue, "20260301"),
        ("in:devices time:last_9000y", Code::BadValue, "last_9000y"),
        ("in:devices time:[2026-03-02,2026-03-01]", Code::BadValue, "time:[2026-03-02,2026-03-01]"),
        ("in:devices (limit:5)", Code::Syntax, "limit:5"),
        ("in:devices fields:name,name", Code::BadValue, "name"),
        ("in:devices fields:bogus stats:count()", Code::BadValue, "fields:bogus"),
        ("in:devices stats:'count() by ip,cidr(ip,24)'", Code::BadValue, "ip"),
        ("in:devices stats:'count() by last_seen'", Code::NotGroupable, "last_seen"),
        ("in:devices stats:'avg(name)'", Code::BadOperator, "avg(name)"),
        ("in:devices sort:name:up", Code::BadValue, "up"),
        ("in:devices limit:1001", Code::TooWide, "1001"),
        ("in:address_conflicts time:today", Code::BadOperator, "time:today"),
        ("in:devices tz:Mars/Olympus", Code::BadValue, "Mars/Olympus"),
        ("in:devices hostname:\"open", Code::Syntax, "\"open"),
        (&deep, Code::TooWide, ""),
        (&many, Code::TooWide, ""),
    ];
    for (query, code, about) in cases {
        let errors = plan(query, NOW, Extent::first()).expect_err(query);
        assert_eq!(errors[0].code, code, "{query}: {errors:?}");
        if !about.is_empty() {
            let (from, to) = errors[0].span;
            assert_eq!(&query[from..to], about, "{query}: {errors:?}");
        }
    }
    let deep = format!("in:devices {}ip:*{}", "network_interfaces:(".repeat(40), ")".repeat(40));
    let many = format!("in:devices network_interfaces:({})", "ip:* ".repeat(300));
    let long = format!("in:devices network_interfaces:(name:({}))", ["a"; 1_001].join(","));
    for query in [deep, many, long] {
        assert_eq!(plan(&query, NOW, Extent::first()).unwrap_err()[0].code, Code::TooWide, "{query}");
    }
    let all = plan("in:devices a:1 b:2 (c:3 OR hostname:>x) limit:0", NOW, Extent::first()).unwrap_err();
    assert_eq!(all.len(), 5, "{all:?}");
}
