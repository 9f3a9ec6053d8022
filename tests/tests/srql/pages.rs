//! Pages: forwards and backwards, whatever rows are sorted by, and whatever comes and goes meanwhile.

use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::Value;
use serviceradar_schemas::DeviceChange;
use serviceradar_srql::{
    cursor::{Asker, Cursors},
    error::{Code, QueryError},
    reader::Reader,
};
use serviceradar_streams::{changes::Changes, rows::EpochOutput};
use serviceradar_tests::{database::Database, views_conformance};

use super::{fill, reader};

const NOW: i64 = 1_767_312_000_000_000;
const DEVICES: u128 = 60;
const ANNA: Asker<'static> = Asker { tenant: "acme", principal: "anna" };

/// Devices of which many share a value, or have none.
fn devices() -> Vec<DeviceChange> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let one_of = |random: &mut ChaCha8Rng, texts: &[&str]| {
        let text = texts[random.random_range(0..texts.len())];
        (!text.is_empty()).then(|| text.to_owned())
    };
    (1..=DEVICES)
        .map(|n| DeviceChange {
            name: one_of(&mut random, &["", "a", "B", "it's \"so\"", "ä", "10% \\ x"]),
            vendor_name: one_of(&mut random, &["", "Acme", "Cisco"]),
            risk_score: random.random_bool(0.6).then(|| random.random_range(0..3)),
            is_available: random.random_bool(0.7).then(|| random.random()),
            ip: one_of(&mut random, &["", "10.0.0.1", "10.0.0.2", "fe80::1"]),
            last_seen: NOW - random.random_range(0..5) * 4_000_001,
            tags: [("site".to_owned(), one_of(&mut random, &["x", "y"]).unwrap())]
                .into_iter()
                .filter(|_| n % 3 > 0)
                .collect(),
            ..views_conformance::device(n, "")
        })
        .collect()
}

async fn filled() -> Database {
    let database = Database::migrated_timescale().await;
    let views = database.views().await;
    for tenant in ["acme", "other"] {
        let output = EpochOutput {
            devices: Changes { new: devices(), ..Changes::default() },
            ..EpochOutput::default()
        };
        fill(&views, tenant, output).await;
    }
    database
}

/// Rows of a page, and cursors to the next and the one before.
pub(super) type Page = (Vec<Vec<Value>>, Option<String>, Option<String>);

pub(super) async fn page(
    reader: &mut Reader,
    cursors: &Cursors,
    query: &str,
    cursor: Option<&str>,
) -> Result<Page, Vec<QueryError>> {
    let (plan, now) = cursors.plan(ANNA, query, NOW, Some(7), cursor)?;
    let answer = reader.answer("acme", &plan).await.map_err(|error| vec![error])?;
    let write = |from| cursors.write(ANNA, &plan, now, from);
    Ok((answer.rows, answer.next.map(write), answer.previous.map(write)))
}

#[tokio::test]
async fn pages_are_the_rows_in_order_forwards_and_backwards() {
    let database = filled().await;
    let mut reader = reader(&database).await;
    let cursors = Cursors::new(b"key");
    for clauses in [
        "",
        "sort:name",
        "sort:name:desc",
        "sort:vendor_name,risk_score:desc",
        "sort:risk_score:desc,name:desc,uid:desc",
        "sort:is_available",
        "sort:ip:desc",
        "sort:last_seen",
        "sort:last_seen:asc,vendor_name:desc",
        "sort:tags.site:desc",
        "sort:discovery_sources",
        "sort:uid:desc",
        // By an index of words, and by chance.
        "acm",
        "acm sort:uid:desc",
        "stats:'count() as n, avg(risk_score) as risk by name, tags.site'",
        "stats:'count() as n, last(name) as one by vendor_name, is_available' sort:one:desc",
        "bucket:1s series:vendor_name",
    ] {
        let query = format!("in:devices {clauses}");
        let (all, next, previous) =
            page(&mut reader, &cursors, &format!("{query} limit:1000"), None).await.unwrap();
        assert!(all.len() > 7 && next.is_none() && previous.is_none(), "{query}: {}", all.len());
        let mut pages = vec![page(&mut reader, &cursors, &query, None).await.unwrap()];
        while let Some(next) = pages.last().unwrap().1.clone() {
            pages.push(page(&mut reader, &cursors, &query, Some(&next)).await.unwrap());
        }
        let forwards: Vec<_> = pages.iter().flat_map(|(rows, ..)| rows.clone()).collect();
        if query.contains("bucket") {
            // Those of the newest buckets: what is older has no page.
            assert!(all.ends_with(&forwards), "{query}");
            continue;
        }
        assert_eq!(forwards, all, "{query}");
        let mut back = vec![];
        let mut before = pages.last().unwrap().2.clone();
        while let Some(cursor) = before {
            let (rows, next, previous) = page(&mut reader, &cursors, &query, Some(&cursor)).await.unwrap();
            assert!(next.is_some(), "{query}");
            back.splice(0..0, rows);
            before = previous;
        }
        let last = pages.last().unwrap().0.len();
        assert_eq!(back, all[..all.len() - last], "{query}");
    }
}

