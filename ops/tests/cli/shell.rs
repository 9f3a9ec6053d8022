//! `query` without a query: the shell on a terminal, and queries from stdin.

use std::{io::Write, os::unix::fs::PermissionsExt, process::Stdio};

use serviceradar_ops::postgres::PrivatePostgres;
use tokio_postgres::{Client, NoTls};

use super::{data, serviceradar, terminal::Terminal, text};

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Asks until it is so.
async fn until(client: &Client, condition: &str) {
    while !client.query_one(condition, &[]).await.unwrap().get::<_, bool>(0) {}
}

/// The first column of a table that ends with how many rows it has.
fn first_column(shown: &str) -> Vec<String> {
    let lines = shown.lines().map(str::trim_end);
    let rows = lines.skip_while(|line| *line != "name").skip(1).take_while(|line| !line.contains(" rows, "));
    rows.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_shell_completes_shows_mistakes_turns_pages_and_outlives_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["demo", "--once", "--devices", "60"]);
    let server = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();
    let open = || Terminal::open(serviceradar(&dir, &["query", "--database", server.url()]));
    let mut shell = open();
    shell.enter("in:devices hostnme:x");
    shell.until("did you mean hostname?\r\n  in:devices hostnme:x\r\n             ^^^^^^^\r\n");

    // What several offers have in common is filled in, and they are shown with their labels; Ctrl-C clears the line.
    shell.press("in:devices risk\t");
    shell.until("risk_score:");
    shell.until("0 to 100");
    shell.type_on("\x03");
    shell.enter("he\t");
    shell.until("Ctrl-R");

    shell.enter("in:devices fields:name lim\t2");
    let first = first_column(&shell.until("; next has more"));
    assert_eq!(first.len(), 2, "{first:?}");
    shell.enter("prev");
    shell.until("error: this was the first page");
    shell.enter("next");
    let second = first_column(&shell.until("; next has more"));
    assert!(second.len() == 2 && second > first, "{first:?} {second:?}");
    shell.enter("prev");
    assert_eq!(first_column(&shell.until("; next has more")), first);
    shell.enter("as csv");
    shell.enter("in:devices stats:'count() as n' include_retired:true");
    shell.until("\nn\r\n60\r\n1 row, ");
    shell.enter("translate");
    shell.until("SELECT");

    let client = connect(server.url()).await;
    let others = "backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let ended = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}");
    client.query(&ended, &[]).await.unwrap();
    until(&client, &format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE {others}")).await;
    shell.enter("in:devices limit:1");
    shell.until("was lost: connecting again");
    shell.until("\n1 row, ");

    // Ctrl-C cancels what is being answered, and the shell goes on.
    client.batch_execute("BEGIN; LOCK TABLE serviceradar.devices IN ACCESS EXCLUSIVE MODE").await.unwrap();
    shell.enter("in:devices hostname:a%");
    until(&client, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted").await;
    shell.running.press_ctrl_c();
    shell.until("cancelled");
    client.batch_execute("ROLLBACK").await.unwrap();
    shell.enter("in:devices limit:1");
    shell.until("\n1 row, ");
    shell.press("\x04");
    assert_eq!(shell.running.0.wait().unwrap().code(), Some(0));

    // What was typed is there the next time, for nobody else to read.
    let history = dir.path().join("query.history");
    assert_eq!(history.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut shell = open();
    shell.press("\x1b[A");
    shell.until("in:devices limit:1");
}

#[tokio::test]
async fn queries_on_stdin_are_answered_up_to_the_first_mistake() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["demo", "--once", "--devices", "20"]);
    let server = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();
    let answer = |queries: &str, arguments: &[&str]| {
        let arguments = [&["query", "--database", server.url()], arguments].concat();
        let mut command = serviceradar(&dir, &arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(queries.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = text(&output.stderr).to_owned();
        (output.status.code().unwrap(), text(&output.stdout).to_owned(), told)
    };
    let count = "in:devices stats:'count() as n' include_retired:true";
    let (code, rows, told) = answer(&format!("# how many\n{count}\n\n  {count}"), &["--as", "ndjson"]);
    assert_eq!((code, &*rows), (0, "{\"n\":20}\n{\"n\":20}\n"), "{told}");
    let (code, rows, told) = answer(&format!("{count}\n\nin:devices hostnme:x\n{count}\n"), &["--as", "csv"]);
    assert_eq!((code, &*rows), (2, "n\n20\n\n"));
    assert!(told.starts_with("error: line 3: devices has no field 'hostnme'"), "{told}");
    let (code, rows, told) = answer("\n# nothing\n", &[]);
    assert_eq!((code, &*rows), (2, ""));
    assert!(told.contains("one per line on stdin"), "{told}");
}
