//! Callers: who may ask, of which tenant, and how much they are told.
//!
//! A caller shows a key, a token or a client certificate. A list says of each which tenant and which role it is bound to.

mod certificate;
mod signature;
mod token;

use std::{collections::BTreeSet, path::Path};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
pub use certificate::{PeerCertificate, Unreadable};
use serde::Deserialize;
use serviceradar_schemas::topics;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use token::Issuer;
pub use token::LEEWAY;

/// Bytes of a key that are looked at.
const KEY_BYTES_MAX: usize = 512;
/// Bytes of a token that are looked at.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// The header of a key that is no `Authorization`.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

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
    /// Its name, which no other caller has. Of a token: the name of its issuer, `/`, and its subject.
    pub name: String,
    /// The tenant whose rows it sees.
    pub tenant: String,
    /// How much it is told.
    pub role: Role,
    /// From when on what it showed is taken no more, microseconds since 1970; none: it is taken for good.
    pub expires: Option<i64>,
}

/// Why nobody is taken for the caller. Nothing is said of what was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing was shown.
    #[error("say who you are: Authorization: Bearer, with a key or a token, or a client certificate")]
    Missing,
    /// It is of nobody.
    #[error("the key, token or certificate is of nobody who may ask")]
    Unknown,
    /// It was of somebody.
    #[error("the token or certificate has expired: get another")]
    Expired,
    /// It will be of somebody.
    #[error("the token does not hold yet: its nbf is to come")]
    Early,
    /// It is of several.
    #[error("several callers, or tenants, are named at once: show one key, token or certificate")]
    Ambiguous,
}

