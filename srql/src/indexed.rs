//! By which index rows are found: of the words and addresses of a device, or of its columns where these are.
//!
//! An index finds some rows too many: the condition itself stands beside it.

use crate::{
    catalogue::{self, Entity, Kind, Search},
    literal::{is_small_network, like, pasted},
    predicate::{Conditions, Found, find, is_elsewhere},
    statement::Parameter,
    syntax::{Expression, Path, Scalar, Value},
};

/// Letters and digits in a row by which an index of words finds anything.
const TRIGRAM: usize = 3;
/// Short words of what was pasted that an index of words is asked for.
const WORDS_OF_TAIL: usize = 3;

impl Conditions<'_> {
    /// That a row is among those that an index of words finds by a field; none where that finds nothing.
    pub(crate) fn by_index(&mut self, found: &Found, row: &str, value: &Value) -> Option<String> {
        let of = if found.of_device { catalogue::devices() } else { self.entity };
        let (search, items) = of.search.zip(words(of, found, value))?;
        let patterns = items.iter().map(|item| format!("%{}%", like(&loosened(item)).to_lowercase()));
        let found = self.out.bind(Parameter::Texts(patterns.collect()));
        Some(self.in_search(search.relation, row, |w| format!("{w}.words LIKE ANY ({found})")))
    }

    /// The conditions, each of which an index finds, that one of the text fields has one of these texts in it: in words, and,
    /// where they may be parts of an address, in addresses. Where no index finds the texts it is one condition for both.
    pub(crate) fn by_text(&mut self, relation: &str, texts: &[Scalar], is_address: bool) -> Vec<String> {
        let columns: &[&str] = if is_address { &["words", "addresses"] } else { &["words"] };
        let within = |text: &Scalar| format!("%{}%", like(text)).to_lowercase();
        let exact = self.out.bind(Parameter::Texts(texts.iter().map(within).collect()));
        if is_address && !texts.iter().any(is_found_by_text) {
            return vec![self.in_search(relation, "e", |w| {
                let each = columns.iter().map(|column| format!("{w}.{column} LIKE ANY ({exact})"));
                format!("({})", each.collect::<Vec<_>>().join(" OR "))
            })];
        }
        let found = texts.iter().map(|text| within(&loosened(text))).collect();
        let found = self.out.bind(Parameter::Texts(found));
        // Under CASE no index is asked for it too, and the planner does not think that it leaves fewer.
        let are_like = |w: &str, column: &str| {
            format!(
                "{w}.{column} LIKE ANY ({found}) AND CASE WHEN {w}.{column} LIKE ANY ({exact}) THEN true END"
            )
        };
        columns.iter().map(|column| self.in_search(relation, "e", |w| are_like(w, column))).collect()
    }

    /// That a row is among those of the relation where it is searched that meet a condition.
    fn in_search(&self, relation: &str, row: &str, condition: impl Fn(&str) -> String) -> String {
        match self.of_search && row == "e" {
            true => format!("({})", condition("e")),
            false => format!("{row}.uid IN (SELECT w.uid FROM {relation} w WHERE {})", condition("w")),
        }
    }
}

/// What an index of words is asked for instead: between what it finds by itself anything may stand. Beginnings and ends of
/// words are in it too, and some, as of `00:`, are in so many words that reading where takes most of the time. So it is with
/// the letters of a name beside its number: many have the name, and the number tells them apart. Of an
/// address or a MAC the beginning is what its network or its vendor gives to many.
pub(crate) fn loosened(scalar: &Scalar) -> Scalar {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric();
    let text = scalar.text.as_bytes();
    let (spared, tail) = match pasted(scalar).next() {
        Some(_) => (vec![false; text.len()], tail(text)),
        None => (letters_spared(text), 0),
    };
    let is_between = |at: usize| {
        let (before, after) = (text.get(at.saturating_sub(TRIGRAM)..at), text.get(at + 1..at + 1 + TRIGRAM));
        let are_found =
            [before, after].map(|run| run.is_some_and(|run| run.len() == TRIGRAM && run.iter().all(is_part)));
        are_found == [true, true] || (at > 0 && spared[at - 1]) || spared.get(at + 1) == Some(&true)
    };
    let wild = text.iter().enumerate().filter(|(at, byte)| {
        let is_spared = *at < tail || spared[*at] || (byte.is_ascii() && !is_part(byte) && is_between(*at));
        is_spared || scalar.wild.binary_search(at).is_ok()
    });
    Scalar { text: scalar.text.clone(), wild: wild.map(|(at, _)| at).collect(), span: scalar.span }
}

/// Of each byte, whether it is a letter that an index of words need not be asked for, where there is a number: of one word its
/// letters, of several those before the last three of each, since many may share a number.
fn letters_spared(text: &[u8]) -> Vec<bool> {
    let words = || text.split(|byte| !byte.is_ascii_alphanumeric());
    let is_number = |word: &[u8]| word.len() > TRIGRAM && word.iter().all(u8::is_ascii_digit);
    let is_of_letters = |word: &&[u8]| word.iter().any(u8::is_ascii_alphabetic);
    let kept = match (words().any(is_number), words().filter(is_of_letters).count()) {
        (false, _) => usize::MAX,
        (true, 1) => 0,
        (true, _) => TRIGRAM,
    };
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
        *spared = (1..usize::MAX).contains(&letters) && letters > kept;
    }
    spared
}

