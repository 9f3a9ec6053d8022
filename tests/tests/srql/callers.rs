//! The service over TLS: certificates and tokens, and whose rows they show.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519, SanType,
    SigningKey as _,
};
use reqwest::{Certificate, Client, ClientBuilder, Identity, StatusCode};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::{Value, json};
use serviceradar_schemas::time::{ManualClock, SECOND};
use serviceradar_srql::{
    cursor::Cursors,
    service::{
        ANSWER_BYTES_DEFAULT, Service,
        callers::{Callers, LEEWAY},
        connections::{self, CONNECTIONS_DEFAULT},
        live::Live,
        readers::{CONCURRENT_DEFAULT, COST_DEFAULT, Readers},
        tls,
    },
};
use serviceradar_tests::database::Database;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::service::{filled, keys};

/// 2026-07-01.
const NOW: i64 = 1_782_864_000 * SECOND;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of an authority, until the year, and its key, both PEM.
fn signed(by: &Authority, name: SanType, until: i32) -> (String, String) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![name];
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

struct Stand {
    address: SocketAddr,
    authority: Authority,
    issuer: KeyPair,
    shutdown: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
    _database: Option<Database>,
}

impl Stand {
    async fn new(database: Option<Database>, connections_max: usize) -> Self {
        let (authority, issuer) = (authority(), KeyPair::generate_for(&PKCS_ED25519).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let (certificate, key) = signed(&authority, SanType::IpAddress([127, 0, 0, 1].into()), 4_000);
        fs::write(place("service.pem"), certificate).unwrap();
        fs::write(place("authority.pem"), authority.pem()).unwrap();
        fs::write(place("issuer.pem"), issuer.public_key_pem()).unwrap();
        let list = keys()
            + "[[certificate]]\nname = \"agent\"\ntenant = \"acme\"\nrole = \"reader\"\n\
               subject_alt_name = \"spiffe://acme/agent\"\n\
               [[token]]\nname = \"id\"\nissuer = \"https://id\"\naudience = \"srql\"\nalgorithm = \"EdDSA\"\n\
               key_file = \"issuer.pem\"\nrole = \"reader\"\n\
               tenants = { claim = \"org\", of = { A = \"acme\", O = \"other\" } }\n";
        fs::write(place("callers.toml"), list).unwrap();
        let shutdown = CancellationToken::new();
        let url = database.as_ref().map_or("postgresql://u@127.0.0.1:1/d", Database::url).to_owned();
        let service = Service {
            callers: Callers::open(&place("callers.toml")).unwrap(),
            readers: Readers::new(url, CONCURRENT_DEFAULT, COST_DEFAULT),
            cursors: Cursors::new(b"key"),
            live: Live::new(shutdown.clone()),
            clock: Arc::new(ManualClock::new(NOW)),
            meter: Arc::new(()),
            answer_bytes_max: ANSWER_BYTES_DEFAULT,
        };
        let tls = tls::server(&place("service.pem"), &key, Some(&place("authority.pem"))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving =
            connections::serve(listener, service.routes(), Some(tls), connections_max, shutdown.clone());
        let served = tokio::spawn(serving);
        Self { address, authority, issuer, shutdown, served, _database: database }
    }

    fn client(&self) -> ClientBuilder {
        // Already there where another test was first.
        _ = rustls::crypto::ring::default_provider().install_default();
        let trusted = Certificate::from_pem(self.authority.pem().as_bytes()).unwrap();
        Client::builder().tls_certs_only([trusted])
    }

    /// A client with a certificate.
    fn with(&self, (certificate, key): (String, String)) -> Client {
        let identity = Identity::from_pem((certificate + &key).as_bytes()).unwrap();
        self.client().identity(identity).build().unwrap()
    }

    fn anonymous(&self) -> Client {
        self.client().build().unwrap()
    }

    /// What a client is answered, and how, with what it shows of itself in a header.
    async fn ask(
        &self,
        client: &Client,
        path: &str,
        shown: Option<&str>,
    ) -> reqwest::Result<(StatusCode, Value)> {
        let request = client.get(format!("https://{}{path}", self.address));
        let request = match shown {
            Some(shown) => request.bearer_auth(shown),
            None => request,
        };
        let response = request.send().await?;
        Ok((response.status(), response.json().await?))
    }

    fn token(&self, claims: Value) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(json!({ "alg": "EdDSA" })), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.issuer.sign(message.as_bytes()).unwrap());
        format!("{message}.{signature}")
    }

