//! Every field of every entity: each operator is run, and each predicate and its negation share out the rows.

use serviceradar_materializers::views::Views;
use serviceradar_srql::{
    catalogue::{Entity, Field, Kind, Standing, entities},
    complete::complete,
    error::Code,
    reader::Reader,
};
use serviceradar_tests::{database::Database, views_conformance};

use super::{ask, fill, reader};

/// A moment after all that is in the views.
pub(super) const NOW: i64 = 1_767_312_000_000_000;

/// What can be asked of a field.
fn values(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Text | Kind::Map => &["*", "armis", "%a%", "(armis,%o%)", "''", "'x \"y\" z'", "\\%"],
        Kind::Hostname => &["*", "X.", "x%", "(x,y)"],
        Kind::Mac | Kind::MacDigits => {
            &["*", "00-1B-21-AA-BB-01", "00:1b:%", "(001b21aabb01,00:1b:21:aa:bb:02)"]
        }
        Kind::Address => &[
            "*",
            "10.0.0.1",
            "10.0.0.7/8",
            "fe80::/10",
            "10.0.0.1..10.0.0.50",
            "..10.0.0.9",
            "10.0.%",
            "(10.0.0.1,10.0.1.0/24)",
        ],
        Kind::Uid => &[
            "*",
            "sr:00000000-0000-0000-0000-000000000001",
            "(00000000-0000-0000-0000-000000000001,sr:00000000-0000-0000-0000-000000000007)",
        ],
        Kind::Integer => &["*", "1", ">0", ">=1", "<2", "<=-1.5", "0..2", "1..", "..1", "(1,2)"],
        Kind::Bool => &["*", "true", "NO", "(true,false)"],
        Kind::Time => &[
            "*",
            "last_30d",
            "today",
            "2026-01-01",
            "<-1d",
            ">=2026-01-01",
            "[2026-01-01,]",
            "2026-01-01..2026-01-02",
        ],
        Kind::AnyOf | Kind::AllOf => &["*", "armis", "%r%", "(armis,sweep)", "(armis,%x%)"],
        Kind::Claim | Kind::NamedClaim => {
            &["*", "00-1B-21-AA-BB-01", "00:1b:%", "(X.,mac:001b21aabb01,%a%)", "''"]
        }
        Kind::Json | Kind::Nested => &["*"],
    }
}

async fn count(reader: &mut Reader, query: &str) -> i64 {
    let answer = ask(reader, "acme", query, NOW).await;
    let answer = answer.unwrap_or_else(|errors| panic!("{query}: {errors:?}"));
    answer.rows[0][0].as_i64().unwrap()
}

/// Of each tenant the same rows, so that one that sees both counts twice.
pub(super) async fn filled() -> Database {
    let database = Database::migrated_timescale().await;
    let views = database.views().await;
    for tenant in ["acme", "other"] {
        fill(&views, tenant, views_conformance::first_epoch().output).await;
    }
    database
}

