//! A client of the Armis HTTP interface: tokens, retries, the circuit breaker.

use std::{sync::Arc, time::Duration};

use reqwest::{RequestBuilder, Response, StatusCode, Url, header};
use serviceradar_schemas::time::Clock;
use tokio::time::Instant;

use super::{
    backoff,
    breaker::Breaker,
    config::{ArmisConfig, ConfigError},
    page::{AccessToken, Page, PageRequest},
    token::TokenCache,
};

/// Times a request is made before it counts as failed.
const ATTEMPTS_MAX: u32 = 5;
/// Longest answer that is read, bytes: some ten times a full page.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest `Retry-After` that is waited for; who asks for more is asked again by the next crawl.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);
/// How much of a refusal's body an error shows, characters.
const EXCERPT_MAX: usize = 200;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No TLS or no connections on this machine.
    #[error("no HTTP client can be made here: {0}; the system's certificates may be missing")]
    Http(reqwest::Error),
}

/// Why something could not be fetched.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FetchError {
    /// Armis does not know the secret.
    #[error("Armis refuses the secret ({status}): {body}; give the secret of this Armis")]
    SecretRefused {
        /// The answer's status.
        status: u16,
        /// Beginning of what it said.
        body: String,
    },
    /// Armis refuses the request itself; asking again would not help.
    #[error("Armis refuses the request ({status}): {body}; check its address and the query")]
    Refused {
        /// The answer's status.
        status: u16,
        /// Beginning of what it said.
        body: String,
    },
    /// It failed again and again.
    #[error("Armis failed {ATTEMPTS_MAX} times, last: {last}; the next crawl tries again")]
    Exhausted {
        /// The last failure.
        last: String,
    },
    /// Armis asks for patience that a crawl does not have.
    #[error(
        "Armis asks to wait {seconds} s, longer than the {} s a crawl waits: crawl less often, or \
         fewer pages at once", RETRY_AFTER_MAX.as_secs()
    )]
    WaitTooLong {
        /// Seconds.
        seconds: u64,
    },
    /// So many requests failed in a row that none is made for now.
    #[error("Armis failed too often in a row: it is left alone for another {seconds} s")]
    CircuitOpen {
        /// Seconds until one request may try.
        seconds: u64,
    },
}

/// What came of one attempt, where it was not an answer.
enum Failure {
    /// Trying again may help.
    Retry {
        why: String,
        after: Option<Duration>,
        /// Whether the server is to blame, and so the circuit counts it.
        broken: bool,
    },
    /// It would not.
    Final(FetchError),
}

impl Failure {
    fn broken(why: impl ToString) -> Self {
        Self::Retry { why: why.to_string(), after: None, broken: true }
    }
}

/// A client of one Armis. Clones share its token and its circuit.
#[derive(Clone)]
pub struct ArmisClient(Arc<Inner>);

struct Inner {
    config: ArmisConfig,
    clock: Arc<dyn Clock>,
    http: reqwest::Client,
    search: Url,
    access_token: Url,
    token: TokenCache,
    breaker: Breaker,
}

impl ArmisClient {
    /// A client for `config`; the clock judges when a token expires. Nothing is fetched yet.
    pub fn new(config: ArmisConfig, clock: Arc<dyn Clock>) -> Result<Self, ClientError> {
        config.check()?;
        let mut search = url(&config.url, "api/v1/search/")?;
        search.query_pairs_mut().append_pair("aql", &config.aql);
        let http = http(&config, search.scheme()).map_err(ClientError::Http)?;
        let access_token = url(&config.url, "api/v1/access_token/")?;
        let (token, breaker) = (TokenCache::default(), Breaker::new());
        Ok(Self(Arc::new(Inner { config, clock, http, search, access_token, token, breaker })))
    }

    /// What it was made with.
    pub fn config(&self) -> &ArmisConfig {
        &self.0.config
    }

    /// Sees that it answers, and knows the question.
    pub async fn probe(&self) -> Result<(), FetchError> {
        self.page(PageRequest { from: 0, length: 1, expected: None }).await.map(drop)
    }

