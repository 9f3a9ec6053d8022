//! Nothing of a value or a name ever reaches the text of a statement.

use proptest::prelude::*;
use serviceradar_srql::{
    catalogue::{Kind, Standing, entities},
    plan::{Extent, plan},
};

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

proptest! {
    /// Whatever two values of one type are, their statements are one.
    #[test]
    fn statements_of_two_values_are_one(one in "[^\\x00]{1,30}", other in "[^\\x00]{1,30}", number in any::<i64>()) {
        for entity in entities().filter(|entity| entity.standing != Standing::Awaited) {
            for field in entity.fields {
                let (a, b) = match field.kind {
                    Kind::Text | Kind::AnyOf | Kind::AllOf | Kind::Map | Kind::Hostname | Kind::Claim | Kind::NamedClaim => {
                        (quoted(&one), quoted(&other))
                    }
                    Kind::Integer => (number.to_string(), "0".to_owned()),
                    Kind::Address => (format!("10.0.0.{}", number & 0xff), "fe80::/64".to_owned()),
                    Kind::Bool => ("true".to_owned(), "no".to_owned()),
                    _ => continue,
                };
                let sql = |value: &str| {
                    let query = format!("in:{} {}:{value}", entity.name(), field.names[0]);
                    plan(&query, 0, Extent::first()).map(|plan| plan.statements[0].sql.clone()).map_err(|errors| TestCaseError::fail(format!("{query}: {errors:?}")))
                };
                prop_assert_eq!(sql(&a)?, sql(&b)?);
            }
        }
    }

    /// Nor what is asked of elements, and where rates are compared with something.
    #[test]
    fn statements_of_two_elements_are_one(one in "[^\\x00]{1,30}", other in "[^\\x00]{1,30}", numbers in any::<[u32; 2]>(), macs in any::<[u32; 2]>()) {
        let sql = |text: &str, number: u32, mac: u32| {
            let (ip, name) = (std::net::Ipv4Addr::from(number), quoted(text));
            let query = format!("in:devices network_interfaces:(ip:{ip} !mac:0000{mac:08x} OR name:{name}) network_interfaces.name:{name} stats:rate(risk_score) having:rate_risk_score>{number}");
            plan(&query, 0, Extent::first()).map(|plan| plan.statements[0].sql.clone()).map_err(|errors| TestCaseError::fail(format!("{query}: {errors:?}")))
        };
        prop_assert_eq!(sql(&one, numbers[0], macs[0])?, sql(&other, numbers[1], macs[1])?);
    }

    /// Nor does a key of a map, an alias, or a free term; one that is an address is asked for as one.
    #[test]
    fn names_that_people_give_are_no_part_of_a_statement(key in "[^\\x00]{1,30}", other in "[^\\x00]{1,30}", alias in "[a-z_]{1,20}") {
        let sql = |key: &str, alias: &str| {
            let query = format!("in:devices metadata.{}:x {} stats:'count() as {alias}' having:{alias}>1", quoted(key), quoted(&format!("z{key}")));
            plan(&query, 0, Extent::first()).map(|plan| plan.statements[0].sql.clone()).map_err(|errors| TestCaseError::fail(format!("{query}: {errors:?}")))
        };
        prop_assert_eq!(sql(&key, &alias)?, sql(&other, "n")?);
    }

    /// Whatever is asked, it is answered or refused with a place in it.
    #[test]
    fn mistakes_are_told_with_a_place(query in "(in:devices )?([a-z_.]{1,9}:)?[!()\\[\\],:.\"'`\\\\%*<>= a-zA-Z0-9é-]{0,40}") {
        if let Err(errors) = plan(&query, 0, Extent::first()) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(error.span.0 <= error.span.1 && error.span.1 <= query.len(), "{:?}", error);
                prop_assert!(query.get(error.span.0..error.span.1).is_some(), "{:?}", error);
            }
        }
    }
}

#[test]
fn a_hundred_thousand_brackets_end_in_an_error() {
    for open in ["(", "!(", "a:(", "a:[", "x(", "'", "not "] {
        let query = format!("in:devices {}", open.repeat(16_000 / open.len()));
        assert!(plan(&query, 0, Extent::first()).is_err(), "{open}");
        assert!(plan(&open.repeat(100_000), 0, Extent::first()).is_err(), "{open}");
    }
}
