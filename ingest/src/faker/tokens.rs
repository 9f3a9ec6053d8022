//! Access tokens of the faker: each says itself when it expires, so none need be kept.

use std::sync::atomic::{AtomicU64, Ordering};

use serviceradar_schemas::time::MINUTE;

/// How long a token is good for, microseconds: short, so that a long crawl has to renew it.
const TOKEN_LIFE: i64 = 10 * MINUTE;

/// Gives out tokens and judges them.
pub(super) struct Tokens {
    /// Tells the tokens of this process from those of others.
    nonce: u64,
    given: AtomicU64,
    revoked: AtomicU64,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self { nonce: rand::random(), given: AtomicU64::new(0), revoked: AtomicU64::new(0) }
    }

    /// A token, and when it expires.
    pub(super) fn give(&self, now: i64) -> (String, i64) {
        let serial = self.given.fetch_add(1, Ordering::SeqCst) + 1;
        let expires = now + TOKEN_LIFE;
        (format!("{:x}.{serial}.{expires}", self.nonce), expires)
    }

    /// Takes back all that were given out.
    pub(super) fn revoke(&self) {
        self.revoked.store(self.given.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Whether a token was given out here, has not expired and was not taken back.
    pub(super) fn is_good(&self, token: &str, now: i64) -> bool {
        let mut parts = token.split('.');
        let ours = parts.next() == Some(format!("{:x}", self.nonce).as_str());
        let serial = parts.next().and_then(|s| s.parse::<u64>().ok());
        let expires = parts.next().and_then(|s| s.parse::<i64>().ok());
        let given = self.revoked.load(Ordering::SeqCst) + 1..=self.given.load(Ordering::SeqCst);
        ours && serial.is_some_and(|s| given.contains(&s)) && expires.is_some_and(|e| now < e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_it_expires_or_is_revoked() {
        let tokens = Tokens::new();
        let (first, expires) = tokens.give(0);
        assert!(tokens.is_good(&first, expires - 1));
        assert!(!tokens.is_good(&first, expires));
        tokens.revoke();
        let (second, _) = tokens.give(0);
        assert!(!tokens.is_good(&first, 0));
        assert!(tokens.is_good(&second, 0));
        assert!(!tokens.is_good("nonsense", 0));
        assert!(!tokens.is_good(&Tokens::new().give(0).0, 0));
    }
}
