//! A deployment as operators have it: Kafka, a TimescaleDB, a pipeline, and what they type.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../process/mod.rs"]
mod process;

mod chaos;
mod generations;
mod republish;
mod runbooks;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use process::{Running, apart, text};
use serde_json::Value;
use serviceradar_ingest::publish::Observations;
use serviceradar_log::{KafkaConfig, KafkaLog, LogStore};
use serviceradar_schemas::{
    Action, Claim, Framing, Observation, Source,
    time::{Clock, SystemClock},
};
use tempfile::TempDir;
use tokio::sync::RwLock;
use tokio_postgres::{Client, NoTls};

/// Whom the docs are written for.
const TENANT: &str = "acme";
/// Records that there are at the begin; two of them are one device.
const RECORDS: u32 = 60;

/// The servers that all tests share: who kills them, has them alone.
static SERVERS: RwLock<()> = RwLock::const_new(());
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A deployment of its own: a tenant on the Kafka of the development services, a database of its TimescaleDB.
struct Deployment {
    dir: TempDir,
    tenant: String,
    kafka: String,
    database: String,
    postgres: String,
    /// The names of all databases that it made.
    databases: Vec<String>,
    log: Arc<dyn LogStore>,
    pipeline: Option<Running>,
    /// Where an Armis answers, if one does.
    armis: Option<String>,
}

fn services(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/services");
    let up = Command::new(script).args(arguments).output().unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    text(&up.stdout).to_owned()
}

