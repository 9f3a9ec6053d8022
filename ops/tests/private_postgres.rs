//! The private PostgreSQL: what is written stays, there is never more than one, and none is left over.

#![allow(clippy::unwrap_used)]

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serviceradar_ops::postgres::{Binaries, MAJOR_MIN, PostgresError, PrivatePostgres};
use tempfile::TempDir;
use tokio_postgres::NoTls;

/// Set in the process that a test starts to kill it.
const HOST: &str = "TEST_HOST_OF";

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn major_of(url: &str) -> u32 {
    let row = connect(url).await.query_one("SHOW server_version_num", &[]).await.unwrap();
    row.get::<_, &str>(0).parse::<u32>().unwrap() / 10_000
}

fn alive(pid: u32) -> bool {
    // A dead child that nobody waited for still has an entry: its state tells.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_at_the_same_url() {
    let dir = tempfile::tempdir().unwrap();
    let first = PrivatePostgres::start(dir.path()).await.unwrap();
    let (url, pid) = (first.url().to_owned(), first.pid());
    connect(&url).await.batch_execute("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
    assert!(major_of(&url).await >= MAJOR_MIN);
    first.stop().await;
    assert!(!alive(pid));

    let second = PrivatePostgres::start(dir.path()).await.unwrap();
    assert_eq!(second.url(), url);
    let row = connect(&url).await.query_one("SELECT n FROM t", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 7);
}

#[tokio::test]
async fn what_keeps_data_safe_is_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = PrivatePostgres::start(dir.path()).await.unwrap();
    let client = connect(server.url()).await;
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let row = client.query_one(&format!("SHOW {setting}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "on", "{setting}");
    }
}

#[tokio::test]
async fn the_extensions_of_the_views_can_be_created() {
    let dir = tempfile::tempdir().unwrap();
    let server = PrivatePostgres::start(dir.path()).await.unwrap();
    for extension in ["pg_trgm", "btree_gin", "btree_gist"] {
        let create = format!("CREATE EXTENSION {extension}");
        connect(server.url()).await.batch_execute(&create).await.unwrap();
    }
}

#[tokio::test]
async fn a_folder_in_use_is_refused_and_the_server_in_it_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = PrivatePostgres::start(dir.path()).await.unwrap();
    let refused = PrivatePostgres::start(dir.path()).await;
    assert!(matches!(refused, Err(PostgresError::InUse(_))), "{refused:?}");
    connect(server.url()).await.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn nobody_enters_without_the_password_and_nobody_else_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = PrivatePostgres::start(dir.path()).await.unwrap();
    let mode = std::fs::metadata(dir.path().join("password")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
    let password = std::fs::read_to_string(dir.path().join("password")).unwrap();
    let wrong = server.url().replace(&password, "wrong");
    assert_ne!(wrong, server.url());
    assert!(tokio_postgres::connect(&wrong, NoTls).await.is_err());
}

#[tokio::test]
async fn a_start_that_was_cut_off_in_initdb_is_made_good() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data.partial")).unwrap();
    std::fs::write(dir.path().join("data.partial/PG_VERSION"), "15").unwrap();
    PrivatePostgres::start(dir.path()).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_pid_file_with_the_number_of_a_stranger_does_not_keep_it_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    PrivatePostgres::start(dir.path()).await.unwrap().stop().await;
    let pid_file = dir.path().join("data/postmaster.pid");
    std::fs::write(&pid_file, format!("{}\n", std::process::id())).unwrap();
    PrivatePostgres::start(dir.path()).await.unwrap().stop().await;
}

#[tokio::test]
async fn the_fetched_one_runs_as_the_found_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let fetched = Binaries::fetch(None).await.unwrap();
    let server = PrivatePostgres::start_with(dir.path(), &fetched).await.unwrap();
    assert_eq!(major_of(server.url()).await, fetched.major);
    let url = server.url().to_owned();
    server.stop().await;

    // The files belong to its version now, whatever else the machine has.
    let again = PrivatePostgres::start(dir.path()).await.unwrap();
    assert_eq!((again.url(), major_of(again.url()).await), (&*url, fetched.major));
}

#[tokio::test]
async fn the_server_stops_when_the_program_is_killed() {
    let (_dir, pid) = killed_host("the_server_stops_when_the_program_is_killed").await;
    for _ in 0..1_000 {
        if !alive(pid) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!alive(pid), "the server outlived the program that started it");
}

#[tokio::test]
async fn a_start_right_after_a_kill_finds_everything_and_leaves_one_server() {
    let name = "a_start_right_after_a_kill_finds_everything_and_leaves_one_server";
    let (dir, former) = killed_host(name).await;
    let server = PrivatePostgres::start(dir.path()).await.unwrap();
    assert!(!alive(former), "two servers on one folder");
    let row = connect(server.url()).await.query_one("SELECT n FROM t", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 7);
}

#[tokio::test]
async fn a_killed_server_is_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let server = PrivatePostgres::start(dir.path()).await.unwrap();
    connect(server.url()).await.batch_execute("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
    let client = connect(server.url()).await;
    Command::new("kill").args(["-9", &server.pid().to_string()]).status().unwrap();
    drop(server);
    let again = PrivatePostgres::start(dir.path()).await.unwrap();
    drop(client);
    connect(again.url()).await.query_one("SELECT n FROM t", &[]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_at_the_same_url() {
    let dir = tempfile::tempdir().unwrap();
    let server = PrivatePostgres::start(dir.path()).await.unwrap();
    connect(server.url()).await.batch_execute("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
    let first = server.pid();
    Command::new("kill").args(["-9", &first.to_string()]).status().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let client = loop {
        assert!(std::time::Instant::now() < deadline, "it does not come back");
        match tokio_postgres::connect(server.url(), NoTls).await {
            Ok((client, connection)) if server.pid() != first => {
                tokio::spawn(connection);
                break client;
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    client.query_one("SELECT n FROM t", &[]).await.unwrap();
    let second = server.pid();
    server.stop().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!alive(first) && !alive(second));
    assert!(tokio_postgres::connect(&PrivatePostgres::url_of(dir.path()).unwrap(), NoTls).await.is_err());
}

/// Runs this same test in another process, which starts a server, writes, and is killed with -9.
/// Returns the folder and the process id of the server.
async fn killed_host(test: &str) -> (TempDir, u32) {
    if let Ok(dir) = std::env::var(HOST) {
        let server = PrivatePostgres::start(Path::new(&dir)).await.unwrap();
        connect(server.url()).await.batch_execute("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
        std::fs::write(Path::new(&dir).join("hosting"), server.pid().to_string()).unwrap();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact"])
        .env(HOST, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let hosting = dir.path().join("hosting");
    let pid = loop {
        match std::fs::read_to_string(&hosting).map(|text| text.parse()) {
            Ok(Ok(pid)) => break pid,
            _ => assert!(host.try_wait().unwrap().is_none(), "the host ended by itself"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    host.kill().unwrap();
    host.wait().unwrap();
    (dir, pid)
}
