//! The OpenAPI document says what the service does, and nothing else.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use serviceradar_srql::service::paths;

use super::service::Stand;

/// What is wrong with a value by a schema: of JSON Schema what the document uses, and no more.
fn wrong(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    let schema = match schema["$ref"].as_str() {
        Some(pointer) => document.pointer(pointer.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    };
    let is = |name: &str| match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    for (keyword, said) in schema.as_object().unwrap() {
        let holds = match keyword.as_str() {
            "type" => match said {
                Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
                name => is(name.as_str().unwrap()),
            },
            "enum" => said.as_array().unwrap().contains(value),
            "required" => {
                let has = |name: &Value| value.get(name.as_str().unwrap()).is_some();
                !value.is_object() || said.as_array().unwrap().iter().all(has)
            }
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= said.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= said.as_u64().unwrap()),
            "minimum" => value.as_f64().is_none_or(|number| number >= said.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= said.as_f64().unwrap()),
            "additionalProperties" => {
                assert_eq!(*said, json!(false));
                let is_known = |name: &String| schema["properties"].get(name).is_some();
                value.as_object().is_none_or(|object| object.keys().all(is_known))
            }
            "properties" => {
                let each =
                    said.as_object().unwrap().iter().filter_map(|(name, of)| Some((of, value.get(name)?)));
                let found = each.filter_map(|(of, value)| wrong(document, of, value)).next();
                if found.is_some() {
                    return found;
                }
                true
            }
            "items" => {
                let found =
                    value.as_array().into_iter().flatten().find_map(|item| wrong(document, said, item));
                if found.is_some() {
                    return found;
                }
                true
            }
            "description" | "default" => true,
            other => panic!("{other} is not known here"),
        };
        if !holds {
            return Some(format!("{keyword} {said}: {value:.300}"));
        }
    }
    None
}

async fn document(stand: &Stand) -> Value {
    let (status, text) = stand.get("/api/openapi.json", "anna").await;
    assert_eq!(status, StatusCode::OK);
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_in_it_and_nothing_else() {
    let stand = Stand::new(|_| {}).await;
    let document = document(&stand).await;
    assert_eq!(document["openapi"], "3.1.0");
    let known: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(|path| &**path).collect();
    assert_eq!(known, paths().collect());
    for path in known {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let operation = &document["paths"][path][method.as_str().to_lowercase()];
            let asked = stand.request(method.clone(), path, "eve").send().await.unwrap();
            let is_there = asked.status() != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(is_there, operation.is_object(), "{method} {path}");
            // What takes no key says so.
            let is_open = operation["security"] == json!([]);
            assert_eq!(is_there && asked.status() != StatusCode::UNAUTHORIZED, is_open, "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_as_it_says() {
    let stand = Stand::new(|_| {}).await;
    let document = document(&stand).await;
    let resolve = |of: &Value| match of["$ref"].as_str() {
        Some(pointer) => document.pointer(pointer.strip_prefix('#').unwrap()).unwrap().clone(),
        None => of.clone(),
    };
    let query = |text: &str| json!({ "query": text });
    let past = json!({ "query": "in:devices", "cursor": "x", "direction": "prev", "limit": 3, "mode": "", "format": "json" });
    for (path, caller, body, status) in [
        ("/api/query", "anna", query("in:devices limit:3 count:true time:last_7d"), 200),
        ("/api/query", "anna", query("in:devices stats:'count() by type'"), 200),
        ("/api/query", "anna", query("in:devices bucket:1d"), 200),
        ("/api/query", "anna", query("in:devices hostnme:x sort:bogus"), 400),
        ("/api/query", "anna", past, 400),
        ("/api/query", "eve", query("in:devices"), 401),
        ("/api/query", "anna", query("in:interfaces"), 501),
        ("/api/srql/explain", "oscar", query("in:devices ip:10.0.0.1"), 200),
        ("/api/srql/explain", "anna", query("in:devices"), 403),
        ("/translate", "anna", query("in:devices ip:10.0.0.1"), 200),
        ("/translate", "anna", query("in:interfaces"), 501),
        ("/api/srql/complete", "anna", json!({ "query": "in:devices is_av", "at": 14 }), 200),
        ("/api/srql/complete", "anna", json!({ "query": 7 }), 400),
        ("/api/srql/schema", "anna", Value::Null, 200),
        ("/readyz", "anna", Value::Null, 200),
    ] {
        let operations = &document["paths"][path];
        let (operation, got) = if body.is_null() {
            let (got, text) = stand.get(path, caller).await;
            (&operations["get"], (got, serde_json::from_str(&text).unwrap()))
        } else {
            let asked = &operations["post"]["requestBody"]["content"]["application/json"]["schema"];
            if body["query"].is_string() {
                assert_eq!(wrong(&document, asked, &body), None, "{path}: {body}");
            }
            (&operations["post"], stand.post(path, caller, body.clone()).await)
        };
        assert_eq!(got.0, status, "{path}: {body}: {}", got.1);
        let response = resolve(&operation["responses"][status.to_string()]);
        let schema = &response["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path} has no {status}");
        assert_eq!(wrong(&document, schema, &got.1), None, "{path}: {body}");
    }
}
