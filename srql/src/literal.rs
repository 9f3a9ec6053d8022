//! What literals mean: addresses, networks, MACs, numbers, times, patterns, and how a pattern begins.

use std::net::{IpAddr, Ipv4Addr};

use cidr::{IpCidr, IpInet};
use serviceradar_streams::{
    claim::{mac_shown, mac_text},
    normalise,
};
use uuid::Uuid;

use crate::{
    catalogue::Kind,
    claims,
    error::{Code, QueryError, Span},
    plan::LIMIT_MAX,
    syntax::{Scalar, Value},
    time_range::{Bounds, Moment},
};

/// Bits before an IPv4 address that is mapped to IPv6.
const MAPPED_BITS: u8 = 96;
/// Digits that an IPv6 address has in a row, at most.
const HEXTET_DIGITS: usize = 4;

/// True or false, as people write it.
pub(crate) fn truth(scalar: &Scalar) -> Result<bool, QueryError> {
    match scalar.text.to_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(bad(scalar, "neither true nor false")),
    }
}

fn bad(scalar: &Scalar, what: &str) -> QueryError {
    QueryError::new(Code::BadValue, scalar.span, format!("'{}' is {what}", scalar.text))
}

/// A pattern in SQL: what is no wildcard is escaped.
pub(crate) fn like(scalar: &Scalar) -> String {
    let mut pattern = String::with_capacity(scalar.text.len() + 2);
    for (at, character) in scalar.text.char_indices() {
        if scalar.wild.binary_search(&at).is_ok() {
            pattern.push('%');
            continue;
        }
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// A value as the views have it.
pub(crate) fn normal(kind: Kind, scalar: &Scalar) -> Result<String, QueryError> {
    let text = &scalar.text;
    match kind {
        Kind::Hostname => Ok(normalise::hostname(text).unwrap_or_else(|| text.to_lowercase())),
        Kind::Mac | Kind::MacDigits => {
            let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '.' | ' ')).collect();
            let is_mac = digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let mac = u64::from_str_radix(&digits, 16).ok().filter(|_| is_mac);
            let text = if kind == Kind::Mac { mac_shown } else { mac_text };
            mac.map(text).ok_or_else(|| bad(scalar, "no MAC"))
        }
        Kind::NamedClaim => Ok(claims::named(text)),
        _ => Ok(text.clone()),
    }
}

pub(crate) fn uid(scalar: &Scalar) -> Result<Uuid, QueryError> {
    let text = scalar.text.strip_prefix("sr:").unwrap_or(&scalar.text);
    Uuid::try_parse(text).map_err(|_| bad(scalar, "no uid: one is written sr:<uuid>"))
}

/// The fields of which a free term is a whole value: people paste them.
pub(crate) fn pasted(scalar: &Scalar) -> impl Iterator<Item = &'static str> {
    let is = [
        ("uid", is_uid(scalar)),
        ("mac", normal(Kind::Mac, scalar).is_ok()),
        ("ip", address(scalar).is_ok()),
    ];
    is.into_iter().filter_map(|(name, is)| is.then_some(name))
}

/// Whether a free term is a uid that was pasted.
pub(crate) fn is_uid(scalar: &Scalar) -> bool {
    scalar.text.starts_with("sr:") && uid(scalar).is_ok()
}

pub(crate) fn address(scalar: &Scalar) -> Result<IpAddr, QueryError> {
    scalar.text.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|_| bad(scalar, "no address"))
}

/// The addresses whose text has this one's in it: 110.0.0.17 of 10.0.0.1.
pub(crate) fn addresses_around(ip: Ipv4Addr) -> Vec<String> {
    let [first, second, third, last] = ip.octets();
    // As decimal numbers: that one ends, or begins, with the digits of another.
    let ends = |octet: &u8| match first {
        0..10 => octet % 10 == first,
        10..100 => octet % 100 == first,
        _ => *octet == first,
    };
    let begins = |octet: &u8| *octet == last || (last > 0 && (octet / 10 == last || octet / 100 == last));
    let lasts: Vec<u8> = (u8::MIN..=u8::MAX).filter(begins).collect();
    let firsts = (u8::MIN..=u8::MAX).filter(ends);
    firsts
        .flat_map(|first| lasts.iter().map(move |last| format!("{first}.{second}.{third}.{last}")))
        .collect()
}

