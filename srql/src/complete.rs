//! Completion: what may stand where the cursor is.

use serde::Serialize;

use crate::{
    catalogue::{self, Entity, Field, Kind, Standing},
    error::Span,
    stats::AGGREGATES,
    syntax::CLAUSES,
};

/// Most that is offered.
const OFFERED_MAX: usize = 50;

/// Something that may stand there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Offer {
    /// What to write in the place of the word.
    pub text: String,
    /// entity, clause, field, value or aggregate.
    pub kind: &'static str,
    /// What it says.
    pub label: String,
}

/// What may stand at a place of a query: the bytes that it would take the place of, and the offers.
pub fn complete(query: &str, at: usize) -> (Span, Vec<Offer>) {
    let mut at = at.min(query.len());
    while !query.is_char_boundary(at) {
        at -= 1;
    }
    let (before, _) = query.split_at(at);
    let begin = before.rfind([' ', '\t', '\n', '(', ')', '!']).map_or(0, |blank| blank + 1);
    let term = before.get(begin..).unwrap_or_default().trim_start_matches('-');
    let entity = entity_of(query);
    let Some((key, value)) = term.rsplit_once(':') else {
        let begin = at - term.len();
        // Within an aggregate: its fields.
        let is_within = before
            .rfind(['\'', '"', '`'])
            .is_some_and(|quote| before.get(..quote).is_some_and(|rest| rest.ends_with("stats:")));
        let mut offers = match nested_of(entity, before.get(..begin).unwrap_or_default()) {
            Some(of) => fields(of.nested, ":"),
            None if is_within => fields(fields_of(entity), ""),
            None => terms(entity),
        };
        if is_within {
            offers.extend(aggregates());
        }
        return ((begin, at), those_like(offers, term));
    };
    // Of a list the last item.
    let item = value.rsplit([',', '"', '\'']).next().unwrap_or_default();
    let offers = match key.to_lowercase().as_str() {
        "in" => catalogue::entities().map(|entity| offer(entity.name(), "entity", entity.label)).collect(),
        "sort" | "order" | "fields" | "series" | "value_field" => fields(fields_of(entity), ""),
        "count" | "latest" | "include_retired" | "stream" => truths(),
        "stats" => aggregates(),
        "agg" => AGGREGATES.iter().map(|name| offer(name, "aggregate", "")).collect(),
        "fill" => vec![offer("null", "value", "Gaps have no value")],
        name => match entity.and_then(|entity| entity.find(name)).map(|field| field.kind) {
            Some(Kind::Bool) => truths(),
            Some(Kind::Nested) => vec![offer("(", "value", "One element is so")],
            Some(Kind::Time) => ["last_1h", "last_24h", "last_7d", "today", "yesterday"]
                .iter()
                .map(|text| offer(text, "value", ""))
                .collect(),
            _ => Vec::new(),
        },
    };
    ((at - item.len(), at), those_like(offers, item))
}

fn offer(text: &str, kind: &'static str, label: &str) -> Offer {
    Offer { text: text.to_owned(), kind, label: label.to_owned() }
}

/// The entity that a query asks for, as far as it can be told.
fn entity_of(query: &str) -> Option<&'static Entity> {
    let mut named = query.split_whitespace().filter_map(|term| {
        let (key, name) = term.split_once(':')?;
        key.eq_ignore_ascii_case("in").then_some(name)
    });
    named.next_back().and_then(|name| catalogue::entity(name, (0, 0)).ok())
}

