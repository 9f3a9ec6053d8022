//! The answers of Armis: a page of devices, an access token.

use serde::Deserialize;
use serde_json::{Map, Value};
use serviceradar_schemas::{excerpt, time};

/// Most devices of one Armis that a crawl takes: their ids are in memory while it runs.
const DEVICES_MAX: usize = 10_000_000;

/// What every answer is wrapped in.
#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

/// A page of devices.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// How many results Armis says it has.
    pub count: usize,
    /// Where Armis says the next page begins. Pages are reckoned from `total`; this is only compared.
    #[serde(default)]
    pub next: Option<usize>,
    /// The devices.
    pub results: Vec<Map<String, Value>>,
    /// How many devices there are on all pages.
    pub total: usize,
}

/// A page as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Devices before it.
    pub from: usize,
    /// Devices asked for.
    pub length: usize,
    /// Devices that must come; unknown of the first page, which says itself how many there are.
    pub expected: Option<usize>,
}

impl Page {
    /// Reads a page and holds it against what was asked for.
    pub fn read(body: &[u8], request: PageRequest) -> Result<Self, String> {
        let page = serde_json::from_slice::<Envelope<Page>>(body)
            .map_err(|error| format!("its page cannot be read: {}", excerpt(&error.to_string())))?
            .data;
        if page.total > DEVICES_MAX {
            let total = page.total;
            return Err(format!("it has {total} devices, over the limit of {DEVICES_MAX}"));
        }
        let results = page.results.len();
        if results != page.count {
            return Err(format!("its page has {results} devices and says {}", page.count));
        }
        if results > request.length {
            return Err(format!("its page has {results} devices where {} were asked for", request.length));
        }
        let rest = page.total.saturating_sub(request.from);
        // A server may have a shorter limit of its own, but gives something where there is something.
        let short = request.expected.map_or(results == 0 && rest > 0, |expected| results != expected);
        if short {
            let expected = request.expected.unwrap_or(rest.min(request.length));
            return Err(format!("its page has {results} devices where {expected} were to come"));
        }
        let end = request.from + results;
        if page.next != (end < page.total).then_some(end) {
            let next = page.next;
            tracing::warn!(?next, end, "Armis names a next page that is not the next; it is not followed");
        }
        Ok(page)
    }
}

/// An access token.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// Goes into the header `Authorization` as it is.
    pub value: String,
    /// Microseconds since the Unix epoch; `None` where Armis does not say so that we understand.
    pub expires: Option<i64>,
}

impl AccessToken {
    /// Reads the answer to a request for one.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Token {
            access_token: String,
            #[serde(default)]
            expiration_utc: Option<String>,
        }
        let token = serde_json::from_slice::<Envelope<Token>>(body)
            .map_err(|error| format!("its access token cannot be read: {}", excerpt(&error.to_string())))?
            .data;
        let expires = token.expiration_utc.as_deref().and_then(time::parse);
        Ok(Self { value: token.access_token, expires })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(results: usize, count: usize, total: usize) -> Vec<u8> {
        let results: Vec<Value> = (0..results).map(|i| serde_json::json!({"id": i})).collect();
        let data = serde_json::json!({"results": results, "count": count, "total": total, "next": null});
        serde_json::to_vec(&serde_json::json!({"data": data, "success": true})).unwrap()
    }

    #[test]
    fn a_page_is_held_against_what_was_asked_for() {
        let first = PageRequest { from: 0, length: 10, expected: None };
        assert_eq!(Page::read(&body(3, 3, 3), first).unwrap().results.len(), 3);
        assert_eq!(Page::read(&body(4, 4, 30), first).unwrap().total, 30, "a limit of the server's own");
        assert!(Page::read(&body(0, 0, 3), first).unwrap_err().contains("3 were to come"));
        assert!(Page::read(&body(3, 4, 4), first).unwrap_err().contains("says 4"));
        assert!(Page::read(&body(11, 11, 11), first).unwrap_err().contains("10 were asked for"));
        let later = PageRequest { from: 10, length: 10, expected: Some(5) };
        assert!(Page::read(&body(4, 4, 15), later).unwrap_err().contains("5 were to come"));
        assert!(Page::read(&body(5, 5, 15), later).is_ok());
    }

    #[test]
    fn an_absurd_total_is_refused() {
        let first = PageRequest { from: 0, length: 10, expected: None };
        assert!(Page::read(&body(10, 10, usize::MAX), first).unwrap_err().contains("over the limit"));
    }

    #[test]
    fn a_token_without_a_readable_expiry_is_still_one() {
        let read = |json: &str| AccessToken::read(json.as_bytes());
        let with = r#"{"data":{"access_token":"t","expiration_utc":"2021-05-21T21:04:57.246424+00:00"}}"#;
        assert_eq!(read(with).unwrap().expires, time::parse("2021-05-21T21:04:57.246424Z"));
        assert_eq!(read(r#"{"data":{"access_token":"t","expiration_utc":"later"}}"#).unwrap().expires, None);
        assert!(read(r#"{"success":false}"#).is_err());
    }
}
