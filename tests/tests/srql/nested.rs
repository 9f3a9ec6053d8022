//! What one element of a nested field is.

use std::net::IpAddr;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serviceradar_schemas::{DeviceChange, NetworkInterface};
use serviceradar_streams::{changes::Changes, rows::EpochOutput};
use serviceradar_tests::{database::Database, views_conformance};

use super::{ask, fill, reader};

fn interface(ip: &str, mac: &str, name: &str) -> NetworkInterface {
    let there = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    NetworkInterface { ip: there(ip), mac: there(mac), name: there(name) }
}

/// Devices 1 and so on, with interfaces.
async fn with_interfaces(tenants: &[&str], interfaces: Vec<Vec<NetworkInterface>>) -> Database {
    let database = Database::migrated_timescale().await;
    let devices: Vec<DeviceChange> = (1..)
        .zip(interfaces)
        .map(|(n, network_interfaces)| DeviceChange {
            network_interfaces,
            ..views_conformance::device(n, "x")
        })
        .collect();
    for tenant in tenants {
        let devices = Changes { new: devices.clone(), ..Changes::default() };
        let output = EpochOutput { devices, ..EpochOutput::default() };
        fill(&database.views().await, tenant, output).await;
    }
    database
}

#[tokio::test]
async fn one_element_is_all_that_is_asked() {
    let (lan, wan) = ("aa:bb:cc:dd:ee:01", "aa:bb:cc:dd:ee:02");
    let interfaces = vec![
        vec![interface("10.0.0.1", lan, "eth0"), interface("192.0.2.1", wan, "eth1")],
        vec![interface("10.0.0.2", wan, "eth1"), interface("fe80::1:2", lan, "")],
        vec![interface("", lan, "LO")],
        vec![],
        // What the view should not hold, and may.
        vec![interface("10.0.0.300", "no mac", "a\nb"), interface("not an address", "", "%")],
    ];
    let database = with_interfaces(&["acme", "other"], interfaces).await;
    // The other tenant holds whatever there is.
    let client = database.client().await;
    for (n, garbage) in (1..).zip([
        "null",
        "7",
        "\"10.0.0.1\"",
        "{\"ip\":\"10.0.0.1\"}",
        "[7,null,[1],{\"ip\":7,\"mac\":[]},{\"ip\":{}}]",
    ]) {
        let update = format!(
            "UPDATE views_1.device_details SET network_interfaces = '{garbage}'
             WHERE tenant = 'other' AND uid = '00000000-0000-0000-0000-00000000000{n}'"
        );
        assert_eq!(client.execute(&update, &[]).await.unwrap(), 1);
    }
    let mut reader = reader(&database).await;
    for (terms, wanted) in [
        ("network_interfaces:(ip:10.% mac:AA-BB-CC-DD-EE-01)", &[1][..]),
        ("network_interfaces:(ip:10.%) network_interfaces:(mac:aabbccddee01)", &[1, 2]),
        ("network_interfaces.ip:10.% network_interfaces.mac:aabb.ccdd.ee01", &[1, 2]),
        ("network_interfaces:(ip:10.0.0.0/24)", &[1, 2]),
        ("network_interfaces:(ip:10.0.0.2..10.0.0.9 OR name:lo)", &[2]),
        ("network_interfaces:(ip:10.0.0.2..10.0.0.9 OR name:lo%)", &[2, 3]),
        ("network_interfaces:(ip:FE80:0::1:2)", &[2]),
        ("network_interfaces:(mac:aa-bb-% name:(eth0,eth9))", &[1]),
        ("network_interfaces:(mac:AA-BB-CC-DD-EE-02 !ip:10.0.0.0/8)", &[1]),
        ("network_interfaces:(!name:*)", &[2]),
        ("network_interfaces:(!ip:*)", &[3, 5]),
        ("network_interfaces:(NOT (ip:* OR mac:*))", &[5]),
        ("network_interfaces.name:\"a\nb\"", &[5]),
        ("network_interfaces.name:\\%", &[5]),
        ("network_interfaces:*", &[1, 2, 3, 5]),
        ("network_interfaces.ip:300", &[]),
    ] {
        if terms.ends_with(":300") {
            assert!(ask(&mut reader, "acme", &format!("in:devices {terms}"), 0).await.is_err());
            continue;
        }
        let mut found = Vec::new();
        for terms in [terms.to_owned(), format!("!({terms})")] {
            let query = format!("in:devices {terms} fields:uid sort:uid");
            let answer = ask(&mut reader, "acme", &query, 0).await.unwrap();
            let last = |row: &Vec<serde_json::Value>| row[0].as_str().unwrap().chars().last();
            found
                .push(answer.rows.iter().filter_map(last).filter_map(|n| n.to_digit(10)).collect::<Vec<_>>());
            // Whatever it holds, what is asked of it is answered.
            ask(&mut reader, "other", &query, 0).await.unwrap();
        }
        assert_eq!(found[0], wanted, "{terms}");
        let others: Vec<u32> = (1..=5).filter(|n| !wanted.contains(n)).collect();
        assert_eq!(found[1], others, "!({terms})");
    }
}

/// An address is one however it is written, and what is none fails no query.
#[tokio::test]
async fn addresses_of_elements_are_those_that_are_any() {
    let mut runner = TestRunner::deterministic();
    let mut draw = |strategy: BoxedStrategy<String>| strategy.new_tree(&mut runner).unwrap().current();
    let mut texts: Vec<String> = Vec::new();
    for _ in 0..300 {
        texts.push(draw(any::<IpAddr>().prop_map(|ip| ip.to_string()).boxed()));
        // With zeros, so that some are left out.
        texts.push(draw(
            any::<[bool; 8]>().prop_map(|there| IpAddr::from(there.map(u16::from)).to_string()).boxed(),
        ));
        texts.push(draw("[0-9a-f:.]{0,12}".boxed()));
        texts.push(draw("([0-9a-fA-F]{0,4}::?){1,9}[0-9a-f]{0,5}".boxed()));
        texts.push(draw("([0-9]{1,3}\\.){3}[0-9]{1,3}(/8)?".boxed()));
    }
    let interfaces = vec![texts.iter().map(|ip| interface(ip, "", "")).collect()];
    let database = with_interfaces(&["acme"], interfaces).await;
    let mut reader = reader(&database).await;
    assert_eq!(
        ask(&mut reader, "acme", "in:devices network_interfaces.ip:0.0.0.0/0", 0).await.unwrap().rows.len(),
        1
    );
    let mut are = 0;
    for text in &texts {
        // Rust reads what PostgreSQL reads, but for addresses of IPv4 within those of IPv6, which no view holds.
        let Some(ip) =
            text.parse::<IpAddr>().ok().filter(|ip| ip.to_canonical() == *ip && ip.to_string() == *text)
        else {
            continue;
        };
        if text.contains(':') && text.contains('.') {
            continue;
        }
        are += 1;
        let query = format!("in:devices network_interfaces:(ip:{ip})");
        assert_eq!(ask(&mut reader, "acme", &query, 0).await.unwrap().rows.len(), 1, "{text}");
    }
    assert!(are > 500, "{are}");
}