    fn token_of(&self, subject: &str, org: &str, expires: i64) -> String {
        self.token(json!({ "iss": "https://id", "aud": "srql", "sub": subject, "org": org, "exp": expires / SECOND }))
    }
}

const SCHEMA: &str = "/api/srql/schema";
const VENDORS: &str = "/api/query?q=in:devices+stats:\"count()+by+vendor_name\"";

/// The tenants whose rows there are.
fn vendors(answer: &Value) -> Vec<&str> {
    answer["results"].as_array().unwrap().iter().map(|row| row["vendor_name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_or_a_token_shows_the_rows_of_its_tenant_alone() {
    let stand = Stand::new(Some(filled().await), CONNECTIONS_DEFAULT).await;
    let agent = stand.with(signed(&stand.authority, uri("spiffe://acme/agent"), 4_000));
    let (status, answer) = stand.ask(&agent, VENDORS, None).await.unwrap();
    assert_eq!((status, vendors(&answer)), (StatusCode::OK, vec!["acme"]), "{answer}");
    let anonymous = stand.anonymous();
    for (org, tenant) in [("A", "acme"), ("O", "other")] {
        let token = stand.token_of("anna", org, NOW + SECOND);
        let (status, answer) = stand.ask(&anonymous, VENDORS, Some(&token)).await.unwrap();
        assert_eq!((status, vendors(&answer)), (StatusCode::OK, vec![tenant]), "{answer}");
    }
    // A cursor is of the subject, not of whoever has a token of the same issuer.
    let first = "/api/query?q=in:devices+sort:uid+limit:5";
    let [anna, ben] = ["anna", "ben"].map(|subject| stand.token_of(subject, "A", NOW + SECOND));
    let (_, answer) = stand.ask(&anonymous, first, Some(&anna)).await.unwrap();
    let next = format!("{first}&cursor={}", answer["pagination"]["next_cursor"].as_str().unwrap());
    assert_eq!(stand.ask(&anonymous, &next, Some(&anna)).await.unwrap().0, StatusCode::OK);
    assert_eq!(stand.ask(&anonymous, &next, Some(&ben)).await.unwrap().0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_query_ends_with_what_was_shown() {
    let stand = Stand::new(Some(filled().await), CONNECTIONS_DEFAULT).await;
    // A second is left of what clocks may differ by.
    let token = stand.token_of("anna", "A", NOW - LEEWAY + SECOND);
    let url = format!("https://{}/api/query/stream?q=in:devices+limit:2", stand.address);
    let text = stand.anonymous().get(url).bearer_auth(token).send().await.unwrap().text().await.unwrap();
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(events, ["upsert", "upsert", "current", "error"], "{text}");
    assert!(text.contains("unauthenticated"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_told_is_refused_with_the_reason() {
    let stand = Stand::new(None, CONNECTIONS_DEFAULT).await;
    let anonymous = stand.anonymous();
    let agent = stand.with(signed(&stand.authority, uri("spiffe://acme/agent"), 4_000));
    // Of our authority, but of nobody: a key says who it is.
    let stranger = stand.with(signed(&stand.authority, uri("spiffe://acme/stranger"), 4_000));
    let old = stand.token_of("anna", "A", NOW - 60 * SECOND);
    let new = stand.token(json!({
        "iss": "https://id", "aud": "srql", "sub": "anna", "org": "A", "exp": NOW / SECOND + 600, "nbf": NOW / SECOND + 300,
    }));
    let others = stand
        .token(json!({ "iss": "https://id", "aud": "x", "sub": "a", "org": "A", "exp": NOW / SECOND + 9 }));
    let good = stand.token_of("anna", "A", NOW + SECOND);
    let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
    for (client, shown, words) in [
        (&anonymous, None, Some("say who you are")),
        (&stranger, None, Some("of nobody")),
        (&anonymous, Some("key of eve"), Some("of nobody")),
        (&agent, Some("key of eve"), Some("of nobody")),
        (&agent, Some("key of bert"), Some("several callers")),
        (&anonymous, Some(&*old), Some("expired")),
        (&anonymous, Some(&*new), Some("does not hold yet")),
        (&anonymous, Some(&*others), Some("of nobody")),
        (&anonymous, Some(&*unsigned), Some("of nobody")),
        (&anonymous, Some(&*good), None),
        (&anonymous, Some("key of bert"), None),
        (&stranger, Some("key of bert"), None),
        (&agent, Some("key of anna"), None),
        (&agent, None, None),
    ] {
        let (status, answer) = stand.ask(client, SCHEMA, shown).await.unwrap();
        let Some(words) = words else {
            assert_eq!(status, StatusCode::OK, "{answer}");
            continue;
        };
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words) && shown.is_none_or(|shown| !message.contains(shown)), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_is_with_certificates_of_the_authority_and_keeps_nobody_else_waiting() {
    let stand = Stand::new(None, CONNECTIONS_DEFAULT).await;
    let name = || uri("spiffe://acme/agent");
    // They say nothing, and their handshakes do not end.
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(TcpStream::connect(stand.address).await.unwrap());
    }
    for refused in [signed(&authority(), name(), 4_000), signed(&stand.authority, name(), 2_000)] {
        let client = stand.with(refused);
        assert!(stand.ask(&client, SCHEMA, Some("key of anna")).await.is_err());
    }
    let plain = format!("http://{}/healthz", stand.address);
    assert!(stand.anonymous().get(plain).send().await.is_err());
    assert_eq!(stand.ask(&stand.anonymous(), SCHEMA, Some("key of anna")).await.unwrap().0, StatusCode::OK);
    drop(silent);

    // HTTP/2 is offered, which gRPC needs.
    let mut roots = RootCertStore::empty();
    roots.add(stand.authority.der().clone()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = stand.address;
    let protocol = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let name = address.ip().into();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        connection.complete_io(&mut stream).unwrap();
        connection.alpn_protocol().map(<[u8]>::to_vec)
    });
    assert_eq!(protocol.await.unwrap().as_deref(), Some(b"h2".as_slice()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_one_too_many_is_sent_away_and_a_shutdown_ends_all() {
    let stand = Stand::new(None, 4).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(TcpStream::connect(stand.address).await.unwrap());
    }
    // Nothing more comes on one of them. Those that are waited for are silent.
    let ends = open.iter_mut().map(|stream| Box::pin(async { stream.read(&mut [0]).await }));
    let (end, ..) = futures_util::future::select_all(ends).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    drop(open);
    // There is room again, as soon as it was seen that they went.
    let client = stand.anonymous();
    while stand.ask(&client, SCHEMA, Some("key of anna")).await.is_err() {
        tokio::task::yield_now().await;
    }
    // The client's connection is kept, and a handshake hangs.
    let _silent = TcpStream::connect(stand.address).await.unwrap();
    stand.shutdown.cancel();
    stand.served.await.unwrap().unwrap();
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let (certificate, key) = signed(&authority(), uri("a://b"), 4_000);
    let (_, other) = signed(&authority(), uri("a://b"), 4_000);
    fs::write(place("good.pem"), certificate).unwrap();
    fs::write(place("garbage.pem"), "garbage").unwrap();
    let der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(place("der.pem"), der).unwrap();
    let [good, garbage, der, missing] = ["good.pem", "garbage.pem", "der.pem", "missing.pem"].map(place);
    assert!(tls::server(&good, &key, Some(&good)).is_ok());
    for (certificate, key, authority, file, part) in [
        (&missing, &key, None, Some("missing.pem"), "No such file"),
        (&garbage, &key, None, Some("garbage.pem"), "BEGIN CERTIFICATE"),
        (&good, &"garbage".to_owned(), None, None, "private key as PEM"),
        (&good, &other, None, Some("good.pem"), "do not go together"),
        (&good, &key, Some(&missing), Some("missing.pem"), "No such file"),
        (&good, &key, Some(&garbage), Some("garbage.pem"), "BEGIN CERTIFICATE"),
        (&good, &key, Some(&der), Some("der.pem"), "no certificates in"),
    ] {
        let error =
            tls::server(certificate, key, authority.map(|path| path as &Path)).unwrap_err().to_string();
        assert!(error.contains(part) && file.is_none_or(|file| error.contains(file)), "{error}");
    }
}
