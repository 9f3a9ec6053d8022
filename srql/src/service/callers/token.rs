//! Tokens (JWT, RFC 7519): who issues them, and which are taken.
//!
//! Everything but the subject and the times is fixed by the entry of the issuer: the algorithm, the key, the audience,
//! the role and the tenant, or which tenants a claim may name. A token says nothing of how it is to be checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::{Map, Value};
use serviceradar_schemas::time::SECOND;
use x509_cert::{
    der::{Decode as _, asn1::ObjectIdentifier, asn1::Uint},
    spki::SubjectPublicKeyInfoRef,
};

use super::{Caller, Refusal, Role, signature};

/// By how much the clocks of an issuer and of the service may differ, microseconds.
pub const LEEWAY: i64 = 30 * SECOND;
/// Bytes of the modulus of an RSA key: 2,048 to 8,192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// `[[token]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) name: String,
    issuer: String,
    audience: String,
    algorithm: Algorithm,
    key: Option<String>,
    key_file: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    role: Role,
    tenant: Option<String>,
    tenants: Option<Tenants>,
}

/// Which tenant a claim names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenants {
    claim: String,
    of: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Bound {
    To(String),
    ByClaim(Tenants),
}

/// Who issues tokens.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) name: String,
    role: Role,
    bound: Bound,
    key: DecodingKey,
    validation: Validation,
}

impl Issuer {
    /// Checks an entry; its files are beside the list of callers. `Err` says what is wrong.
    pub(super) fn read(entry: Entry, folder: &Path) -> Result<Self, String> {
        let key = key_of(&entry, folder)?;
        let bound = match (entry.tenant, entry.tenants) {
            (Some(tenant), None) => Bound::To(tenant),
            (None, Some(tenants)) if !tenants.of.is_empty() => Bound::ByClaim(tenants),
            _ => return Err("give it tenant, or tenants = { claim = \"…\", of = { … } }".to_owned()),
        };
        let mut validation = Validation::new(entry.algorithm);
        validation.set_issuer(&[entry.issuer]);
        validation.set_audience(&[entry.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // By the clock of the service, below.
        validation.validate_exp = false;
        signature::install();
        Ok(Self { name: entry.name, role: entry.role, bound, key, validation })
    }

    /// The tenants that its tokens can be of.
    pub(super) fn tenants(&self) -> BTreeSet<&str> {
        match &self.bound {
            Bound::To(tenant) => [&**tenant].into(),
            Bound::ByClaim(tenants) => tenants.of.values().map(|tenant| &**tenant).collect(),
        }
    }

    /// Whose token it is. Times are looked at last, so that only who holds a token of this issuer is told of them.
    pub(super) fn caller(&self, token: &str, now: i64) -> Result<Caller, Refusal> {
        let token =
            decode::<Map<String, Value>>(token, &self.key, &self.validation).map_err(|_| Refusal::Unknown)?;
        // What must be understood (RFC 7515) is not.
        if token.header.crit.is_some() {
            return Err(Refusal::Unknown);
        }
        let text = |claim: &str| token.claims.get(claim).and_then(Value::as_str).ok_or(Refusal::Unknown);
        let at = |claim: &Value| claim.as_f64().map(micros).ok_or(Refusal::Unknown);
        let subject = text("sub")?;
        let tenant = match &self.bound {
            Bound::To(tenant) => tenant,
            Bound::ByClaim(Tenants { claim, of }) => of.get(text(claim)?).ok_or(Refusal::Unknown)?,
        };
        let expires = at(token.claims.get("exp").ok_or(Refusal::Unknown)?)?.saturating_add(LEEWAY);
        let begins = token.claims.get("nbf").map(at).transpose()?;
        if subject.is_empty() {
            return Err(Refusal::Unknown);
        }
        if now >= expires {
            return Err(Refusal::Expired);
        }
        if begins.is_some_and(|begins| now.saturating_add(LEEWAY) < begins) {
            return Err(Refusal::Early);
        }
        Ok(Caller {
            name: format!("{}/{subject}", self.name),
            tenant: tenant.clone(),
            role: self.role,
            expires: Some(expires),
        })
    }
}

/// Seconds since 1970, as tokens have them, in microseconds.
fn micros(seconds: f64) -> i64 {
    (seconds * SECOND as f64) as i64
}

fn key_of(entry: &Entry, folder: &Path) -> Result<DecodingKey, String> {
    let read = |path: &Path| {
        let path = folder.join(path);
        std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let algorithm = entry.algorithm;
    if let Some(by) = signature::of_secret(algorithm) {
        let Entry { secret_file: Some(path), key: None, key_file: None, .. } = entry else {
            return Err(format!("{algorithm:?} goes by a secret: give it secret_file, and no key"));
        };
        let secret = read(path)?;
        let secret = secret.trim_ascii_end();
        let least = by.digest_algorithm().output_len();
        if secret.len() < least {
            return Err(format!("the secret in {} is shorter than {least} bytes", path.display()));
        }
        return Ok(DecodingKey::from_secret(secret));
    }
    let pem = match (&entry.key, &entry.key_file, &entry.secret_file) {
        (Some(key), None, None) => key.clone().into_bytes(),
        (None, Some(path), None) => read(path)?,
        _ => return Err(format!("{algorithm:?} goes by a public key: give it key or key_file, one of them")),
    };
    let place = entry.key_file.as_deref().map_or("key".to_owned(), |path| path.display().to_string());
    let key = SubjectPublicKeyInfoDer::from_pem_slice(&pem)
        .map_err(|_| format!("{place} holds no public key: give PEM, -----BEGIN PUBLIC KEY-----"))?;
    public_key(algorithm, &key).ok_or_else(|| {
        format!(
            "{place} holds no key of {algorithm:?} (RSA: 2048 to 8192 bits; EC: the algorithm's own curve)"
        )
    })
}

/// The key, if it is one of that algorithm.
fn public_key(algorithm: Algorithm, der: &[u8]) -> Option<DecodingKey> {
    let info = SubjectPublicKeyInfoRef::from_der(der).ok()?;
    let bytes = info.subject_public_key.as_bytes()?;
    let curve = || info.algorithm.parameters.and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
    let is_point = |coordinate_bytes: usize| bytes.len() == 1 + 2 * coordinate_bytes;
    match (algorithm.family(), info.algorithm.oid) {
        (AlgorithmFamily::Rsa, RSA) => {
            let numbers = Vec::<Uint>::from_der(bytes).ok()?;
            let is_sized = MODULUS_BYTES.contains(&numbers.first()?.as_bytes().len());
            is_sized.then(|| DecodingKey::from_rsa_der(bytes))
        }
        (AlgorithmFamily::Ec, EC) => {
            let is_of_it = match algorithm {
                Algorithm::ES256 => curve() == Some(P256) && is_point(32),
                _ => curve() == Some(P384) && is_point(48),
            };
            is_of_it.then(|| DecodingKey::from_ec_der(bytes))
        }
        (AlgorithmFamily::Ed, ED25519) => Some(DecodingKey::from_ed_der(bytes)),
        _ => None,
    }
}