/// A record of a mapper; two and two are one device by their MAC.
fn observation(record: u32) -> Observation {
    let mac = format!("001b2100{:04x}", record / 2);
    Observation {
        id: format!("{record}"),
        event_time: SystemClock.now(),
        partition: "default".to_owned(),
        source: Source { kind: "mapper".to_owned(), instance: "m".to_owned() },
        native_key: record.to_string(),
        action: Action::Assert,
        claims: vec![Claim { namespace: "mac".into(), value: mac.into() }],
        ..Observation::default()
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Deployment {
    /// With a pipeline that has taken in what there is.
    async fn new() -> Self {
        let said = services(&["up", "kafka", "postgres"]);
        let address = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap().to_owned()
        };
        let (kafka, postgres) = (address("kafka"), address("postgres"));
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_serviceradar"), bin.join("serviceradar")).unwrap();
        let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/data/jars");
        let kafka_of = std::fs::read_dir(&jars).unwrap().find_map(|of| {
            let path = of.unwrap().path();
            path.file_name().unwrap().to_str().unwrap().starts_with("kafka-").then_some(path)
        });
        // As Kafka's own distribution has it.
        let tool = format!(
            "#!/bin/sh\nexec java -cp '{}/*' org.apache.kafka.tools.TopicCommand \"$@\"\n",
            kafka_of.unwrap().display()
        );
        std::fs::write(bin.join("kafka-topics.sh"), tool).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(bin.join("kafka-topics.sh"), mode).unwrap();
        let log = KafkaLog::new(&KafkaConfig { servers: kafka.clone(), ..KafkaConfig::default() }).unwrap();
        let tenant = format!("runbook-{}", SystemClock.now());
        let mut deployment = Self {
            dir,
            tenant,
            kafka,
            database: String::new(),
            postgres,
            databases: Vec::new(),
            log: Arc::new(log),
            pipeline: None,
            armis: None,
        };
        deployment.use_new_database().await;
        deployment.sh("serviceradar topics create");
        deployment.publish(0..RECORDS).await;
        deployment.start().await;
        deployment
    }

    async fn use_new_database(&mut self) {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("runbook_{}_{number}", std::process::id());
        connect(&self.postgres).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let (server, _) = self.postgres.rsplit_once('/').unwrap();
        self.database = format!("{server}/{name}");
        self.databases.push(name);
        self.sh("serviceradar migrate");
    }

    fn command(&self, program: &str) -> Command {
        let mut command = apart(&self.dir, program);
        let path = format!("{}:{}", self.dir.path().join("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).current_dir(self.dir.path());
        let data = self.dir.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        command.env("SERVICERADAR_DIR", data).env("SERVICERADAR_TENANT", &self.tenant);
        command
            .env("SERVICERADAR_KAFKA_SERVERS", &self.kafka)
            .env("SERVICERADAR_DATABASE_URL", &self.database);
        command.env("SERVICERADAR_LISTEN", "127.0.0.1:0");
        if let Some(armis) = &self.armis {
            command.env("SERVICERADAR_ARMIS_URL", armis);
            command.env("SERVICERADAR_ARMIS_SECRET", "faker").env("SERVICERADAR_ARMIS_INSTANCE", "faker");
        }
        command
    }

    /// A network of its own, which answers as Armis until it is dropped.
    fn serve_armis(&mut self) -> Running {
        let mut command = self.command("serviceradar");
        let set = "faker.listen=127.0.0.1:0";
        command.args(["faker", "--devices", "60", "--set", set, "--output", "json"]);
        let mut faker = Running::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut announced = String::new();
        BufReader::new(faker.0.stdout.take().unwrap()).read_line(&mut announced).unwrap();
        let announced: Value = serde_json::from_str(&announced).unwrap();
        self.armis = Some(announced["url"].as_str().unwrap().to_owned());
        faker
    }

    /// Crawls such a network once; returns it, and the devices that are shown then.
    async fn crawled(&mut self) -> (Running, Vec<(String, i32)>) {
        let faker = self.serve_armis();
        self.sh("serviceradar sync armis --once");
        self.caught_up().await;
        let devices = self.devices().await;
        assert!(devices.len() > RECORDS as usize / 2, "the crawl brought devices");
        (faker, devices)
    }

    fn try_sh(&self, script: &str) -> Output {
        let script = script.replace(TENANT, &self.tenant);
        self.command("sh").args(["-ec", &script]).output().unwrap()
    }

    /// Runs a script that must end well; returns what it prints.
    fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{script}\n{out}{err}");
        out.to_owned()
    }

    fn publisher(&self) -> Observations {
        Observations::new(self.log.clone(), format!("{}.observations", self.tenant), Framing::default())
    }

    async fn publish(&self, records: std::ops::Range<u32>) {
        self.publisher().publish(records.map(observation)).await.unwrap();
    }

    /// Starts the pipeline, and waits until it has taken in what there is.
    async fn start(&mut self) {
        let mut command = self.command("serviceradar");
        let running = Running::spawn(command.arg("run").stderr(Stdio::null()));
        self.pipeline = Some(running);
        self.caught_up().await;
    }

    async fn caught_up(&mut self) {
        loop {
            let ended = self.pipeline.as_mut().and_then(|running| running.0.try_wait().unwrap());
            assert!(ended.is_none(), "the pipeline has ended");
            let status = self.status();
            if status["phase"] == "running" && status["lag_events"] == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn status(&self) -> Value {
        let output = self.try_sh("serviceradar status --output json");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn stop(&mut self) {
        if let Some(mut pipeline) = self.pipeline.take() {
            assert_eq!(pipeline.interrupt(), 0);
        }
    }

    /// The devices that are shown, by their uids.
    async fn devices(&self) -> Vec<(String, i32)> {
        let client = connect(&self.database).await;
        client.batch_execute(&format!("SET serviceradar.tenant = '{}'", self.tenant)).await.unwrap();
        let select = "SELECT uid::text, records FROM serviceradar.devices ORDER BY 1";
        client.query(select, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// How many rows each table has of the tenant, where it has some; but for what operators did.
    async fn rows_of_tenant(&self) -> Vec<(String, i64)> {
        let client = connect(&self.database).await;
        let tables = "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.columns
            JOIN information_schema.tables USING (table_schema, table_name)
            WHERE column_name = 'tenant' AND table_type = 'BASE TABLE' AND table_name <> 'pipeline_operations'
            ORDER BY 1";
        let mut found = Vec::new();
        for table in client.query(tables, &[]).await.unwrap() {
            let table: String = table.get(0);
            let count = format!("SELECT count(*) FROM {table} WHERE tenant = $1");
            let rows: i64 = client.query_one(&count, &[&self.tenant]).await.unwrap().get(0);
            if rows > 0 {
                found.push((table, rows));
            }
        }
        found
    }

    async fn active(&self) -> i32 {
        let select = "SELECT id FROM serviceradar_base.pipeline_generations WHERE state = 'active'";
        connect(&self.database).await.query_one(select, &[]).await.unwrap().get(0)
    }

    /// All is as it should be.
    async fn end(mut self) {
        self.caught_up().await;
        self.sh("serviceradar replay verify");
        self.stop();
    }

    /// Where the log no longer has all that the views were made from.
    async fn end_without_verifying(mut self) {
        self.caught_up().await;
        self.stop();
    }
}

impl Drop for Deployment {
    /// Databases and topics go, however the test ends.
    fn drop(&mut self) {
        // First: it would write on.
        self.pipeline = None;
        let (postgres, databases) = (self.postgres.clone(), std::mem::take(&mut self.databases));
        let (log, tenant) = (self.log.clone(), self.tenant.clone());
        // On a thread and runtime of its own: that of the test does not go on meanwhile.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = connect(&postgres).await;
                for name in databases {
                    client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
                }
                for topic in log.topics(Some(&tenant)).await.unwrap() {
                    log.delete_topic(&topic.name).await.unwrap();
                }
            });
        });
        // A test that failed says why itself.
        let dropped = dropping.join().is_ok();
        assert!(dropped || std::thread::panicking(), "databases or topics are left");
    }
}