async fn check_field(reader: &mut Reader, entity: &Entity, field: &Field, all: i64) {
    let (of, name) = (entity.name(), field.names[0]);
    let base = format!("in:{of} include_retired:true stats:count()");
    let keys: &[&str] = if field.kind == Kind::Map { &["", ".name", ".'a \"b'"] } else { &[""] };
    for key in keys {
        let kind = if key.is_empty() { field.kind } else { Kind::Text };
        for value in values(kind) {
            let matched = count(reader, &format!("{base} {name}{key}:{value}")).await;
            let others = count(reader, &format!("{base} !{name}{key}:{value}")).await;
            assert_eq!(matched + others, all, "{of}.{name}{key}:{value}");
            let twice =
                count(reader, &format!("{base} !(!{name}{key}:{value} OR !{name}{key}:{value})")).await;
            assert_eq!(twice, matched, "{of}.{name}{key}:{value}");
        }
    }
    for member in field.nested {
        for value in values(member.kind) {
            let path = format!("{name}.{}:{value}", member.names[0]);
            let within = format!("{name}:({}:{value})", member.names[0]);
            let matched = count(reader, &format!("{base} {path}")).await;
            assert_eq!(count(reader, &format!("{base} {within}")).await, matched, "{of} {path}");
            for others in [format!("!{path}"), format!("!{within}")] {
                assert_eq!(count(reader, &format!("{base} {others}")).await, all - matched, "{of} {others}");
            }
        }
    }
    let query = format!("in:{of} include_retired:true stats:'count() by {name}'");
    let grouped = ask(reader, "acme", &query, NOW).await;
    match grouped {
        Ok(answer) => {
            let counts = answer.rows.iter().map(|row| row[1].as_i64().unwrap());
            assert_eq!(counts.sum::<i64>(), all, "{of} by {name}");
            assert!(field.kind.is_groupable(), "{of} by {name}");
        }
        Err(errors) => {
            assert!(
                !field.kind.is_groupable() && errors[0].code == Code::NotGroupable,
                "{of} by {name}: {errors:?}"
            );
        }
    }
    for way in ["", ":asc", ":desc"] {
        let query = format!("in:{of} include_retired:true sort:{name}{way} fields:{name} count:true");
        match ask(reader, "acme", &query, NOW).await {
            Ok(answer) => {
                assert_eq!((answer.rows.len() as i64, answer.total), (all, Some(all)), "{query}");
                assert_eq!(answer.columns.len(), 1, "{query}");
            }
            Err(errors) => {
                assert!(matches!(field.kind, Kind::Map | Kind::Nested | Kind::Json), "{query}: {errors:?}");
                assert_eq!(errors[0].code, Code::BadOperator, "{query}");
            }
        }
    }
    let agg = format!("in:{of} agg:");
    let (_, functions) = complete(&agg, agg.len());
    assert!(functions.len() > 10, "{functions:?}");
    for function in functions.into_iter().map(|offer| offer.text) {
        let query = format!("in:{of} include_retired:true stats:{function}({name})");
        let whole = ask(reader, "acme", &query, NOW).await;
        match &whole {
            Ok(answer) => assert_eq!(answer.rows.len(), 1, "{query}"),
            Err(errors) => assert_eq!(errors[0].code, Code::BadOperator, "{query}: {errors:?}"),
        }
        // What can be computed of all can be computed of a length of time.
        let query = format!("in:{of} include_retired:true bucket:1d agg:{function} value_field:{name}");
        let by_time = ask(reader, "acme", &query, NOW).await;
        let is_timed = entity.time.is_some();
        assert_eq!(by_time.is_ok(), is_timed && whole.is_ok(), "{query}: {by_time:?}");
        if entity.time.is_none() {
            assert!(!matches!(&*function, "first" | "last" | "rate") || whole.is_err(), "{query}");
        }
    }
}

/// By lengths of time: as many rows as have one; and each thing's newest row is one of its rows.
async fn check_time(reader: &mut Reader, entity: &Entity, all: i64) {
    let of = entity.name();
    let base = format!("in:{of} include_retired:true");
    // What has no time is in no bucket, and as a group one more.
    let timed = match entity.time {
        Some(time) => count(reader, &format!("{base} stats:count({time})")).await,
        None => 0,
    };
    for clauses in ["bucket:1h", "bucket:1mo fill:null", "latest:true", "bucket:1d stats:count()"] {
        let query = format!("{base} {clauses}");
        match ask(reader, "acme", &query, NOW).await {
            Ok(answer) if clauses.starts_with("bucket") => {
                assert!(entity.time.is_some(), "{query}");
                let at = answer.columns.iter().position(|of| matches!(&*of.name, "value" | "count")).unwrap();
                let counts = answer.rows.iter().map(|row| row[at].as_i64().unwrap_or_default());
                let wanted = if clauses.contains("stats") { all } else { timed };
                assert_eq!(counts.sum::<i64>(), wanted, "{query}");
            }
            Ok(answer) => assert!(answer.rows.len() as i64 <= all && entity.time.is_some(), "{query}"),
            Err(errors) => {
                assert!(entity.time.is_none() && errors[0].code == Code::BadOperator, "{query}: {errors:?}");
            }
        }
    }
    for field in entity.fields.iter().filter(|_| entity.time.is_some()) {
        let query = format!("{base} bucket:1d series:{}", field.names[0]);
        let is_series = field.kind.is_groupable() && !matches!(field.kind, Kind::AnyOf | Kind::AllOf);
        assert_eq!(ask(reader, "acme", &query, NOW).await.is_ok(), is_series, "{query}");
    }
}

