//! `query`: rows in every form, and mistakes.

use serviceradar_ops::postgres::PrivatePostgres;

use super::{data, failure, run, text};

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
    let (code, words) = failure(&dir, &["query", "in:interfaces"]);
    assert!(code == 3 && words.contains("no data is collected for interfaces yet"), "{words}");
    let (code, words) = failure(&dir, &["query", "in:devices", "--database", "postgresql://u@127.0.0.1:1/d"]);
    assert!(code == 3 && words.contains("the database does not answer"), "{words}");
}
