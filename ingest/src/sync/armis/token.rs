//! The access token, kept until it is about to expire.

use serviceradar_schemas::time::MINUTE;
use tokio::sync::{Mutex, MutexGuard};

use super::page::AccessToken;

/// A token is renewed this long before it expires, microseconds: longer than any request takes.
const RENEW_BEFORE: i64 = MINUTE;
/// How long a token is used whose expiry is not known, microseconds; a 401 renews it earlier.
const LIFE_ASSUMED: i64 = 10 * MINUTE;

struct Kept {
    value: String,
    renew_at: i64,
}

/// Where the token is kept. Who finds none holds the place until it has put one there, so that
/// requests that come together ask for one token.
#[derive(Default)]
pub(super) struct TokenCache(Mutex<Option<Kept>>);

/// The place for a token, held by the one who fetches it.
pub(super) struct Place<'a>(MutexGuard<'a, Option<Kept>>);

impl TokenCache {
    /// The token, or the place to put one. `now` in microseconds since the Unix epoch.
    pub(super) async fn get(&self, now: i64) -> Result<String, Place<'_>> {
        let kept = self.0.lock().await;
        match kept.as_ref() {
            Some(token) if now < token.renew_at => Ok(token.value.clone()),
            _ => Err(Place(kept)),
        }
    }

    /// Forgets a token that was refused, unless another has taken its place already.
    pub(super) async fn forget(&self, refused: &str) {
        self.0.lock().await.take_if(|token| token.value == refused);
    }
}

impl Place<'_> {
    pub(super) fn put(mut self, token: AccessToken, now: i64) -> String {
        let expires = token.expires.unwrap_or(now + LIFE_ASSUMED);
        // A token that lives shorter than that is still used once.
        let renew_at = (expires - RENEW_BEFORE).max(now + 1);
        *self.0 = Some(Kept { value: token.value.clone(), renew_at });
        token.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(value: &str, expires: Option<i64>) -> AccessToken {
        AccessToken { value: value.to_owned(), expires }
    }

    async fn put(cache: &TokenCache, new: AccessToken, now: i64) {
        match cache.get(now).await {
            Ok(old) => panic!("{old} was kept"),
            Err(place) => place.put(new, now),
        };
    }

    #[tokio::test]
    async fn a_token_is_kept_until_shortly_before_it_expires() {
        let cache = TokenCache::default();
        put(&cache, token("a", Some(5 * MINUTE)), 0).await;
        assert_eq!(cache.get(4 * MINUTE - 1).await.ok().as_deref(), Some("a"));
        put(&cache, token("b", None), 4 * MINUTE).await;
        assert_eq!(cache.get(12 * MINUTE).await.ok().as_deref(), Some("b"));
    }

    #[tokio::test]
    async fn only_the_token_that_was_refused_is_forgotten() {
        let cache = TokenCache::default();
        put(&cache, token("b", None), 0).await;
        cache.forget("a").await;
        assert_eq!(cache.get(1).await.ok().as_deref(), Some("b"));
        cache.forget("b").await;
        assert!(cache.get(1).await.is_err());
    }
}
