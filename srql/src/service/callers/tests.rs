//! Keys, tokens and certificates that are taken, and those that are not.

use std::fs;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PublicKeyData as _, SanType, SigningKey as _,
};
use ring::{hmac, rand::SystemRandom, signature as by};
use serde_json::{Value, json};
use serviceradar_schemas::time::SECOND;

use super::*;

fn hex(key: &str) -> String {
    digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entry(name: &str, tenant: &str, role: &str, sha256: &str) -> String {
    format!("[[key]]\nname = \"{name}\"\ntenant = \"{tenant}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n")
}

#[test]
fn a_key_is_one_caller_and_nothing_else_is() {
    let text = entry("dash", "acme", "reader", &hex("k1")) + &entry("ops", "other", "operator", &hex("k2"));
    let callers = Callers::read(&text).unwrap();
    let of = |name: &'static str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        callers.of(&headers, None, 0).map(|caller| caller.name)
    };
    assert_eq!(of("authorization", "Bearer k1").as_deref(), Ok("dash"));
    assert_eq!(of("authorization", "bearer  k2").as_deref(), Ok("ops"));
    assert_eq!(of("x-api-key", "k2").as_deref(), Ok("ops"));
    for (name, value, refusal) in [
        ("authorization", "k1", Refusal::Missing),
        ("authorization", "Basic k1", Refusal::Missing),
        ("cookie", "k1", Refusal::Missing),
        ("authorization", "Bearer k", Refusal::Unknown),
        ("x-api-key", "k", Refusal::Unknown),
        ("x-api-key", "", Refusal::Unknown),
        ("x-api-key", &hex("k1"), Refusal::Unknown),
    ] {
        assert_eq!(of(name, value), Err(refusal), "{name}: {value}");
    }
    assert_eq!(callers.of(&HeaderMap::new(), None, 0), Err(Refusal::Missing));
}

const SECRET: &[u8; 64] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A token that is signed by a function.
fn signed(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn by_secret(algorithm: hmac::Algorithm, secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(algorithm, secret);
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

fn claims() -> Value {
    json!({ "iss": "https://id", "aud": "srql", "sub": "anna", "exp": 2_000 })
}

fn with(change: Value) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().append(&mut change.as_object().unwrap().clone());
    claims
}

/// An entry of tokens, whose keys are in the lines given.
fn issuer(name: &str, algorithm: &str, key: &str) -> String {
    format!(
        "[[token]]\nname = \"{name}\"\nissuer = \"https://id\"\naudience = \"srql\"\nalgorithm = \"{algorithm}\"\n\
         role = \"reader\"\ntenant = \"acme\"\n{key}\n"
    )
}

fn inline(pem: &str) -> String {
    format!("key = \"\"\"\n{pem}\"\"\"")
}

/// Callers of a list, with the secret of 64 bytes in a file beside it.
fn beside_secret(text: &str) -> Callers {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), [SECRET.as_slice(), b"\n"].concat()).unwrap();
    fs::write(dir.path().join("callers.toml"), text).unwrap();
    Callers::open(&dir.path().join("callers.toml")).unwrap()
}

fn bearer(shown: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, format!("Bearer {shown}").parse().unwrap())])
}

fn of(callers: &Callers, token: &str, now_s: i64) -> Result<Caller, Refusal> {
    callers.of(&bearer(token), None, now_s * SECOND)
}

fn anna(name: &str) -> Caller {
    Caller {
        name: format!("{name}/anna"),
        tenant: "acme".to_owned(),
        role: Role::Reader,
        expires: Some(2_000 * SECOND + LEEWAY),
    }
}