/// Whether an address or a MAC may have it in it: hexadecimal digits, no more than four in a row.
pub(crate) fn is_part_of_address(scalar: &Scalar) -> bool {
    let mut run = 0;
    scalar.text.char_indices().all(|(at, character)| {
        let is_digit = character.is_ascii_hexdigit();
        run = if is_digit { run + 1 } else { 0 };
        let is_wild = scalar.wild.binary_search(&at).is_ok();
        run <= HEXTET_DIGITS && (is_digit || is_wild || matches!(character, ':' | '.'))
    })
}

/// An address, or a network, whose host bits go.
pub(crate) fn network(scalar: &Scalar) -> Result<IpCidr, QueryError> {
    let refuse = || bad(scalar, "neither an address nor a network");
    let Some((ip, length)) = scalar.text.split_once('/') else {
        return address(scalar).map(IpCidr::new_host);
    };
    let ip: IpAddr = ip.parse().map_err(|_| refuse())?;
    let length: u8 = length.parse().map_err(|_| refuse())?;
    // What is mapped to IPv6 is kept as IPv4.
    let (ip, length) = match ip.to_canonical() {
        v4 @ IpAddr::V4(_) if ip.is_ipv6() && length >= MAPPED_BITS => (v4, length - MAPPED_BITS),
        _ => (ip, length),
    };
    IpInet::new(ip, length).map(|inet| inet.network()).map_err(|_| refuse())
}

/// The network of the addresses that are written with these octets first: 10.1.0.0/16 of 10.1.%.
pub(crate) fn octets(pattern: &Scalar) -> Option<IpCidr> {
    let (first, rest) = pattern.text.split_once(".%").or_else(|| pattern.text.split_once(".*"))?;
    let given = first.split('.').count();
    let is_octet = |text: &str| text.parse::<u8>().is_ok_and(|octet| octet.to_string() == text);
    if !rest.is_empty() || pattern.wild != [first.len() + 1] || given > 3 || !first.split('.').all(is_octet) {
        return None;
    }
    format!("{first}{}/{}", ".0".repeat(4 - given), 8 * given).parse().ok()
}

/// Whether an address or a network, if it is one, has no more addresses than a page may have rows.
pub(crate) fn is_small_network(scalar: &Scalar) -> bool {
    let network = if scalar.is_pattern() { octets(scalar) } else { network(scalar).ok() };
    network.is_some_and(|network| {
        let bits = if network.is_ipv4() { u32::BITS } else { u128::BITS };
        bits - u32::from(network.network_length()) <= LIMIT_MAX.ilog2()
    })
}

/// What begins like a pattern, in the order of bytes.
pub(crate) struct Begin {
    /// From this on.
    pub(crate) from: String,
    /// Up to this, which does not.
    pub(crate) to: String,
    /// Whether that is all that the pattern says.
    pub(crate) is_all: bool,
}

/// How all begin that are like a pattern of SQL; none where it begins with a wildcard.
pub(crate) fn begin(pattern: &str) -> Option<Begin> {
    let mut from = String::new();
    let mut characters = pattern.chars();
    loop {
        match characters.next() {
            Some('\\') => from.extend(characters.next()),
            Some('%') => break,
            Some(character) => from.push(character),
            None => return None,
        }
    }
    let mut to = from.clone();
    while let Some(last) = to.pop() {
        // What UTF-8 has in its order are code points.
        if let Some(next) = (last..=char::MAX).nth(1) {
            to.push(next);
            let is_all = characters.all(|character| character == '%');
            return Some(Begin { from, to, is_all });
        }
    }
    None
}

