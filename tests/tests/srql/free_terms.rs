//! A free term is found where one field has it in it, never across two; and what is pasted, and how names begin.

use proptest::{collection::vec, prelude::Strategy, strategy::ValueTree, test_runner::TestRunner};
use serviceradar_materializers::views::Views;
use serviceradar_schemas::DeviceChange;
use serviceradar_streams::{changes::Changes, rows::EpochOutput};
use serviceradar_tests::{database::Database, views_conformance};

use super::{ask, fill, reader};

const FIELDS: [&str; 7] = ["name", "hostname", "ip", "mac", "vendor_name", "model", "type"];

#[tokio::test]
async fn a_free_term_matches_where_a_single_field_does() {
    let mut runner = TestRunner::deterministic();
    let mut text = || proptest::option::of("[abAB\n%_]{1,4}").new_tree(&mut runner).unwrap().current();
    let new = (1..=200).map(|n| DeviceChange {
        // As the views have it.
        hostname: text().map(|name| name.to_lowercase()),
        vendor_name: text(),
        model: text(),
        name: text(),
        ..views_conformance::device(n, "")
    });
    let devices = Changes { new: new.collect(), ..Changes::default() };
    let database = Database::migrated_timescale().await;
    fill(&database.views().await, "acme", EpochOutput { devices, ..EpochOutput::default() }).await;
    let mut reader = reader(&database).await;
    let mut count = 0;
    for _ in 0..60 {
        // Escaped what is no wildcard, as it may be in a word.
        let term =
            vec(proptest::sample::select(&["a", "b", "A", "_", "%", "%", "*", "\\%", "\\\n"][..]), 1..5);
        let term = term.new_tree(&mut runner).unwrap().current().concat();
        let by_field = FIELDS.map(|field| format!("{field}:%{term}%")).join(" OR ");
        let mut found = Vec::new();
        for terms in [term.clone(), format!("({by_field})")] {
            let query = format!("in:devices {terms} fields:uid limit:1000");
            let answer = ask(&mut reader, "acme", &query, 0).await;
            let answer = answer.unwrap_or_else(|errors| panic!("{query}: {errors:?}"));
            let mut rows: Vec<String> = answer.rows.iter().map(|row| row[0].to_string()).collect();
            rows.sort();
            found.push(rows);
        }
        assert_eq!(found[0], found[1], "{term:?}");
        count += usize::from(!found[0].is_empty() && found[0].len() < 200);
    }
    assert!(count > 20, "{count} terms tell devices apart");
}