// By a key that is nowhere: the claims above, and a key of 1,024 bits.
const RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAvyvuABjn58EdW8mhKhU7
/OKue+cfRkzTPOrL8P27DsM08jHUpvX3syZnQwvfMwlCgPjfRNcqURCt165+lanf
qpob/E9DPsRpuHj9Q1MvOa1AeFT8KLQSOZXj44sfD9SvjLyF8Vy1atn8ykwXzVJD
8g+WFwCclieV9ocRfsppiN2+0XhxmOhorBKUHutI2++jm0iAggu2CjLe7EULUbzb
7iwIp7290FO7eTpPEfpmHwjw1E/GOZ/GpZ6/mjqcNC4RE3WbWVYPTtoLLnWTmZEl
n7/qCO32x0lSh/E+3YHD3yZ0HGWyGtvrHV98teOemvzmADPT7o18Iz/zOt6bmaDP
nwIDAQAB
-----END PUBLIC KEY-----
";
const RSA_SHORT: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCp4nwEnNZ9OjQXwTVDE6i/2EsR
bN101Axw7BjZWHdJ/BCzf/fIBSK+ymTw78EM/u7ZhEdMjcQesYWUk6poOsbERAyH
D2jleB8KA9x6bOCkI2z7QCnjx0lxwmXSXPuWOmJdZKuWKALo0Lbcrq5sB6xxj5UQ
6XvHgDvAPHOmEObIyQIDAQAB
-----END PUBLIC KEY-----
";
const RS256: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lkIiwiYXVkIjoic3JxbCIsInN1YiI6ImFubmEiLCJleHAiOjIwMDB9.o7ProWbI0U3mifigLycXhAyb9u2T9m5KsFM1rJYsJF2QYGqLMaOw1tOAVhFZbEiBhtKl7mViBuN5irODRbpJMh4oMI3wCg7sTAZSHYqmDJGUmMjIgg0xaLtK-lalnwvjBmIatt8EoopSb2iYRSLZIEURf01QbEqQ0udKPGejuNsb8Esf-76tNAerUGEjaqtDzvq9N15LRcev3dlARTnJtDPS2-vSYkwan8QHTzbBzQgDXUTpnTE3NqETEIqguM0pmiTpW6aXnNxxaMG_iA_A2gC4AzEartnL-neSZEk3M3kkQG5MwmX_NMyTaM3JTkrtzDRb7uo3YqTZnwU1Qzy4Kw";
const PS256: &str = "eyJhbGciOiJQUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lkIiwiYXVkIjoic3JxbCIsInN1YiI6ImFubmEiLCJleHAiOjIwMDB9.AEKpW1hYDEsI-rtN0uy1C-hdQPXz1snrBTy6KAcgo2E_ZpL4Y9WutYn_ind16yOnl1wmlgR58ZPSv5jwJ0OJAYDSY2MHvTmU_XpihTpXAwXJe5LEdv8U6_CzbXzEuSWJ8p30_FqCpH2lG81BV0wOp1WyfZEtpQjl90tyItOeYHFY-wyb4QCgb1J0A-y0hqjViE4i82CkzCmREzfsogRshLV5zsx_Sy61_XGwl6grUeu7YyOJAfl2Kt-G2bmVcgadhljBXWhKPkk9MEK3q1-cLqkqn9669jcK3IcPN9eu9pOJ7KrlMcp7j21JcXAomIPP4itllOLaqYH70IDVyYw7oA";