#[tokio::test]
async fn every_field_takes_its_operators_and_shares_out_the_rows_of_one_tenant() {
    let database = filled().await;
    let mut reader = reader(&database).await;
    for entity in entities().filter(|entity| entity.standing != Standing::Awaited) {
        let of = entity.name();
        let all = count(&mut reader, &format!("in:{of} include_retired:true stats:count()")).await;
        let rows = ask(&mut reader, "acme", &format!("in:{of} include_retired:true"), NOW).await.unwrap();
        assert_eq!(rows.rows.len() as i64, all, "{of}");
        let known = [
            ("devices", 2),
            ("device_records", 2),
            ("decisions", 2),
            ("device_history", 2),
            ("snapshots", 1),
        ];
        if let Some((_, wanted)) = known.iter().find(|(name, _)| *name == of) {
            assert_eq!(all, *wanted, "{of}");
        }
        for field in entity.fields {
            check_field(&mut reader, entity, field, all).await;
        }
        check_time(&mut reader, entity, all).await;
        for alias in entity.names {
            assert_eq!(
                count(&mut reader, &format!("IN:{alias} include_retired:true stats:count(*)")).await,
                all
            );
        }
        count(&mut reader, &format!("in:{of} stats:count() armis !\"no such text\"")).await;
        if entity.time.is_some() {
            count(&mut reader, &format!("in:{of} stats:count() time:last_7d tz:Europe/Berlin")).await;
        }
        if entity.device.is_some() && of != "devices" {
            let with = count(&mut reader, &format!("in:{of} stats:count() device.name:%o%")).await;
            let without = count(&mut reader, &format!("in:{of} stats:count() !device.name:%o%")).await;
            assert_eq!(with + without, all, "{of}");
            let query = format!("in:{of} stats:'count() by device.type' sort:device.type");
            assert!(!ask(&mut reader, "acme", &query, NOW).await.unwrap().rows.is_empty() || all == 0);
        }
    }
}

/// What people paste is found as the views have it, and what leads on is followed only where a device is meant.
#[tokio::test]
async fn ids_and_macs_are_found_however_they_are_written() {
    let database = filled().await;
    let mut reader = reader(&database).await;
    let one = "sr:00000000-0000-0000-0000-000000000001";
    for (query, wanted) in [
        (format!("in:devices {one}"), 1),
        ("in:devices 00-1B-21-AA-BB-01".to_owned(), 1),
        ("in:device_identifiers 00:1b:21:aa:bb:01".to_owned(), 1),
        ("in:device_identifiers 001b21aabb01".to_owned(), 1),
        ("in:devices 10.0.0.1".to_owned(), 2),
        // What a claim is called leads to the first device.
        ("in:devices uid:sr:00000000-0000-0000-0000-000000000007".to_owned(), 1),
        ("in:device_identifiers claim_uid:sr:00000000-0000-0000-0000-000000000007".to_owned(), 1),
        (format!("in:device_identifiers claim_uid:{one}"), 0),
        ("in:device_counts value:%".to_owned(), 0),
        ("in:device_records attributes:na%".to_owned(), 1),
        ("in:devices stats:'sum(if(ip = 10.0.0.0/8,1,0)) as n' having:n=2".to_owned(), 1),
        (format!("in:devices stats:'sum(if(uid = {one},1,0)) as n' having:n=1"), 1),
        ("in:devices stats:'count(tags) as n' having:n=0".to_owned(), 1),
    ] {
        let answer = ask(&mut reader, "acme", &query, NOW)
            .await
            .unwrap_or_else(|errors| panic!("{query}: {errors:?}"));
        assert_eq!(answer.rows.len(), wanted, "{query}");
    }
    let answer = ask(&mut reader, "acme", &format!("in:devices {one}"), NOW).await.unwrap();
    let column = |name: &str| answer.columns.iter().position(|column| column.name == name).unwrap();
    assert_eq!(answer.rows[0][column("uid")], one);
    assert_eq!(answer.rows[0][column("device_id")], one);
}

/// What there is of one tenant is nothing of another's.
#[tokio::test]
async fn a_tenant_without_rows_sees_none() {
    let database = filled().await;
    let mut reader = reader(&database).await;
    for entity in entities().filter(|entity| entity.standing != Standing::Awaited) {
        for field in entity.fields {
            for value in values(field.kind) {
                for not in ["", "!"] {
                    let query =
                        format!("in:{} include_retired:true {not}{}:{value}", entity.name(), field.names[0]);
                    let answer = ask(&mut reader, "third", &query, NOW).await.unwrap();
                    assert_eq!(answer.rows.len(), 0, "{query}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_nobody_collects_is_said_to_be_so() {
    let database = Database::migrated_timescale().await;
    let mut reader = reader(&database).await;
    for entity in entities().filter(|entity| entity.standing == Standing::Awaited) {
        let errors = ask(&mut reader, "acme", &format!("in:{}", entity.name()), NOW).await.unwrap_err();
        assert!(errors[0].message.contains("no data is collected"), "{errors:?}");
    }
    let views: &dyn Views = &database.views().await;
    drop(views.take("acme", "w", "f1", &serde_json::Value::Null).await.unwrap());
    assert_eq!(ask(&mut reader, "acme", "in:devices", NOW).await.unwrap().rows.len(), 0);
}
