//! Claims as people write them, in the form in which the views have them: that of their namespace.

use serviceradar_streams::normalise::claim_key;

use crate::{
    literal::like,
    statement::{Parameter, Statement},
    syntax::Scalar,
};

/// Namespaces whose values have a form of their own. Of any other a value is what it is.
const NORMALISED: [&str; 4] = ["mac", "serial", "hwuuid", "hostname"];

/// A value as claims of a namespace have it; none where no claim can have it.
fn normal(namespace: &str, value: &str) -> Option<String> {
    claim_key(namespace, value).ok().map(|key| key.text().1.to_string())
}

/// A claim written as `namespace:value`, or as a MAC alone.
pub(crate) fn named(text: &str) -> String {
    let normal = |namespace: &str, value: &str| Some(format!("{namespace}:{}", normal(namespace, value)?));
    let whole = text.split_once(':').filter(|(namespace, _)| NORMALISED.contains(namespace));
    let whole = whole.and_then(|(namespace, value)| normal(namespace, value));
    whole.or_else(|| normal("mac", text)).unwrap_or_else(|| text.to_owned())
}

/// Conditions, any of which makes a value, beside its namespace, one of these.
pub(crate) fn are(
    value: &str,
    namespace: &str,
    exact: &[&Scalar],
    patterns: &[&Scalar],
    out: &mut Statement,
) -> Vec<String> {
    let mut sql = Vec::new();
    if !exact.is_empty() {
        let texts: Vec<String> = exact.iter().map(|item| item.text.clone()).collect();
        let mut all = texts.clone();
        let mut cases = String::new();
        for of in NORMALISED {
            let forms: Vec<String> = texts.iter().filter_map(|text| normal(of, text)).collect();
            all.extend_from_slice(&forms);
            cases.push_str(&format!(" WHEN '{of}' THEN {}", out.bind(Parameter::Texts(forms))));
        }
        let texts = out.bind(Parameter::Texts(texts));
        // By all forms at once an index finds it; by that of its namespace it is meant. What is empty is no value.
        let all = out.bind(Parameter::Texts(all));
        sql.push(format!(
            "({value} = ANY (array_remove({all}, '')) AND {value} = ANY (CASE {namespace}{cases} ELSE {texts} END))"
        ));
    }
    for item in patterns {
        let pattern = like(item);
        let digits = out.bind(Parameter::Text(pattern.replace([':', '-'], "")));
        let pattern = out.bind(Parameter::Text(pattern));
        sql.push(format!(
            "({value} <> '' AND {value} ILIKE CASE {namespace} WHEN 'mac' THEN {digits} ELSE {pattern} END)"
        ));
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_what_it_means_and_else_itself() {
        for (given, wanted) in [
            ("mac:00-1B-21-AA-BB-01", "mac:001b21aabb01"),
            ("001b.21aa.bb01", "mac:001b21aabb01"),
            ("00:1b:21:aa:bb:01", "mac:001b21aabb01"),
            ("serial:cisco: abc1 ", "serial:CISCO:ABC1"),
            ("hostname:HOST-1.", "hostname:host-1"),
            ("armis/hq:AbC", "armis/hq:AbC"),
            ("mac:nobody's", "mac:nobody's"),
            ("", ""),
        ] {
            assert_eq!(named(given), wanted);
            assert_eq!(named(wanted), wanted);
        }
    }
}