#[test]
fn tokens_of_every_algorithm_are_taken_by_their_own_key_alone() {
    let random = SystemRandom::new();
    let (p256, p384, ed) = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519]
        .map(|kind| KeyPair::generate_for(kind).unwrap())
        .into();
    let ecdsa = |kind, pair: &KeyPair, message: &[u8]| {
        let pair = by::EcdsaKeyPair::from_pkcs8(kind, pair.serialized_der(), &random).unwrap();
        pair.sign(&random, message).unwrap().as_ref().to_vec()
    };
    let header = |algorithm: &str| json!({ "alg": algorithm, "typ": "JWT" });
    let secret = "secret_file = \"secret\"";
    let hs = |name: &'static str, algorithm| {
        (name, secret.to_owned(), signed(&header(name), &claims(), by_secret(algorithm, SECRET)))
    };
    let cases = [
        hs("HS256", hmac::HMAC_SHA256),
        hs("HS384", hmac::HMAC_SHA384),
        hs("HS512", hmac::HMAC_SHA512),
        ("ES256", inline(&p256.public_key_pem()), {
            let kind = &by::ECDSA_P256_SHA256_FIXED_SIGNING;
            signed(&header("ES256"), &claims(), |message| ecdsa(kind, &p256, message))
        }),
        ("ES384", inline(&p384.public_key_pem()), {
            let kind = &by::ECDSA_P384_SHA384_FIXED_SIGNING;
            signed(&header("ES384"), &claims(), |message| ecdsa(kind, &p384, message))
        }),
        ("EdDSA", inline(&ed.public_key_pem()), {
            signed(&header("EdDSA"), &claims(), |message| ed.sign(message).unwrap())
        }),
        ("RS256", inline(RSA), RS256.to_owned()),
        ("PS256", inline(RSA), PS256.to_owned()),
    ];
    for (algorithm, key, _) in &cases {
        let callers = beside_secret(&issuer("id", algorithm, key));
        for (other, _, token) in &cases {
            let expected = if other == algorithm { Ok(anna("id")) } else { Err(Refusal::Unknown) };
            assert_eq!(of(&callers, token, 1_000), expected, "{algorithm} {other}");
        }
    }
}

/// A token says in its header how it is signed: who takes its word takes a public key for a secret, or no signature at all.
#[test]
fn a_token_does_not_say_how_it_is_checked() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let pem = pair.public_key_pem();
    let none = |_: &[u8]| Vec::new();
    for entry in [issuer("id", "EdDSA", &inline(&pem)), issuer("id", "RS256", &inline(RSA))] {
        let callers = beside_secret(&entry);
        for algorithm in ["none", "None", "NONE", "", "HS256", "EdDSA", "RS256", "PS256", "HS1"] {
            let header = json!({ "alg": algorithm, "typ": "JWT" });
            assert_eq!(of(&callers, &signed(&header, &claims(), none), 1_000), Err(Refusal::Unknown));
            for public in [
                pem.as_bytes(),
                pem.trim_end().as_bytes(),
                pair.der_bytes(),
                RSA.as_bytes(),
                RSA.trim_end().as_bytes(),
                b"",
            ] {
                let token = signed(&header, &claims(), by_secret(hmac::HMAC_SHA256, public));
                assert_eq!(of(&callers, &token, 1_000), Err(Refusal::Unknown), "{algorithm}");
            }
        }
        // Nor may it bring its key along, or say what else must be understood.
        let own = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let x = URL_SAFE_NO_PAD.encode(own.der_bytes());
        let header = json!({ "alg": "EdDSA", "jwk": { "kty": "OKP", "crv": "Ed25519", "x": x } });
        let token = signed(&header, &claims(), |message| own.sign(message).unwrap());
        assert_eq!(of(&callers, &token, 1_000), Err(Refusal::Unknown));
        let header = json!({ "alg": "EdDSA", "crit": ["b64"], "b64": true });
        let token = signed(&header, &claims(), |message| pair.sign(message).unwrap());
        assert_eq!(of(&callers, &token, 1_000), Err(Refusal::Unknown));
    }
}

fn hs256(claims: &Value) -> String {
    signed(&json!({ "alg": "HS256" }), claims, by_secret(hmac::HMAC_SHA256, SECRET))
}

