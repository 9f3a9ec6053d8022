//! Callers: who may ask, of which tenant, and how much they are told.

use std::collections::BTreeSet;

use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serviceradar_schemas::topics;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Bytes of a key that are looked at.
const KEY_BYTES_MAX: usize = 512;
/// The header of a key that is no `Authorization`.
const KEY_HEADER: &str = "x-api-key";

/// How much a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What its queries find.
    Reader,
    /// How they are found, too: plans, whose estimates tell of other tenants.
    Operator,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its name.
    pub name: String,
    /// The tenant whose rows it sees.
    pub tenant: String,
    /// How much it is told.
    pub role: Role,
    /// When its credential expires, microseconds since 1970.
    pub expires: Option<i64>,
}

/// Why a list of callers is none.
#[derive(Debug, thiserror::Error)]
pub enum CallersError {
    /// It cannot be read.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// An entry cannot be meant.
    #[error("key {name:?}: {why}")]
    Entry {
        /// Of this name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Nobody could ask.
    #[error("it has no [[key]]")]
    Empty,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    key: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    tenant: String,
    role: Role,
    sha256: String,
}

/// Those who may ask.
#[derive(Debug)]
pub struct Callers(Vec<([u8; 32], Caller)>);

impl Callers {
    /// Reads a list of them: TOML, `[[key]]` with `name`, `tenant`, `role` (`reader` or `operator`) and `sha256`, the digest of
    /// the key in hexadecimal. The keys themselves are nowhere.
    pub fn read(text: &str) -> Result<Self, CallersError> {
        let Document { key: entries } = toml::from_str(text)?;
        if entries.is_empty() {
            return Err(CallersError::Empty);
        }
        let mut callers: Vec<([u8; 32], Caller)> = Vec::new();
        for Entry { name, tenant, role, sha256 } in entries {
            let wrong = |why| CallersError::Entry { name: name.clone(), why };
            if !topics::is_tenant(&tenant) {
                return Err(wrong("its tenant is none: give 1 to 40 of a-z, 0-9 and -"));
            }
            let digest =
                digest_of_hex(&sha256).ok_or_else(|| wrong("its sha256 is not 64 hexadecimal digits"))?;
            if callers.iter().any(|(known, caller)| *known == digest || caller.name == name) {
                return Err(wrong("its name or its key is there twice"));
            }
            callers.push((digest, Caller { name, tenant, role, expires: None }));
        }
        Ok(Self(callers))
    }

    /// Their tenants, each once.
    pub fn tenants(&self) -> BTreeSet<&str> {
        self.0.iter().map(|(_, caller)| &*caller.tenant).collect()
    }

    /// Who sent these headers. How long it takes does not tell how near a wrong key is.
    pub fn of(&self, headers: &HeaderMap) -> Option<&Caller> {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.split_once(' '));
        let bearer =
            bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim());
        let key = bearer.or_else(|| headers.get(KEY_HEADER)?.to_str().ok())?;
        if key.len() > KEY_BYTES_MAX {
            return None;
        }
        let digest = digest(key);
        let mut found = None;
        for (known, caller) in &self.0 {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(caller);
            }
        }
        found
    }
}

/// The digest of a key.
pub fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn digest_of_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() || !text.is_ascii() {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(key: &str) -> String {
        digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn entry(name: &str, tenant: &str, role: &str, sha256: &str) -> String {
        format!(
            "[[key]]\nname = \"{name}\"\ntenant = \"{tenant}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n"
        )
    }

    #[test]
    fn a_key_is_one_caller_and_nothing_else_is() {
        let text =
            entry("dash", "acme", "reader", &hex("k1")) + &entry("ops", "other", "operator", &hex("k2"));
        let callers = Callers::read(&text).unwrap();
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            callers.of(&headers).map(|caller| caller.name.clone())
        };
        assert_eq!(of("authorization", "Bearer k1").as_deref(), Some("dash"));
        assert_eq!(of("authorization", "bearer  k2").as_deref(), Some("ops"));
        assert_eq!(of("x-api-key", "k2").as_deref(), Some("ops"));
        for (name, value) in [
            ("authorization", "k1"),
            ("authorization", "Basic k1"),
            ("x-api-key", "k"),
            ("x-api-key", ""),
            ("x-api-key", &hex("k1")),
            ("cookie", "k1"),
        ] {
            assert_eq!(of(name, value), None, "{name}: {value}");
        }
        assert_eq!(callers.of(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said() {
        let good = entry("a", "acme", "reader", &hex("k"));
        for (text, part) in [
            (String::new(), "no [[key]]"),
            (good.replace("reader", "root"), "unknown variant"),
            (good.replace("acme", "Acme Corp"), "tenant"),
            (entry("a", "acme", "reader", "abc"), "64 hexadecimal digits"),
            (entry("a", "acme", "reader", &"ä".repeat(32)), "64 hexadecimal digits"),
            (good.clone() + &entry("b", "acme", "reader", &hex("k")), "twice"),
            (good.clone() + &entry("a", "acme", "reader", &hex("l")), "twice"),
            (good + "key = \"secret\"\n", "unknown field"),
        ] {
            let error = Callers::read(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
