//! Cursors: where a page begins, as a text that only we can have written.
//!
//! A cursor is bound to the tenant, to who asks, and to the query: what is signed holds them, and what is sent does not.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::{Code, QueryError},
    page::{Keyset, Way},
    plan::{Extent, Plan, plan},
};

/// Bytes of a key as SHA-256 takes them.
const KEY_BYTES: usize = 64;
/// Bytes of the signature, and of a digest.
const SIGNATURE_BYTES: usize = 32;
/// Bytes of a cursor that are looked at: a keyset of texts as long as they come.
const CURSOR_BYTES_MAX: usize = 64 * 1024;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Of which tenant.
    pub tenant: &'a str,
    /// By which name.
    pub principal: &'a str,
}

/// A place in the rows of a query.
struct Cursor {
    /// What the query takes for now, microseconds since 1970.
    now: i64,
    /// Where the page begins.
    from: Keyset,
    /// The digest of the query.
    digest: [u8; 32],
}

/// What is written.
#[derive(Serialize, Deserialize)]
struct Written {
    now: i64,
    back: bool,
    keys: Vec<Option<String>>,
    digest: [u8; 32],
}

/// Writes and reads cursors.
#[derive(Clone)]
pub struct Cursors {
    key: Hmac<Sha256>,
}

impl Cursors {
    /// With a key of any length. Whoever has it can write cursors, which show no more than a query does.
    pub fn new(key: &[u8]) -> Self {
        let mut block = [0; KEY_BYTES];
        block[..SIGNATURE_BYTES].copy_from_slice(&Sha256::digest(key));
        Self { key: Hmac::new(&block.into()) }
    }

    fn signed(&self, asker: Asker<'_>, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.key.clone();
        for part in [asker.tenant.as_bytes(), asker.principal.as_bytes(), payload] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    /// Writes a cursor to a place in the rows of a plan that was made at `now`.
    pub fn write(&self, asker: Asker<'_>, plan: &Plan, now: i64, from: Keyset) -> String {
        let written =
            Written { now, back: from.way == Way::Previous, keys: from.values, digest: plan.digest };
        // Numbers and texts: they are written.
        let mut bytes = serde_json::to_vec(&written).unwrap_or_default();
        let signature = self.signed(asker, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&signature);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor.
    fn read(&self, asker: Asker<'_>, text: &str) -> Result<Cursor, QueryError> {
        let refuse = || {
            QueryError::new(
                Code::BadValue,
                (0, 0),
                "this cursor is none of ours, or of another query or caller",
            )
            .hint("ask for the first page again")
        };
        if text.len() > CURSOR_BYTES_MAX {
            return Err(refuse());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refuse())?;
        let payload = bytes.len().checked_sub(SIGNATURE_BYTES).ok_or_else(refuse)?;
        let (payload, signature) = bytes.split_at(payload);
        self.signed(asker, payload).verify_slice(signature).map_err(|_| refuse())?;
        let Written { now, back, keys, digest } = serde_json::from_slice(payload).map_err(|_| refuse())?;
        let way = if back { Way::Previous } else { Way::Next };
        Ok(Cursor { now, from: Keyset { way, values: keys }, digest })
    }
}

impl Cursors {
    /// Plans a page of a query: the first, or where a cursor says. Returns also what the query takes for now.
    pub fn plan(
        &self,
        asker: Asker<'_>,
        query: &str,
        now: i64,
        limit: Option<i64>,
        cursor: Option<&str>,
    ) -> Result<(Plan, i64), Vec<QueryError>> {
        let one = |error| vec![error];
        let Some(cursor) = cursor else {
            return Ok((plan(query, now, Extent::Page { limit, from: None })?, now));
        };
        let cursor = self.read(asker, cursor).map_err(one)?;
        let plan = plan(query, cursor.now, Extent::Page { limit, from: Some(cursor.from.clone()) })?;
        cursor.check(&plan).map_err(one)?;
        Ok((plan, cursor.now))
    }
}

impl Cursor {
    /// Whether it is of the query of a plan that was made at its `now`.
    fn check(&self, plan: &Plan) -> Result<(), QueryError> {
        if self.digest == plan.digest {
            return Ok(());
        }
        let said = "this cursor is of another query";
        Err(QueryError::new(Code::BadValue, (0, 0), said).hint("ask for the first page again"))
    }
}
