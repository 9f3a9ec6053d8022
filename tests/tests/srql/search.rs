//! What is answered from the few columns that searches go by is what all columns tell.

use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::Value;
use serviceradar_materializers::views::Views;
use serviceradar_schemas::DeviceChange;
use serviceradar_srql::{
    cursor::Cursors,
    plan::{Extent, plan},
    reader::Reader,
};
use serviceradar_streams::{changes::Changes, normalise::FIELD_BYTES_MAX, rows::EpochOutput};
use serviceradar_tests::{database::Database, views_conformance};

use super::{ask, fill, pages, reader};

const NOW: i64 = 1_767_312_000_000_000;
const DEVICES: u128 = 300;
/// What every device has, and no search goes by.
const OF_ALL_COLUMNS: &str = "first_seen:*";

/// A text as long as a field can be, and like no other.
fn longest(random: &mut ChaCha8Rng) -> String {
    (0..FIELD_BYTES_MAX).map(|_| char::from(random.random_range(b'!'..=b'~'))).collect()
}

/// Devices of which many share a value, or have none; some are retired.
fn devices(seed: u64) -> Vec<DeviceChange> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let beginning = "n".repeat(200);
    let devices = (1..=DEVICES).map(|n| {
        let mut one_of = |texts: &[&str]| texts[random.random_range(0..texts.len())].to_owned();
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let host = format!("{}-{:02}", one_of(&["web", "db", "web-0"]), n % 23);
        let name = match n % 5 {
            0 => format!("{beginning}{}", one_of(&["a", "B", "c", ""])),
            1 => host.to_uppercase(),
            _ => one_of(&["", "Web 01\nof us", "ä-web", "10% \\ x"]),
        };
        DeviceChange {
            partition: one_of(&["default", "lab"]),
            name: some(name),
            hostname: Some(host).filter(|_| n % 7 > 0),
            ip: some(one_of(&["", "10.0.0.1", "10.0.0.2", "10.0.1.9", "fe80::1"])),
            mac: some(one_of(&["", "00:00:5e:00:53:01", "00:00:5e:00:53:02"])),
            vendor_name: some(one_of(&["", "Acme", "Cisco"])),
            site: some(one_of(&["", "dfw", "web-0"])),
            r#type: one_of(&["Server", "IOT"]),
            state: one_of(&["active", "active", "stale", "retired"]),
            ..views_conformance::device(n, "")
        }
    });
    let mut devices: Vec<DeviceChange> = devices.collect();
    devices.extend((DEVICES + 1..=DEVICES + 3).map(|n| DeviceChange {
        name: Some(longest(&mut random)),
        hostname: Some(longest(&mut random).to_lowercase()),
        vendor_name: Some(longest(&mut random)),
        site: Some(longest(&mut random)),
        ..views_conformance::device(n, "")
    }));
    devices
}

async fn filled() -> Database {
    let database = Database::migrated_timescale().await;
    let views = database.views().await;
    for (tenant, seed) in [("acme", 1), ("other", 2)] {
        let devices = Changes { new: devices(seed), ..Changes::default() };
        fill(&views, tenant, EpochOutput { devices, ..EpochOutput::default() }).await;
    }
    views.make_indexes(1).await.unwrap();
    database
}

fn is_of_search(query: &str) -> bool {
    let plan = plan(query, NOW, Extent::first()).unwrap_or_else(|errors| panic!("{query}: {errors:?}"));
    !plan.statements[0].sql.contains("FROM devices e WHERE")
}

/// All pages of a query.
async fn rows(reader: &mut Reader, query: &str) -> Vec<Vec<Value>> {
    let cursors = Cursors::new(b"key");
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let page = pages::page(reader, &cursors, query, cursor.as_deref()).await;
        let (more, next, _) = page.unwrap_or_else(|errors| panic!("{query}: {errors:?}"));
        rows.extend(more);
        cursor = next;
        if cursor.is_none() {
            return rows;
        }
    }
}

#[tokio::test]
async fn rows_that_few_columns_find_are_those_that_all_find() {
    let database = filled().await;
    let mut reader = reader(&database).await;
    let mut found = 0;
    for filter in [
        "hostname:web-%",
        "hostname:%web%",
        "web-0",
        "'web-0*1'",
        "'web 01\\nof'",
        "web type:Server site:(dfw,web-0)",
        "!web-0 hostname:w%",
        "include_retired:true web",
        "state:retired web-0",
        "(vendor_name:Acme OR !site:*) hostname:db%",
        "discovery_sources:armis hostname:db%",
        "ip:10.0.0.0/24",
        "ip:(10.0.0.1,10.0.1.0/30) name:*",
        "nnnn",
        "10.0.0.1",
        "fe80::1",
        "00-00-5E-00-53-01 web",
        "mac:00005E005302",
    ] {
        for order in ["", "sort:name:desc", "sort:hostname", "sort:type,ip:desc"] {
            let query = format!("in:devices {filter} {order} fields:uid,name,hostname,records");
            let of_all = format!("{query} {OF_ALL_COLUMNS}");
            assert!(is_of_search(&query) && !is_of_search(&of_all), "{query}");
            let few = rows(&mut reader, &query).await;
            assert_eq!(few, rows(&mut reader, &of_all).await, "{query}");
            found += few.len();
        }
    }
    assert!(found > 1_000, "{found}");
    for filter in [
        "",
        "model:x web",
        "mac:* web",
        "mac:00:00:5e:%",
        "web sort:uid",
        "web sort:last_seen",
        "time:last_7d web",
    ] {
        assert!(!is_of_search(&format!("in:devices {filter}")), "{filter}");
    }
}

#[tokio::test]
async fn groups_of_few_columns_are_those_of_all() {
    let database = filled().await;
    let mut reader = reader(&database).await;
    for filter in ["", "include_retired:true", "state:retired", "web", "!web ip:10.0.0.0/24", "hostname:*"] {
        for groups in [
            "'count()'",
            "'count() by type'",
            "'count() as n by vendor_name' having:n>3",
            "'count() by site' sort:site",
            "'count() by state, type'",
            "'count() by ip'",
            "'count_distinct(name) as n, min(hostname), values(site), sum(if(state = retired,1,0)) as r by type'",
        ] {
            let query = format!("in:devices {filter} stats:{groups}");
            let of_all = format!("{query} {OF_ALL_COLUMNS}");
            assert!(is_of_search(&query) && !is_of_search(&of_all), "{query}");
            let mut answers = Vec::new();
            for query in [&query, &of_all] {
                let answer = ask(&mut reader, "acme", query, NOW).await;
                answers.push(answer.unwrap_or_else(|errors| panic!("{query}: {errors:?}")).rows);
            }
            assert_eq!(answers[0], answers[1], "{query}");
            assert!(!answers[0].is_empty(), "{query}");
        }
    }
    for groups in ["'last(name)'", "'avg(risk_score) by site'", "'count() by partition'"] {
        assert!(!is_of_search(&format!("in:devices stats:{groups}")), "{groups}");
    }
}