/// Where the end of what was pasted begins that tells it apart: its last word of three letters or digits or more, the last of
/// all but with the one before it; or its last three words.
fn tail(text: &[u8]) -> usize {
    let is_part = |at: &usize| text[*at].is_ascii_alphanumeric();
    let begins = |at: &usize| is_part(at) && (*at == 0 || !is_part(&(at - 1)));
    let words: Vec<usize> = (0..text.len()).filter(begins).collect();
    let is_long = |word: &usize| (*word..text.len()).take_while(is_part).count() >= TRIGRAM;
    let long = words.iter().rposition(is_long).map(|long| long.min(words.len().saturating_sub(2)));
    match long.unwrap_or(words.len().saturating_sub(WORDS_OF_TAIL)) {
        // Whole, with what stands before its first word.
        0 => 0,
        first => words[first],
    }
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

/// Whether an index finds what has it in it.
fn is_found_by_text(scalar: &Scalar) -> bool {
    is_word(scalar) || pasted(scalar).next().is_some()
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

/// Whether rows are few that meet these conditions, as an index of words, of beginnings, of addresses or of MACs finds them.
pub(crate) fn is_narrow(entity: &'static Entity, filter: &Expression) -> bool {
    match filter {
        Expression::All(terms) => terms.iter().any(|term| is_narrow(entity, term)),
        Expression::Free(scalar) => entity.search.is_some() && is_found_by_text(scalar),
        Expression::Is(path, value) => find(entity, path).is_ok_and(|found| {
            let is_found = words(entity, &found, value).is_some()
                || beginning(&found, value).is_some()
                || (found.kind() == Kind::Address && is_elsewhere(&found, value))
                || are_macs(&found, value);
            !found.of_device && is_found
        }),
        Expression::Any(_) | Expression::Not(_) | Expression::Has(..) => false,
    }
}

/// Whether whole MACs are asked for: how many begin like one nobody knows.
fn are_macs(found: &Found, value: &Value) -> bool {
    let are_whole = |items: &[Scalar]| items.iter().all(|item| !item.is_pattern());
    found.kind() == Kind::Mac && is_elsewhere(found, value) && items_of(value).is_some_and(are_whole)
}

/// Whether an index finds the rows alike, whatever the values are: how need not be planned for each.
pub(crate) fn is_found_alike(entity: &'static Entity, filter: &Expression) -> bool {
    match filter {
        // Of several conditions it depends on the values which leaves the fewest rows.
        Expression::All(terms) => matches!(&terms[..], [term] if is_found_alike(entity, term)),
        Expression::Free(_) => is_narrow(entity, filter),
        Expression::Is(path, Value::One(scalar)) => find(entity, path).is_ok_and(|found| {
            // How many addresses there are in a large network nobody knows.
            (found.kind() != Kind::Address || is_small_network(scalar)) && is_narrow(entity, filter)
        }),
        Expression::Is(..) | Expression::Any(_) | Expression::Not(_) | Expression::Has(..) => false,
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
        assert_eq!(asked("cisco-0001", &[]), "%%%%%%0001");
        assert_eq!(asked("ab-0001", &[]), "%%%0001");
        assert_eq!(asked("rack17 0001", &[]), "rack17%0001");
        // Many may share a number.
        assert_eq!(asked("annas-laptop-2024", &[]), "%%nas%%%%top%2024");
        assert_eq!(asked("rack17 0001 cisco", &[]), "rack17%0001%%%sco");
        // What is shorter it finds with the end of the word.
        assert_eq!(asked("10.250.3", &[]), "10.250.3");
        // Of what is pasted whole its end tells it apart.
        assert_eq!(asked("10.250.3.17", &[]), "%%%250.3.17");
        assert_eq!(asked("10.20.30.177", &[]), "%%%%%%30.177");
        assert_eq!(asked("10.0.0.17", &[]), "%%%0.0.17");
        assert_eq!(asked("00:07:4d:3d:c5:8b", &[]), "%%%%%%%%%3d:c5:8b");
        assert_eq!(asked("00074d3dc58b", &[]), "00074d3dc58b");
        assert_eq!(asked("0050.56ab.cdef", &[]), "%%%%%56ab%cdef");
        assert_eq!(asked("2a00:1450::dead:beef", &[]), "%%%%%%%%%%%dead%beef");
        assert_eq!(asked("2001:db8::beef", &[]), "%%%%%db8::beef");
        assert_eq!(asked("fe80::1", &[]), "fe80::1");
        assert_eq!(asked("::1", &[]), "::1");
        assert_eq!(asked("ab-cisco--lab", &[]), "ab-cisco--lab");
        assert_eq!(asked("köln-ööö-laböabc", &[]), "köln-ööö-laböabc");
        assert_eq!(asked("a%b%-c", &[3]), "a\\%b%-c");
    }

    #[test]
    fn what_one_condition_finds_is_planned_once_and_what_depends_on_values_is_not() {
        let is_alike = |filter: &str| {
            let query = crate::parse::parse(&format!("in:devices {filter}")).unwrap();
            is_found_alike(catalogue::devices(), &query.filter)
        };
        for filter in [
            "hostname:web%",
            "hostname:%web-0412%",
            "cisco-0001",
            "ip:10.0.0.1",
            "ip:10.0.0.0/24",
            "ip:10.0.0.%",
            "mac:00:00:5e:00:53:01",
            "10.0.0.1",
            "00:00:5e:00:53:01",
        ] {
            assert!(is_alike(filter), "{filter}");
        }
        for filter in [
            "",
            "name:web",
            "hostname:web% cisco",
            "(hostname:web% OR cisco)",
            "!cisco",
            "ip:10.0.0.0/8",
            "ip:10.%",
            "ip:2001:db8::/64",
            "mac:00:00:5e:%",
            "mac:(00:00:5e:00:53:01,00:00:5e:00:53:02)",
        ] {
            assert!(!is_alike(filter), "{filter}");
        }
    }
}