/// A number with its unit, as PostgreSQL reads numbers.
pub(crate) fn number(scalar: &Scalar) -> Result<String, QueryError> {
    let refuse = || bad(scalar, "no number");
    let text = scalar.text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic() || c == '%').unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end).ok_or_else(refuse)?;
    let is_number = !digits.is_empty()
        && digits.len() <= 30
        && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+'))
        && digits.parse::<f64>().is_ok();
    if !is_number {
        return Err(refuse());
    }
    if unit.is_empty() { Ok(digits.to_owned()) } else { Err(bad(scalar, "in a unit that the field has not")) }
}

/// What a value means for a time.
pub(crate) fn bounds(value: &Value, moment: &Moment, span: Span) -> Result<Bounds, QueryError> {
    let instant = |scalar: &Scalar, is_upper: bool| {
        moment.instant(&scalar.text, is_upper).ok_or_else(|| {
            bad(scalar, "no time").hint("write 2026-03-01, '2026-03-01 08:30:00', -30d, today")
        })
    };
    let found = match value {
        Value::One(scalar) => moment.range(&scalar.text).ok_or_else(|| {
            bad(scalar, "no time")
                .hint("write last_15m, '7 days', today, 2026-03-01, [2026-03-01,2026-04-01]")
        })?,
        Value::Compared(comparison, scalar) => {
            use crate::syntax::Comparison as C;
            match comparison {
                C::Greater => (Some(instant(scalar, true)?.saturating_add(1)), None),
                C::AtLeast => (Some(instant(scalar, false)?), None),
                C::Less => (None, Some(instant(scalar, false)?.saturating_sub(1))),
                C::AtMost => (None, Some(instant(scalar, true)?)),
            }
        }
        Value::Range(from, to) => (
            from.as_ref().map(|from| instant(from, false)).transpose()?,
            to.as_ref().map(|to| instant(to, true)).transpose()?,
        ),
        Value::Brackets(sides) => match &sides[..] {
            [from, to] => (
                from.as_ref().map(|from| instant(from, false)).transpose()?,
                to.as_ref().map(|to| instant(to, true)).transpose()?,
            ),
            _ => return Err(QueryError::new(Code::BadValue, span, "a range of times is written [from,to]")),
        },
        Value::List(_) => return Err(QueryError::new(Code::BadOperator, span, "a time takes no list")),
    };
    match found {
        (Some(from), Some(to)) if from > to => {
            Err(QueryError::new(Code::BadValue, span, "the range ends before it begins"))
        }
        bounds => Ok(bounds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn around_an_address_are_those_whose_text_has_it_in_it() {
        for text in ["10.0.0.1", "0.0.0.0", "5.55.5.25", "255.255.255.255", "110.20.30.177"] {
            let around = addresses_around(text.parse().unwrap());
            let (_, rest) = text.split_once('.').unwrap();
            let (middle, _) = rest.rsplit_once('.').unwrap();
            let all = (0..=255).flat_map(|begin| (0..=255).map(move |end| format!("{begin}.{middle}.{end}")));
            let expected: Vec<String> = all.filter(|address| address.contains(text)).collect();
            assert_eq!(around, expected, "{text}");
        }
    }

    #[test]
    fn what_can_be_a_part_of_an_address_is_told_by_its_digits() {
        let is_part = |text: &str, wild: &[usize]| {
            is_part_of_address(&Scalar { text: text.to_owned(), wild: wild.to_vec(), span: (0, 0) })
        };
        for text in ["10.0.17", "ab", "3d:c5", "2001:DB8::", "0001", ".17"] {
            assert!(is_part(text, &[]), "{text}");
        }
        for text in ["cisco", "cisco-0001", "00001", "10-0", "a%b", "a b", "köln"] {
            assert!(!is_part(text, &[]), "{text}");
        }
        assert!(is_part("a%b", &[1]));
    }
}
