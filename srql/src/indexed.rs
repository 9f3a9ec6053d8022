//! By which index rows are found: of the words of a device, or of its columns where its words are.
//!
//! An index finds some rows too many: the condition itself stands beside it.

use crate::{
    catalogue::{self, Entity, Kind, Search},
    predicate::{Conditions, Found, find, is_elsewhere, like},
    statement::Parameter,
    syntax::{Expression, Path, Scalar, Value},
};

/// Letters and digits in a row by which an index of words finds anything.
const TRIGRAM: usize = 3;

impl Conditions<'_> {
    /// That a row is among those that an index of words finds by a field; none where that finds nothing.
    pub(crate) fn by_index(&mut self, found: &Found, row: &str, value: &Value) -> Option<String> {
        let of = if found.of_device { catalogue::devices() } else { self.entity };
        let (search, items) = of.search.zip(words(of, found, value))?;
        let patterns = items.iter().map(|item| format!("%{}%", like(&loosened(item)).to_lowercase()));
        Some(self.by_words(search.relation, row, patterns.collect(), None))
    }

    /// That a row is among those whose words an index finds to be like one of these, and, where that is not asked beside
    /// it, are like one of those; all in lower case.
    pub(crate) fn by_words(
        &mut self,
        relation: &str,
        row: &str,
        found: Vec<String>,
        exact: Option<Vec<String>>,
    ) -> String {
        let is_here = self.of_search && row == "e";
        let words = if is_here { "e.words" } else { "w.words" };
        let found = self.out.bind(Parameter::Texts(found));
        // Under CASE no index is asked for it too, and the planner does not think that it leaves fewer.
        let exact = exact.map_or_else(String::new, |exact| {
            let exact = self.out.bind(Parameter::Texts(exact));
            format!(" AND CASE WHEN {words} LIKE ANY ({exact}) THEN true END")
        });
        let are_like = format!("{words} LIKE ANY ({found}){exact}");
        match is_here {
            true => format!("({are_like})"),
            false => format!("{row}.uid IN (SELECT w.uid FROM {relation} w WHERE {are_like})"),
        }
    }
}

/// What an index of words is asked for instead: between what it finds by itself anything may stand. Beginnings and ends of
/// words are in it too, and some, as of `00:`, are in so many words that reading where takes most of the time. So it is with
/// the letters of a name before its number: those that have its last three are nearly all that have the name, and the
/// number tells them apart.
pub(crate) fn loosened(scalar: &Scalar) -> Scalar {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric();
    let text = scalar.text.as_bytes();
    let spared = letters_spared(text);
    let is_between = |at: usize, byte: u8| {
        let (before, after) = (text.get(at.saturating_sub(TRIGRAM)..at), text.get(at + 1..at + 1 + TRIGRAM));
        let are_found =
            [before, after].map(|run| run.is_some_and(|run| run.len() == TRIGRAM && run.iter().all(is_part)));
        byte.is_ascii() && !is_part(&byte) && are_found == [true, true]
    };
    let wild = text
        .iter()
        .enumerate()
        .filter(|(at, byte)| scalar.wild.binary_search(at).is_ok() || is_between(*at, **byte) || spared[*at]);
    Scalar { text: scalar.text.clone(), wild: wild.map(|(at, _)| at).collect(), span: scalar.span }
}

/// Of each byte, whether it is a letter that an index of words need not be asked for: one before the last three of a word,
/// where there is a number.
fn letters_spared(text: &[u8]) -> Vec<bool> {
    let is_number = |run: &[u8]| run.len() > TRIGRAM && run.iter().all(u8::is_ascii_digit);
    let has_number = text.split(|byte| !byte.is_ascii_alphanumeric()).any(is_number);
    let mut spared = vec![false; text.len()];
    let mut letters = 0;
    for (byte, spared) in text.iter().zip(&mut spared).rev() {
        // Digits that follow a letter make it rarer.
        letters = match byte {
            byte if byte.is_ascii_digit() => usize::MAX,
            byte if !byte.is_ascii_alphabetic() => 0,
            _ if letters == usize::MAX => letters,
            _ => letters + 1,
        };
        *spared = has_number && (TRIGRAM + 1..usize::MAX).contains(&letters);
    }
    spared
}