#[tokio::test]
async fn what_stays_is_neither_skipped_nor_repeated_while_rows_come_and_go() {
    let database = filled().await;
    let mut reader = reader(&database).await;
    let client = database.client().await;
    let cursors = Cursors::new(b"key");
    for sort in ["sort:name", "sort:risk_score:desc"] {
        let query = format!("in:devices {sort} fields:uid");
        let (whole, ..) = page(&mut reader, &cursors, &format!("{query} limit:1000"), None).await.unwrap();
        let (mut seen, mut gone) = (Vec::new(), Vec::new());
        let mut cursor = None;
        loop {
            let (rows, next, _) = page(&mut reader, &cursors, &query, cursor.as_deref()).await.unwrap();
            seen.extend(rows);
            let Some(next) = next else { break };
            cursor = Some(next);
            // The row that the cursor stands on goes, and the one after the next.
            for uid in [seen.last(), whole.get(seen.len() + gone.len() + 1)].into_iter().flatten() {
                let text = uid[0].as_str().unwrap().trim_start_matches("sr:").to_owned();
                let delete =
                    "DELETE FROM views_1.device_summaries WHERE uid = $1::text::uuid AND tenant = 'acme'";
                client.execute(delete, &[&text]).await.unwrap();
                if !seen.contains(uid) {
                    gone.push(uid.clone());
                }
            }
        }
        let stayed: Vec<_> = whole.into_iter().filter(|uid| !gone.contains(uid)).collect();
        assert_eq!(seen, stayed, "{query}");
    }
}

#[tokio::test]
async fn a_cursor_is_of_one_tenant_caller_and_query_and_of_us() {
    let database = filled().await;
    let mut reader = reader(&database).await;
    let cursors = Cursors::new(b"key");
    let (_, next, _) =
        page(&mut reader, &cursors, "in:devices last_seen:<-1s vendor_name:Acme", None).await.unwrap();
    let next = next.unwrap();
    let ask = |cursors: &Cursors, asker: Asker<'_>, query: &str, cursor: &str| {
        cursors.plan(asker, query, NOW + 60_000_000, Some(3), Some(cursor)).map(|(_, now)| now)
    };
    // However it is written, and whatever the time is now.
    for same in
        ["in:device last_seen:<-1s vendor:Acme", "last_seen:<-1s   vendor_name:'Acme' limit:9 in:devices"]
    {
        assert_eq!(ask(&cursors, ANNA, same, &next), Ok(NOW), "{same}");
    }
    let query = "in:devices last_seen:<-1s vendor_name:Acme";
    let refused = |found: Result<i64, Vec<QueryError>>| {
        let errors = found.expect_err("a cursor that is not theirs");
        assert_eq!(errors[0].code, Code::BadValue);
    };
    assert_eq!(ask(&cursors, ANNA, query, &next), Ok(NOW));
    refused(ask(&cursors, Asker { tenant: "other", ..ANNA }, query, &next));
    refused(ask(&cursors, Asker { principal: "bert", ..ANNA }, query, &next));
    refused(ask(&cursors, Asker { tenant: "acm", principal: "eanna" }, query, &next));
    refused(ask(&cursors, ANNA, "in:devices last_seen:<-1s vendor_name:Cisco", &next));
    refused(ask(&cursors, ANNA, "in:devices last_seen:<-1s vendor_name:Acme sort:ip", &next));
    refused(ask(&Cursors::new(b"other"), ANNA, query, &next));
    for at in 0..next.len() {
        let other = if next.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut tampered = next.clone();
        tampered.replace_range(at..=at, other);
        refused(ask(&cursors, ANNA, query, &tampered));
    }
    for garbage in ["", "x", "ä", &"A".repeat(100_000)] {
        refused(ask(&cursors, ANNA, query, garbage));
    }
}