/// The nested field whose brackets are open at the end of a text.
fn nested_of(entity: Option<&'static Entity>, before: &str) -> Option<&'static Field> {
    let mut closed = 0;
    let opens = before.char_indices().rev().filter_map(|(at, next)| match next {
        ')' => {
            closed += 1;
            None
        }
        '(' if closed > 0 => {
            closed -= 1;
            None
        }
        '(' => before.get(..at),
        _ => None,
    });
    let mut named = opens.filter_map(|text| {
        let term = text.strip_suffix(':')?.rsplit([' ', '\t', '\n', '(', '!', '-']).next()?;
        let (device, name) = term.split_once('.').map_or((false, term), |(_, name)| (true, name));
        let entity = if device { Some(catalogue::devices()) } else { entity };
        entity?.find(name).filter(|field| field.kind == Kind::Nested)
    });
    named.next()
}

fn fields_of(entity: Option<&'static Entity>) -> &'static [Field] {
    entity.map(|entity| entity.fields).unwrap_or_default()
}

fn fields(fields: &'static [Field], after: &str) -> Vec<Offer> {
    fields.iter().map(|field| offer(&format!("{}{after}", field.names[0]), "field", field.label)).collect()
}

fn terms(entity: Option<&'static Entity>) -> Vec<Offer> {
    let clauses = CLAUSES.iter().filter(|(name, kind)| kind.name() == *name);
    let mut offers: Vec<Offer> = clauses.map(|(name, _)| offer(&format!("{name}:"), "clause", "")).collect();
    offers.extend(fields(fields_of(entity), ":"));
    let has_device = entity.is_some_and(|entity| {
        entity.device.is_some()
            && entity.name() != catalogue::devices().name()
            && entity.standing != Standing::Awaited
    });
    if has_device {
        let of_device = fields(catalogue::devices().fields, ":");
        offers.extend(of_device.into_iter().map(|of| Offer { text: format!("device.{}", of.text), ..of }));
    }
    offers
}

fn truths() -> Vec<Offer> {
    ["true", "false"].iter().map(|text| offer(text, "value", "")).collect()
}

fn aggregates() -> Vec<Offer> {
    AGGREGATES.iter().map(|name| offer(&format!("{name}("), "aggregate", "")).collect()
}

/// Those that begin so, and then those that have it in them.
fn those_like(mut offers: Vec<Offer>, word: &str) -> Vec<Offer> {
    let word = word.to_lowercase();
    offers.retain(|offer| offer.text.contains(&word));
    offers.sort_by_key(|offer| (!offer.text.starts_with(&word), offer.text.clone()));
    offers.truncate(OFFERED_MAX);
    offers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(query: &str) -> Vec<String> {
        let at = query.find('|').unwrap();
        let (span, offers) = complete(&query.replace('|', ""), at);
        assert!(span.0 <= span.1 && span.1 == at, "{query}: {span:?}");
        offers.into_iter().map(|offer| offer.text).collect()
    }

    #[test]
    fn what_may_stand_there_is_offered() {
        assert_eq!(texts("in:dev|")[0], "device_addresses");
        assert!(texts("in:devices host|").contains(&"hostname:".to_owned()));
        assert_eq!(texts("in:devices !is_av|")[0], "is_available:");
        assert_eq!(texts("in:devices is_available:|"), ["false", "true"]);
        assert_eq!(texts("in:devices sort:name,last_s|"), ["last_seen"]);
        assert!(texts("in:device_records device.si|").contains(&"device.site:".to_owned()));
        assert_eq!(texts("in:devices network_interfaces:|"), ["("]);
        for query in [
            "in:devices !network_interfaces:(ma|",
            "in:devices network_interfaces:(ip:10.% (ma|",
            "in:device_records device.network_interfaces:(ma|",
        ] {
            assert_eq!(texts(query), ["mac:"], "{query}");
        }
        assert!(texts("in:devices network_interfaces:(ip:10.%) (ma|").contains(&"mac:".to_owned()));
        assert!(texts("in:devices stats:'cou|").contains(&"count(".to_owned()));
        assert!(texts("|").contains(&"in:".to_owned()));
        assert!(texts("in:devices 'é|").is_empty());
    }

    #[test]
    fn a_place_within_a_character_or_beyond_the_end_is_no_panic() {
        for at in 0..20 {
            complete("in:devices é:ü(", at);
        }
    }
}