#[test]
fn claims_are_of_this_issuer_for_this_service_and_now() {
    let callers = beside_secret(&issuer("id", "HS256", "secret_file = \"secret\""));
    for (change, expected) in [
        (json!({}), Ok(())),
        (json!({ "aud": ["others", "srql"] }), Ok(())),
        (json!({ "nbf": 1_030 }), Ok(())),
        (json!({ "nbf": 1_031 }), Err(Refusal::Early)),
        (json!({ "exp": 970.5 }), Ok(())),
        (json!({ "exp": 970 }), Err(Refusal::Expired)),
        (json!({ "exp": -1 }), Err(Refusal::Unknown)),
        (json!({ "exp": 1e300 }), Err(Refusal::Unknown)),
        (json!({ "exp": null }), Err(Refusal::Unknown)),
        (json!({ "exp": "2000" }), Err(Refusal::Unknown)),
        (json!({ "nbf": "soon" }), Err(Refusal::Unknown)),
        (json!({ "iss": "https://id/" }), Err(Refusal::Unknown)),
        (json!({ "aud": "srq" }), Err(Refusal::Unknown)),
        (json!({ "aud": [] }), Err(Refusal::Unknown)),
        (json!({ "aud": null }), Err(Refusal::Unknown)),
        (json!({ "sub": "" }), Err(Refusal::Unknown)),
        (json!({ "sub": 7 }), Err(Refusal::Unknown)),
    ] {
        assert_eq!(of(&callers, &hs256(&with(change.clone())), 1_000).map(|_| ()), expected, "{change}");
    }
    for missing in ["iss", "aud", "sub", "exp"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(missing);
        assert_eq!(of(&callers, &hs256(&claims), 1_000), Err(Refusal::Unknown), "{missing}");
    }
    let mut other = SECRET.to_vec();
    other[63] = b'g';
    let header = json!({ "alg": "HS256" });
    let forged = signed(&header, &with(json!({ "exp": 1 })), by_secret(hmac::HMAC_SHA256, &other));
    // Who has no token of this issuer is not told that it would have expired.
    assert_eq!(of(&callers, &forged, 1_000), Err(Refusal::Unknown));
}

#[test]
fn a_claim_may_name_the_tenant_and_no_other_than_are_listed() {
    let entry = issuer("id", "HS256", "secret_file = \"secret\"")
        .replace("tenant = \"acme\"", "tenants = { claim = \"org\", of = { A = \"acme\", B = \"other\" } }");
    let callers = beside_secret(&entry);
    assert_eq!(callers.tenants(), ["acme", "other"].into());
    let tenant =
        |org: Value| of(&callers, &hs256(&with(json!({ "org": org }))), 1_000).map(|caller| caller.tenant);
    assert_eq!(tenant(json!("A")).as_deref(), Ok("acme"));
    assert_eq!(tenant(json!("B")).as_deref(), Ok("other"));
    for org in [json!("acme"), json!("a"), json!(""), json!(null), json!(["A"])] {
        assert_eq!(tenant(org.clone()), Err(Refusal::Unknown), "{org}");
    }
}

fn certificate(names: &[&str]) -> PeerCertificate {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|name| {
            let text = (*name).try_into().unwrap();
            if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
        })
        .collect();
    params.not_after = rcgen::date_time_ymd(2026, 1, 1);
    let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    PeerCertificate::read(signed.der()).unwrap()
}