    /// Fetches a page; tries again where that may help.
    pub(super) async fn page(&self, request: PageRequest) -> Result<Page, FetchError> {
        let of = &*self.0;
        let mut failures = 0;
        loop {
            of.breaker
                .enter(Instant::now())
                .map_err(|wait| FetchError::CircuitOpen { seconds: wait.as_secs().max(1) })?;
            let (why, after) = match of.try_page(request).await {
                Ok(page) => {
                    of.breaker.succeeded();
                    return Ok(page);
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Retry { why, after, broken }) => {
                    if broken {
                        of.breaker.failed(Instant::now());
                    }
                    (why, after)
                }
            };
            failures += 1;
            if failures >= ATTEMPTS_MAX {
                return Err(FetchError::Exhausted { last: why });
            }
            let wait = after.unwrap_or_default() + backoff::wait(of.config.retry_base, failures);
            tracing::info!(from = request.from, failures, ?wait, why, "a page is fetched again");
            tokio::time::sleep(wait).await;
        }
    }
}

fn http(config: &ArmisConfig, scheme: &str) -> reqwest::Result<reqwest::Client> {
    // Refused where the program has chosen its provider already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // An interface that sends elsewhere is not the one that was configured.
    let builder = reqwest::Client::builder()
        .timeout(config.request_timeout)
        .redirect(reqwest::redirect::Policy::none());
    match scheme {
        "https" => builder.build(),
        // Without TLS the system's certificates are not needed, and may be missing.
        _ => builder.tls_certs_only([]).build(),
    }
}

fn url(base: &str, path: &str) -> Result<Url, ConfigError> {
    let wrong = |why: String| ConfigError::Url { url: base.to_owned(), why };
    let url = Url::parse(&format!("{}/{path}", base.trim_end_matches('/')))
        .map_err(|error| wrong(error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(wrong(format!("{scheme} is not http or https"))),
    }
}

impl Inner {
    async fn try_page(&self, request: PageRequest) -> Result<Page, Failure> {
        let token = self.token().await?;
        let search = self
            .http
            .get(self.search.clone())
            .query(&[("length", request.length), ("from", request.from)])
            .header(header::AUTHORIZATION, &token);
        let response = self.send(search).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.token.forget(&token).await;
            let why = "it refuses the access token (401)".to_owned();
            return Err(Failure::Retry { why, after: None, broken: false });
        }
        let body = body(self.judge(response).await?).await?;
        Page::read(&body, request).map_err(Failure::broken)
    }

    /// The access token, fetched where there is none or it is about to expire.
    async fn token(&self) -> Result<String, Failure> {
        let place = match self.token.get(self.clock.now()).await {
            Ok(token) => return Ok(token),
            Err(place) => place,
        };
        let secret = [("secret_key", self.config.secret.reveal())];
        let response = self.send(self.http.post(self.access_token.clone()).form(&secret)).await?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let body = excerpt(response).await;
            return Err(Failure::Final(FetchError::SecretRefused { status: status.as_u16(), body }));
        }
        let body = body(self.judge(response).await?).await?;
        let token = AccessToken::read(&body).map_err(Failure::broken)?;
        Ok(place.put(token, self.clock.now()))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| Failure::broken(causes(&error)))
    }

    /// Lets a success pass and says of anything else whether trying again may help.
    async fn judge(&self, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| backoff::retry_after(value, self.clock.now()));
        if let Some(wait) = after.filter(|wait| *wait > RETRY_AFTER_MAX) {
            return Err(Failure::Final(FetchError::WaitTooLong { seconds: wait.as_secs() }));
        }
        let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        let body = excerpt(response).await;
        if busy || status.is_server_error() {
            let why = format!("{status}: {body}");
            return Err(Failure::Retry { why, after, broken: !busy });
        }
        Err(Failure::Final(FetchError::Refused { status: status.as_u16(), body }))
    }
}

/// The whole body, up to the limit.
async fn body(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| Failure::broken(causes(&error)))? {
        if body.len() + part.len() > RESPONSE_BYTES_MAX {
            let why = format!("its answer is over the limit of {RESPONSE_BYTES_MAX} bytes");
            return Err(Failure::broken(why));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// The beginning of what a refusal says; what cannot be read is left out.
async fn excerpt(mut response: Response) -> String {
    let first = response.chunk().await.ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&first).chars().take(EXCERPT_MAX).collect()
}

/// An error of the HTTP client with what it came from, which it does not say by itself.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