fn items_of(value: &Value) -> Option<&[Scalar]> {
    match value {
        Value::One(scalar) => Some(std::slice::from_ref(scalar)),
        Value::List(items) => Some(items),
        _ => None,
    }
}

/// Whether an index of words finds it.
fn is_word(scalar: &Scalar) -> bool {
    let mut runs = scalar.text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::len);
    scalar.text.is_ascii() && runs.any(|run| run >= TRIGRAM)
}

/// The patterns of a field of an entity, where an index of words finds all of them.
fn words<'a>(entity: &Entity, found: &Found, value: &'a Value) -> Option<&'a [Scalar]> {
    let is_field = found.key.is_none() && entity.texts.contains(&found.field.names[0]);
    let items = items_of(value).filter(|_| is_field && entity.search.is_some())?;
    let are_found =
        beginning(found, value).is_none() && items.iter().all(|item| item.is_pattern() && is_word(item));
    are_found.then_some(items)
}

/// The pattern of a host name that says how that begins.
fn beginning<'a>(found: &Found, value: &'a Value) -> Option<&'a Scalar> {
    match value {
        Value::One(item)
            if found.kind() == Kind::Hostname && item.is_pattern() && !item.wild.contains(&0) =>
        {
            Some(item)
        }
        _ => None,
    }
}

/// Whether rows are few that meet these conditions, as an index of words, of beginnings or of addresses finds them.
pub(crate) fn is_narrow(entity: &'static Entity, filter: &Expression) -> bool {
    match filter {
        Expression::All(terms) => terms.iter().any(|term| is_narrow(entity, term)),
        Expression::Free(scalar) => entity.search.is_some() && is_word(scalar),
        Expression::Is(path, value) => find(entity, path).is_ok_and(|found| {
            let is_found = words(entity, &found, value).is_some()
                || beginning(&found, value).is_some()
                || (found.kind() == Kind::Address && is_elsewhere(&found, value));
            !found.of_device && is_found
        }),
        Expression::Any(_) | Expression::Not(_) | Expression::Has(..) => false,
    }
}

/// Whether a field is among those of the relation where an entity is searched.
pub(crate) fn is_searched(entity: &'static Entity, path: &Path) -> bool {
    let is_in = |found: &Found, search: Search| {
        !found.of_device && found.key.is_none() && search.fields.contains(&found.field.names[0])
    };
    find(entity, path).is_ok_and(|found| entity.search.is_some_and(|search| is_in(&found, search)))
}

/// Whether all that these conditions are on is there.
pub(crate) fn is_of_search(entity: &'static Entity, filter: &Expression) -> bool {
    match filter {
        Expression::All(terms) | Expression::Any(terms) => {
            terms.iter().all(|term| is_of_search(entity, term))
        }
        Expression::Not(inner) => is_of_search(entity, inner),
        Expression::Is(path, value) => {
            let is_of_others = |found: Found| found.of_device || is_elsewhere(&found, value);
            is_searched(entity, path) || find(entity, path).is_ok_and(is_of_others)
        }
        Expression::Free(_) => entity.search.is_some(),
        Expression::Has(..) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_words_is_asked_for_what_it_finds_by_itself() {
        let asked = |text: &str, wild: &[usize]| {
            like(&loosened(&Scalar { text: text.to_owned(), wild: wild.to_vec(), span: (0, 0) }))
        };
        assert_eq!(asked("cisco-001_lab", &[]), "cisco%001%lab");
        // A number tells apart what shares the letters before it.
        assert_eq!(asked("cisco-0001_labor", &[]), "%%sco%0001%%%bor");
        assert_eq!(asked("rack0001 cisco", &[]), "rack0001%cisco");
        assert_eq!(asked("rack17 0001 cisco", &[]), "rack17%0001%%%sco");
        // What is shorter it finds with the end of the word.
        assert_eq!(asked("10.250.3", &[]), "10.250.3");
        assert_eq!(asked("ab-cisco--lab", &[]), "ab-cisco--lab");
        assert_eq!(asked("köln-ööö-laböabc", &[]), "köln-ööö-laböabc");
        assert_eq!(asked("a%b%-c", &[3]), "a\\%b%-c");
    }
}