#[test]
fn who_shows_several_things_is_of_one_tenant() {
    let named = |name: &str, tenant: &str, san: &str| {
        format!(
            "[[certificate]]\nname = \"{name}\"\ntenant = \"{tenant}\"\nrole = \"reader\"\nsubject_alt_name = \"{san}\"\n"
        )
    };
    let callers = entry("dash", "acme", "operator", &hex("k1"))
        + &entry("bert", "other", "reader", &hex("k2"))
        + &named("agent", "acme", "spiffe://acme/agent")
        + &named("host", "acme", "host.acme.example")
        + &issuer("id", "HS256", "secret_file = \"secret\"")
        + &issuer("id2", "HS256", "secret_file = \"secret\"").replace("srql", "both");
    let callers = beside_secret(&callers);
    // 2026-01-01.
    let end = 1_767_225_600 * SECOND;
    let of = |headers: &HeaderMap, names: &[&str], now| {
        let certificate = (!names.is_empty()).then(|| certificate(names));
        callers.of(headers, certificate.as_ref(), now).map(|caller| caller.name)
    };
    let nothing = HeaderMap::new();
    let agent = ["spiffe://acme/agent"];
    assert_eq!(of(&nothing, &agent, end - 1).as_deref(), Ok("agent"));
    assert_eq!(of(&nothing, &agent, end), Err(Refusal::Expired));
    assert_eq!(of(&nothing, &["x.example", "host.acme.example"], 0).as_deref(), Ok("host"));
    for name in
        ["spiffe://acme/agen", "spiffe://acme/agent/", "acme.example", "*.acme.example", "HOST.acme.example"]
    {
        assert_eq!(of(&nothing, &[name], 0), Err(Refusal::Unknown), "{name}");
    }
    assert_eq!(of(&nothing, &["host.acme.example", agent[0]], 0), Err(Refusal::Ambiguous));
    assert_eq!(of(&nothing, &[], 0), Err(Refusal::Missing));
    // A key counts before the certificate, unless that is of another tenant.
    assert_eq!(of(&bearer("k1"), &agent, end).as_deref(), Ok("dash"));
    assert_eq!(of(&bearer("k2"), &agent, 0), Err(Refusal::Ambiguous));
    assert_eq!(of(&bearer("k3"), &agent, 0), Err(Refusal::Unknown));
    assert_eq!(of(&bearer("k2"), &["stranger.example"], 0).as_deref(), Ok("bert"));
    // Nor are there two keys, or a token that two issuers take.
    let mut two = bearer("k1");
    two.append(header::AUTHORIZATION, "Bearer k1".parse().unwrap());
    assert_eq!(of(&two, &[], 0), Err(Refusal::Ambiguous));
    let mut both = bearer("k1");
    both.insert(KEY_HEADER, "k1".parse().unwrap());
    assert_eq!(of(&both, &[], 0), Err(Refusal::Ambiguous));
    let token = hs256(&with(json!({ "aud": ["srql", "both"] })));
    assert_eq!(of(&bearer(&token), &[], 0), Err(Refusal::Ambiguous));
    // A token is none where a key belongs.
    let as_key = HeaderMap::from_iter([(KEY_HEADER, hs256(&claims()).parse().unwrap())]);
    assert_eq!(of(&as_key, &[], 0), Err(Refusal::Unknown));
}

#[test]
fn what_is_wrong_with_a_list_is_said() {
    let good = entry("a", "acme", "reader", &hex("k"));
    let agent = "[[certificate]]\nname = \"b\"\ntenant = \"acme\"\nrole = \"reader\"\nsubject_alt_name = \"b.example\"\n";
    let rsa = issuer("id", "RS256", &inline(RSA));
    for (text, part) in [
        (String::new(), "no [[key]]"),
        (good.replace("reader", "root"), "unknown variant"),
        (good.replace("acme", "Acme Corp"), "tenant"),
        (entry("a", "acme", "reader", "abc"), "64 hexadecimal digits"),
        (entry("a", "acme", "reader", &"ä".repeat(32)), "64 hexadecimal digits"),
        (good.clone() + &entry("b", "acme", "reader", &hex("k")), "twice"),
        (good.clone() + &entry("a", "acme", "reader", &hex("l")), "twice"),
        (good.clone() + "key = \"secret\"\n", "unknown field"),
        (agent.replace("b.example", ""), "subject_alt_name is empty"),
        (agent.to_owned() + &agent.replace("\"b\"", "\"c\""), "subject_alt_name is there twice"),
        (good.clone() + &agent.replace("\"b\"", "\"a\""), "certificate \"a\": its name is there twice"),
        (rsa.clone() + &entry("id/anna", "acme", "reader", &hex("k")), "could be a subject"),
        (rsa.replace("acme", "A"), "token \"id\": its tenant is none"),
        (rsa.replace("tenant = \"acme\"\n", ""), "give it tenant, or tenants"),
        (rsa.replace("RS256", "none"), "unknown variant"),
        (rsa.replace("RS256", "ES256"), "no key of ES256"),
        (rsa.replace("RS256", "HS256"), "goes by a secret"),
        (issuer("id", "RS256", &inline(RSA_SHORT)), "no key of RS256"),
        (issuer("id", "RS256", "key = \"MIIB\""), "no public key"),
        (issuer("id", "RS256", ""), "give it key or key_file"),
        (issuer("id", "RS256", "key_file = \"none/such.pem\""), "cannot read none/such.pem"),
        (issuer("id", "RS256", "secret_file = \"x\""), "goes by a public key"),
        (issuer("id", "HS256", "secret_file = \"none/such\""), "cannot read none/such"),
        (issuer("id", "HS256", "secret = \"x\""), "unknown field"),
    ] {
        let error = Callers::read(&text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), "short\n").unwrap();
    fs::write(dir.path().join("c.toml"), issuer("id", "HS256", "secret_file = \"secret\"")).unwrap();
    let error = Callers::open(&dir.path().join("c.toml")).unwrap_err().to_string();
    assert!(error.contains("shorter than 32 bytes") && !error.contains("short\n"), "{error}");
    let error = Callers::open(&dir.path().join("d.toml")).unwrap_err().to_string();
    assert!(error.contains("cannot be read"), "{error}");
}

