//! `query`: rows in every form, and mistakes.

use serviceradar_ops::postgres::PrivatePostgres;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
};

use super::{Running, data, failure, run, serviceradar, text};

#[tokio::test]
async fn a_query_is_answered_in_every_form_and_its_mistakes_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["demo", "--once", "--devices", "300"]);
    let server = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();
    let query = |arguments: &[&str]| {
        let whole: Vec<&str> =
            ["query", "--database", server.url()].iter().chain(arguments).copied().collect();
        let output = run(&dir, &whole);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    let all = query(&["in:devices", "include_retired:true", "--as", "ndjson"]);
    let devices = all.lines().count();
    // More than a page.
    assert!(devices > 100, "{devices}");
    let csv = query(&["in:devices include_retired:true", "--as", "csv"]);
    assert_eq!(csv.lines().count(), devices + 1);
    assert!(csv.starts_with("uid,device_id,partition,name,"), "{csv:.100}");
    let arrow = run(
        &dir,
        &["query", "--database", server.url(), "in:devices include_retired:true fields:uid", "--as", "arrow"],
    );
    let batches = arrow_ipc::reader::StreamReader::try_new(&*arrow.stdout, None).unwrap();
    assert_eq!(batches.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), devices);
    let whole: serde_json::Value =
        serde_json::from_str(&query(&["in:devices limit:2 count:true", "--as", "json"])).unwrap();
    assert_eq!(whole["results"].as_array().unwrap().len(), 2);
    assert_eq!(whole["meta"]["entity"], "devices");
    let table = query(&["in:devices stats:'count() as n by state' include_retired:true"]);
    let counted =
        table.lines().skip(1).map(|line| line.split_whitespace().last().unwrap().parse::<usize>().unwrap());
    assert_eq!(counted.sum::<usize>(), devices, "{table}");
    assert_eq!(query(&["in:devices hostname:none-such"]), "no rows\n");

    let (code, words) = failure(&dir, &["query", "in:devices hostnme:x sort:bogus"]);
    assert_eq!(code, 2);
    assert!(words.contains("did you mean hostname?") && words.contains("'bogus'"), "{words}");
    let (code, words) = failure(&dir, &["query", "in:devices", "--as", "csv", "--cursor", "x"]);
    assert!(code == 2 && words.contains("goes on from a page"), "{words}");
    let (code, words) = failure(&dir, &["query", "in:interfaces"]);
    assert!(code == 3 && words.contains("no data is collected for interfaces yet"), "{words}");
    let (code, words) = failure(&dir, &["query", "in:devices", "--database", "postgresql://u@127.0.0.1:1/d"]);
    assert!(code == 3 && words.contains("the database does not answer"), "{words}");
}

#[tokio::test]
async fn queries_are_served_to_who_has_a_key() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["demo", "--once", "--devices", "100"]);
    let server = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();
    let made = run(&dir, &["serve", "--new-key", "dash \"board\"", "--role", "operator"]);
    let key = text(&made.stderr).trim().rsplit(' ').next().unwrap().to_owned();
    let made = text(&made.stdout).to_owned();
    assert!(!made.contains(&key), "{made}");
    let keys = dir.path().join("keys.toml");
    fs::write(&keys, &made).unwrap();
    let serve = ["serve", "--database", server.url(), "--keys", keys.to_str().unwrap()];
    let mut command = serviceradar(&dir, &serve);
    // A port that was free a moment ago.
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    command.args(["--address", "127.0.0.1:0", "--listen", &listen]).stdout(Stdio::piped());
    let mut running = Running::spawn(&mut command);
    let mut said = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let base = said.trim().strip_prefix("answering on ").unwrap().to_owned();
    let get = |address: &str, path: &str, key: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nAuthorization: Bearer {key}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let ask = |key: &str| {
        let path = "/api/query?q=in:devices+stats:count()+include_retired:true";
        let answer = get(base.strip_prefix("http://").unwrap(), path, key);
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()
    };
    assert!(ask(&key)["results"][0]["count"].as_u64().unwrap() >= 100, "{}", ask(&key));
    assert_eq!(ask("another")["error"]["code"], "unauthenticated");
    let metrics = get(&listen, "/metrics", "");
    for line in [
        "serviceradar_queries_total{route=\"query\",outcome=\"unauthenticated\"} 1",
        "serviceradar_query_seconds_bucket{route=\"query\",le=\"10\"}",
        "serviceradar_queries_running{route=\"query\"} 0",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    // It ends in order.
    assert_eq!(running.interrupt(), 0);

    let (code, words) = failure(&dir, &["serve", "--database", server.url()]);
    assert!(code == 2 && words.contains("srql.keys is not set"), "{words}");
    let key_file = format!("srql.tls.key_file={}", keys.display());
    let tls = ["--set", "srql.tls.certificate=none.pem", "--set", &key_file];
    let (code, words) = failure(&dir, &[serve.as_slice(), &tls].concat());
    assert!(code == 1 && words.contains("srql.tls: no certificates in none.pem: No such file"), "{words}");
    fs::write(&keys, "[[key]]\nname = \"a\"\n").unwrap();
    let (code, words) = failure(&dir, &serve);
    assert!(code == 1 && words.contains("keys.toml") && words.contains("tenant"), "{words}");
}