/// What people paste is found in every spelling of it, in whatever field it stands.
#[tokio::test]
async fn what_is_pasted_is_found_wherever_it_stands() {
    const IPS: [&str; 5] = ["10.20.30.177", "10.20.30.17", "110.20.30.177", "10.0.0.5", "2001:db8::beef:17"];
    let uid = |n: u128| views_conformance::device(n, "").uid;
    let (mac, ip) = ("00:00:5e:00:53:01", "10.20.30.177");
    let eighth = uid(8);
    let names = [
        "core",
        "core 10.20.30.177 left",
        "110.20.30.1779",
        "10.20.30.17",
        "at 00-00-5E-00-53-01",
        "host-00005E005301",
        "00:00:5e:00:53:0",
        "5e:00:53:01",
        &uid(7),
        eighth.trim_start_matches("sr:"),
    ];
    let new = (1..=240).map(|n: u128| DeviceChange {
        name: Some(names[n as usize % names.len()].to_owned()),
        model: Some(names[n as usize / names.len() % names.len()].to_owned()).filter(|_| n.is_multiple_of(3)),
        mac: Some(["00:00:5e:00:53:01", "00:00:5e:00:53:11", ""][n as usize % 3].to_owned())
            .filter(|mac| !mac.is_empty()),
        ip: Some(IPS[n as usize % IPS.len()].to_owned()),
        ..views_conformance::device(n, "")
    });
    let new: Vec<DeviceChange> = new.collect();
    let database = Database::migrated_timescale().await;
    let devices = Changes { new: new.clone(), ..Changes::default() };
    let views = database.views().await;
    fill(&views, "acme", EpochOutput { devices, ..EpochOutput::default() }).await;
    views.make_indexes(1).await.unwrap();
    let mut reader = reader(&database).await;
    let spelt = ["00:00:5E:00:53:01", "00-00-5e-00-53-01", "0000.5e00.5301", "00005E005301"];
    let pasted = spelt.map(|term| (term.to_owned(), vec![mac.to_owned(), mac.replace(':', "")]));
    let address = [ip, "10.0.0.5", "10.20.30.1", "0.20.30.17", "2001:db8::beef:1", "2001:db8::beef:17"]
        .map(|term| (term.to_owned(), vec![]));
    // Parts of addresses and of MACs, in quotes: what stands before `:` is a field otherwise.
    let part = ["20.30.17", "0.5", "beef:17", "DB8::BEEF", "beef", "2001", "5e:00:53", "E:00", "53:11", "5e"]
        .map(|term| (format!("'{term}'"), vec![term.to_lowercase()]));
    let device = [7, 300].map(|n| (uid(n), Vec::new()));
    for (term, mut texts) in pasted.into_iter().chain(address).chain(part).chain(device) {
        texts.push(term.to_lowercase());
        let is_found = |device: &&DeviceChange| {
            let fields =
                [&device.name, &device.hostname, &device.ip, &device.mac, &device.vendor_name, &device.model];
            let fields = fields.into_iter().flatten().map(|text| text.to_lowercase());
            let mut fields = fields.chain([device.uid.clone()]);
            fields.any(|field| texts.iter().any(|text| field.contains(text)))
        };
        let mut expected: Vec<String> = new.iter().filter(is_found).map(|of| of.uid.clone()).collect();
        expected.sort();
        for order in ["", "sort:uid", "sort:last_seen"] {
            let query = format!("in:devices {term} {order} fields:uid limit:1000");
            let answer = ask(&mut reader, "acme", &query, 0).await;
            let answer = answer.unwrap_or_else(|errors| panic!("{query}: {errors:?}"));
            let mut found: Vec<&str> = answer.rows.iter().map(|row| row[0].as_str().unwrap()).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{query}");
        }
        // The others have it not.
        let query = format!("in:devices !{term} fields:uid limit:1000");
        let answer = ask(&mut reader, "acme", &query, 0).await;
        let answer = answer.unwrap_or_else(|errors| panic!("{query}: {errors:?}"));
        assert_eq!(answer.rows.len(), new.len() - expected.len(), "{query}");
        assert!(
            expected.len() < new.len() && (!expected.is_empty() || term.contains(&uid(300))),
            "{term} tells apart"
        );
    }
    // As IPv6 it is that address, and not a part of others.
    let answer =
        ask(&mut reader, "acme", "in:devices ::ffff:10.20.30.17 fields:ip limit:1000", 0).await.unwrap();
    assert!(
        !answer.rows.is_empty() && answer.rows.iter().all(|row| row[0] == "10.20.30.17"),
        "{:?}",
        answer.rows
    );
}

/// What a host name begins with is a range of all host names, whatever characters stand at its end.
#[tokio::test]
async fn host_names_are_found_by_how_they_begin() {
    let mut runner = TestRunner::deterministic();
    const CHARACTERS: [&str; 9] = ["a", "b", "%", "_", "\\", "é", "\u{d7ff}", "\u{e000}", "\u{10ffff}"];
    let mut text = |most| {
        vec(proptest::sample::select(&CHARACTERS[..]), 1..most)
            .new_tree(&mut runner)
            .unwrap()
            .current()
            .concat()
    };
    let new = (1..=300).map(|n| DeviceChange { hostname: Some(text(5)), ..views_conformance::device(n, "") });
    let new: Vec<DeviceChange> = new.collect();
    let database = Database::migrated_timescale().await;
    let devices = Changes { new: new.clone(), ..Changes::default() };
    fill(&database.views().await, "acme", EpochOutput { devices, ..EpochOutput::default() }).await;
    let mut reader = reader(&database).await;
    let mut told_apart = 0;
    for n in 0..80 {
        let (begin, end) = (text(4), if n % 4 == 0 { text(2) } else { String::new() });
        let escaped = [&begin, &end].map(|text| text.replace('\\', "\\\\").replace('%', "\\%"));
        let query = format!("in:devices hostname:{}%{} fields:uid limit:1000", escaped[0], escaped[1]);
        let answer = ask(&mut reader, "acme", &query, 0).await;
        let answer = answer.unwrap_or_else(|errors| panic!("{query}: {errors:?}"));
        let mut found: Vec<&str> = answer.rows.iter().map(|row| row[0].as_str().unwrap()).collect();
        found.sort_unstable();
        let is_found = |device: &&DeviceChange| {
            let hostname = device.hostname.as_ref().unwrap();
            hostname.strip_prefix(&begin).is_some_and(|rest| rest.ends_with(&end))
        };
        let mut expected: Vec<String> = new.iter().filter(is_found).map(|of| of.uid.clone()).collect();
        expected.sort();
        assert_eq!(found, expected, "{query}");
        told_apart += usize::from(!found.is_empty());
    }
    assert!(told_apart > 30, "{told_apart} beginnings find something");
}