proptest! {
    /// Whatever bytes come, nobody is taken for a caller but by what is exactly a key or a token.
    #[test]
    fn nothing_but_the_thing_itself_is_taken(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "(Bearer|bearer|Basic)? ?[A-Za-z0-9_=-]{0,40}(\\.[A-Za-z0-9_=-]{0,80}){0,4}".prop_map(String::into_bytes),
        ],
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        is_token in any::<bool>(),
    ) {
        let callers = beside_secret(
            &(entry("dash", "acme", "reader", &hex("the key")) + &issuer("id", "HS256", "secret_file = \"secret\"")),
        );
        let mut near = if is_token { hs256(&claims()).into_bytes() } else { b"the key".to_vec() };
        let at = at.index(near.len());
        let (exact, name) = (near.clone(), if is_token { "id/anna" } else { "dash" });
        near[at] = byte;
        let is_exact = near == exact;
        for (shown, is_exact) in [(bytes, false), ([b"Bearer ".as_slice(), &near].concat(), is_exact)] {
            let Ok(value) = HeaderValue::from_bytes(&shown) else { continue };
            for header in [header::AUTHORIZATION, KEY_HEADER] {
                let is_exact = is_exact && header == header::AUTHORIZATION;
                let found = callers.of(&HeaderMap::from_iter([(header, value.clone())]), None, 0);
                prop_assert_eq!(found.ok().map(|caller| caller.name), is_exact.then(|| name.to_owned()));
            }
        }
    }

    /// A token is taken from its `nbf` to what is told as its end, by the clock that is given.
    #[test]
    fn a_token_holds_until_it_expires(exp in 0_i64..5_000, nbf in prop::option::of(0_i64..5_000), now in 0_i64..5_000) {
        let callers = beside_secret(&issuer("id", "HS256", "secret_file = \"secret\""));
        let expires = exp * SECOND + LEEWAY;
        let now = now * SECOND;
        let expected = if now >= expires {
            Err(Refusal::Expired)
        } else if nbf.is_some_and(|nbf| now + LEEWAY < nbf * SECOND) {
            Err(Refusal::Early)
        } else {
            Ok(Some(expires))
        };
        let begins = nbf.map_or(json!({}), |nbf| json!({ "nbf": nbf }));
        let mut claims = with(begins);
        claims["exp"] = json!(exp);
        let token = hs256(&claims);
        prop_assert_eq!(callers.of(&bearer(&token), None, now).map(|caller| caller.expires), expected);
    }
}