/// Why a list of callers is none.
#[derive(Debug, thiserror::Error)]
pub enum CallersError {
    /// Its file cannot be read.
    #[error("it cannot be read")]
    File(#[from] std::io::Error),
    /// It is no TOML, or says what nobody knows.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// An entry cannot be meant.
    #[error("{kind} {name:?}: {why}")]
    Entry {
        /// Its table.
        kind: &'static str,
        /// Of this name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody could ask.
    #[error("it has no [[key]], [[certificate]] or [[token]]")]
    Empty,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    key: Vec<KeyEntry>,
    #[serde(default)]
    certificate: Vec<CertificateEntry>,
    #[serde(default)]
    token: Vec<token::Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    name: String,
    tenant: String,
    role: Role,
    sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateEntry {
    name: String,
    tenant: String,
    role: Role,
    subject_alt_name: String,
}

/// Those who may ask.
#[derive(Debug, Default)]
pub struct Callers {
    /// By the digests of their keys.
    keys: Vec<([u8; 32], Caller)>,
    /// By a name in their certificates.
    certificates: Vec<(String, Caller)>,
    /// Of tokens.
    issuers: Vec<Issuer>,
}

impl Callers {
    /// Reads the list in a file; the files that it names are looked for beside it.
    pub fn open(path: &Path) -> Result<Self, CallersError> {
        let text = std::fs::read_to_string(path)?;
        Self::read_beside(&text, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a list: TOML, tables that have a `name` each, and a `role` (`reader` or `operator`):
    ///
    /// - `[[key]]`: `tenant`, and `sha256`, the digest of the key in hexadecimal. The keys themselves are nowhere.
    /// - `[[certificate]]`: `tenant`, and `subject_alt_name`, a URI or DNS name that its certificate has, letter by letter.
    /// - `[[token]]`: `issuer`, `audience`, `algorithm`; `key` or `key_file`, a public key as PEM, or `secret_file`; `tenant`,
    ///   or `tenants`, the `claim` that names one and the tenants `of` its values.
    pub fn read(text: &str) -> Result<Self, CallersError> {
        Self::read_beside(text, Path::new(""))
    }

    fn read_beside(text: &str, folder: &Path) -> Result<Self, CallersError> {
        let document: Document = toml::from_str(text)?;
        let mut callers = Self::default();
        for KeyEntry { name, tenant, role, sha256 } in document.key {
            let wrong = |why: &str| CallersError::Entry { kind: "key", name: name.clone(), why: why.into() };
            let digest =
                digest_of_hex(&sha256).ok_or_else(|| wrong("its sha256 is not 64 hexadecimal digits"))?;
            if callers.keys.iter().any(|(known, _)| *known == digest) {
                return Err(wrong("its key is there twice"));
            }
            callers.keys.push((digest, Caller { name, tenant, role, expires: None }));
        }
        for CertificateEntry { name, tenant, role, subject_alt_name } in document.certificate {
            let wrong =
                |why: &str| CallersError::Entry { kind: "certificate", name: name.clone(), why: why.into() };
            if subject_alt_name.is_empty() {
                return Err(wrong("its subject_alt_name is empty"));
            }
            if callers.certificates.iter().any(|(known, _)| *known == subject_alt_name) {
                return Err(wrong("its subject_alt_name is there twice"));
            }
            callers.certificates.push((subject_alt_name, Caller { name, tenant, role, expires: None }));
        }
        for entry in document.token {
            let name = entry.name.clone();
            let issuer = Issuer::read(entry, folder).map_err(|why| CallersError::Entry {
                kind: "token",
                name,
                why,
            })?;
            callers.issuers.push(issuer);
        }
        callers.check()?;
        Ok(callers)
    }

    /// Every entry: its table, its name, its tenants.
    fn entries(&self) -> Vec<(&'static str, &str, BTreeSet<&str>)> {
        fn of<'a>(kind: &'static str, caller: &'a Caller) -> (&'static str, &'a str, BTreeSet<&'a str>) {
            (kind, &caller.name, [&*caller.tenant].into())
        }
        let keys = self.keys.iter().map(|(_, caller)| of("key", caller));
        let certificates = self.certificates.iter().map(|(_, caller)| of("certificate", caller));
        let issuers = self.issuers.iter().map(|issuer| ("token", &*issuer.name, issuer.tenants()));
        keys.chain(certificates).chain(issuers).collect()
    }

    /// No name is of two callers, and tenants can be.
    fn check(&self) -> Result<(), CallersError> {
        let entries = self.entries();
        if entries.is_empty() {
            return Err(CallersError::Empty);
        }
        for (at, (kind, name, tenants)) in entries.iter().enumerate() {
            let wrong = |why: String| CallersError::Entry { kind, name: (*name).to_owned(), why };
            if tenants.iter().any(|tenant| !topics::is_tenant(tenant)) {
                return Err(wrong("its tenant is none: give 1 to 40 of a-z, 0-9 and -".to_owned()));
            }
            if entries.iter().take(at).any(|(_, other, _)| other == name) {
                return Err(wrong("its name is there twice".to_owned()));
            }
            let is_subject =
                |issuer: &&Issuer| name.strip_prefix(&*issuer.name).is_some_and(|rest| rest.starts_with('/'));
            if let Some(issuer) = self.issuers.iter().find(is_subject) {
                return Err(wrong(format!("its name could be a subject of the token {:?}", issuer.name)));
            }
        }
        Ok(())
    }

    /// Their tenants, each once.
    pub fn tenants(&self) -> BTreeSet<&str> {
        self.entries().into_iter().flat_map(|(_, _, tenants)| tenants).collect()
    }

    /// Who sent these headers over a connection of that certificate.
    ///
    /// What a header shows counts before the certificate of the connection, and must be of somebody; a certificate that is in
    /// no list says nothing. Whoever is named must be of one tenant.
    pub fn of(
        &self,
        headers: &HeaderMap,
        certificate: Option<&PeerCertificate>,
        now: i64,
    ) -> Result<Caller, Refusal> {
        let certified =
            certificate.map(|certificate| self.of_certificate(certificate)).transpose()?.flatten();
        let Some(caller) = self.of_headers(headers, now)? else {
            let of_nobody = if certificate.is_some() { Refusal::Unknown } else { Refusal::Missing };
            let caller = certified.ok_or(of_nobody)?;
            return if caller.expires.is_some_and(|expires| now >= expires) {
                Err(Refusal::Expired)
            } else {
                Ok(caller)
            };
        };
        match certified {
            Some(certified) if certified.tenant != caller.tenant => Err(Refusal::Ambiguous),
            _ => Ok(caller),
        }
    }

    /// Whose key or token these headers have; none: they have neither.
    fn of_headers(&self, headers: &HeaderMap, now: i64) -> Result<Option<Caller>, Refusal> {
        let authorization = one(headers, &header::AUTHORIZATION)?.and_then(|text| text.split_once(' '));
        let bearer = authorization.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match (bearer, one(headers, &KEY_HEADER)?) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Refusal::Ambiguous),
            (None, Some(key)) => self.of_key(key).map(Some).ok_or(Refusal::Unknown),
            (Some((_, shown)), None) => {
                let shown = shown.trim();
                self.of_key(shown).map_or_else(|| self.of_token(shown, now), Ok).map(Some)
            }
        }
    }

    /// How long it takes does not tell how near a wrong key is.
    fn of_key(&self, key: &str) -> Option<Caller> {
        if key.len() > KEY_BYTES_MAX {
            return None;
        }
        let digest = digest(key);
        let mut found = None;
        for (known, caller) in &self.keys {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(caller);
            }
        }
        found.cloned()
    }

    fn of_token(&self, token: &str, now: i64) -> Result<Caller, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Unknown);
        }
        let (mut found, mut refusal) = (None, Refusal::Unknown);
        for issuer in &self.issuers {
            match issuer.caller(token, now) {
                Ok(caller) if found.is_none() => found = Some(caller),
                Ok(_) => return Err(Refusal::Ambiguous),
                Err(Refusal::Unknown) => {}
                Err(why) => refusal = why,
            }
        }
        found.ok_or(refusal)
    }

    /// Whose certificate it is, be it expired or not.
    fn of_certificate(&self, certificate: &PeerCertificate) -> Result<Option<Caller>, Refusal> {
        let mut named = self.certificates.iter().filter(|(name, _)| certificate.names.contains(name));
        let found =
            named.next().map(|(_, caller)| Caller { expires: Some(certificate.not_after), ..caller.clone() });
        if named.next().is_some() { Err(Refusal::Ambiguous) } else { Ok(found) }
    }
}

/// The only header of a name. What is no text is of nobody.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Refusal::Ambiguous);
    }
    value.map(HeaderValue::to_str).transpose().map_err(|_| Refusal::Unknown)
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
mod tests;
