//! A pipeline from end to end for tests: a faker and a crawler, a log, a driver; and how views are compared.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use serviceradar_ingest::{
    faker::{ArmedFault, Faker, FakerConfig, INSTANCE, SECRET},
    publish::Observations,
    sync::armis::{ArmisClient, ArmisConfig, CrawlError, crawl},
};
use serviceradar_log::{
    Appended, Batch, Brokers, Event, LogError, LogStore, Offsets, Publisher, Read, ReadLimit, Setting,
    TopicDescription,
};
use serviceradar_materializers::PostgresViews;
use serviceradar_replay::{Driver, DriverConfig, DriverHandle, goal::Goal};
use serviceradar_schemas::{
    Action, Claim, Framing, Framings, Observation, Source,
    codec::{NoRegistry, WriterSchemas},
    time::SystemClock,
    topics::Stream,
};
use serviceradar_streams::rules::Rules;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// Whose pipeline it is.
pub const TENANT: &str = "stand";

/// Most records of a page.
const PAGE_SIZE_MAX: usize = 5_000;

/// A network behind an Armis, and how it is looked at.
pub struct Network {
    /// What is behind it.
    pub faker: Arc<Faker>,
    client: ArmisClient,
    _dir: Option<tempfile::TempDir>,
}

impl Network {
    /// One of so many devices, served.
    pub async fn new(devices: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = Self::at(dir.path(), devices).await;
        Self { _dir: Some(dir), ..network }
    }

    /// One that goes on from what is in a folder.
    pub async fn at(dir: &Path, devices: usize) -> Self {
        let clock = Arc::new(SystemClock);
        let config = FakerConfig { devices, shuffle_every: None, ..FakerConfig::new(dir.to_owned()) };
        let faker = Faker::open(config, clock.clone()).unwrap();
        let serving = faker.serve(CancellationToken::new()).await.unwrap();
        let mut config = ArmisConfig::new(&serving.url(), SECRET, INSTANCE);
        config.page_size = devices.div_ceil(4).min(PAGE_SIZE_MAX);
        config.retry_base = Duration::from_millis(1);
        Self { faker, client: ArmisClient::new(config, clock).unwrap(), _dir: None }
    }

    /// A crawl of Armis into the log.
    pub async fn crawl(&self, log: &Arc<dyn LogStore>) -> Result<u64, CrawlError> {
        let crawled = crawl(&self.client, &observations(log), &SystemClock, |_| {}).await?;
        Ok(crawled.records.try_into().unwrap())
    }

    /// A crawl that meets a fault which no retry overcomes.
    pub async fn crawl_in_vain(&self, log: &Arc<dyn LogStore>, fault: ArmedFault) {
        self.faker.arm(fault).unwrap();
        self.crawl(log).await.unwrap_err();
    }

    /// A crawl, and what mapper and sweep see.
    pub async fn look(&self, log: &Arc<dyn LogStore>) {
        self.try_to_look(log).await.unwrap();
    }

    /// The same, of a log that may not answer.
    pub async fn try_to_look(&self, log: &Arc<dyn LogStore>) -> anyhow::Result<()> {
        self.crawl(log).await?;
        observations(log).publish(self.faker.observations_of_others()).await?;
        Ok(())
    }
}

/// What an Armis sees of a device with a serial number.
pub fn observation(native_key: &str, event_time: i64) -> Observation {
    Observation {
        id: native_key.to_owned(),
        event_time,
        partition: "default".to_owned(),
        source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
        native_key: native_key.to_owned(),
        action: Action::Assert,
        claims: vec![Claim { namespace: "serial".into(), value: format!("SN-{native_key}").into() }],
        ..Observation::default()
    }
}

/// Who appends observations.
pub fn observations(log: &Arc<dyn LogStore>) -> Observations {
    Observations::new(log.clone(), Stream::Observations.topic(TENANT), Framing::default())
}

/// Who appends decisions.
pub fn decisions(log: &Arc<dyn LogStore>) -> Publisher {
    Publisher::new(log.clone(), Stream::Decisions.topic(TENANT))
}

/// Makes the tenant's topics.
pub async fn make_topics(log: &Arc<dyn LogStore>) {
    serviceradar_replay::topics::ensure(&**log, TENANT).await.unwrap();
}

/// A driver of the tenant. It is always the same writer: a second one would wait for the beat of a killed one.
pub async fn drive(log: Arc<dyn LogStore>, url: &str) -> DriverHandle {
    drive_tenant(TENANT, log, url).await
}

/// A driver of another tenant, for a log that tests share.
pub async fn drive_tenant(tenant: &str, log: Arc<dyn LogStore>, url: &str) -> DriverHandle {
    drive_with(tenant, log, Arc::new(NoRegistry), Framings::default(), url).await
}

/// A driver of a tenant, with a registry.
pub async fn drive_with(
    tenant: &str,
    log: Arc<dyn LogStore>,
    writers: Arc<dyn WriterSchemas>,
    framings: Framings,
    url: &str,
) -> DriverHandle {
    let config = config(tenant, "stand", log, url).await;
    Driver::start(DriverConfig { writers, framings, ..config })
}

/// What a driver of that name needs.
pub async fn config(tenant: &str, writer: &str, log: Arc<dyn LogStore>, url: &str) -> DriverConfig {
    DriverConfig {
        tenant: tenant.to_owned(),
        writer: writer.to_owned(),
        workers: 1,
        rules: Some(Rules::default()),
        log,
        writers: Arc::new(NoRegistry),
        framings: Framings::default(),
        views: Arc::new(PostgresViews::connect(url).await.unwrap()),
        clock: Arc::new(SystemClock),
        ticks: false,
        journals_kept: None,
        goal: Goal::none(),
    }
}

/// Waits until everything is published that waits for it.
pub async fn published(client: &Client) {
    let waiting = "SELECT count(*) FROM serviceradar_base.pipeline_outbox";
    while client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All events of a log partition.
pub async fn read_all(log: &Arc<dyn LogStore>, topic: &str, log_partition: u32) -> Vec<Event> {
    let limit = ReadLimit { events: 10_000, bytes: 16 << 20, wait: Duration::ZERO };
    let (mut events, mut offset) = (Vec::new(), 0);
    loop {
        let read = log.read(topic, log_partition, offset, limit).await.unwrap();
        if read.events.is_empty() {
            return events;
        }
        offset = read.next_offset;
        events.extend(read.events);
    }
}

type BeforeAppend = dyn Fn(&str) -> Result<(), LogError> + Send + Sync;

/// A log with something between it and its caller.
pub struct Between {
    log: Arc<dyn LogStore>,
    /// Most events of a read, and the pause before it.
    pieces: Option<(usize, Duration)>,
    /// Done before an append to a topic, or a deletion in it, which fails where this does.
    before_append: Box<BeforeAppend>,
}

impl Between {
    /// Read in small pieces with a pause before each: so that taking it in takes many epochs.
    pub fn slow(log: Arc<dyn LogStore>, events: usize, pause: Duration) -> Arc<dyn LogStore> {
        Arc::new(Self { log, pieces: Some((events, pause)), before_append: Box::new(|_| Ok(())) })
    }

    /// Something is done before each append and each deletion, which fails where that does; it is given the topic.
    pub fn before_append(
        log: Arc<dyn LogStore>,
        act: impl Fn(&str) -> Result<(), LogError> + Send + Sync + 'static,
    ) -> Arc<dyn LogStore> {
        Arc::new(Self { log, pieces: None, before_append: Box::new(act) })
    }
}

#[async_trait]
impl LogStore for Between {
    async fn create_topic(&self, topic: &str, log_partitions: u32) -> Result<(), LogError> {
        self.log.create_topic(topic, log_partitions).await
    }
    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, LogError> {
        self.log.describe_topic(topic).await
    }
    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        self.log.delete_topic(topic).await
    }
    async fn topics(&self, tenant: Option<&str>) -> Result<Vec<TopicDescription>, LogError> {
        self.log.topics(tenant).await
    }
    async fn append(&self, topic: &str, log_partition: u32, batch: Batch) -> Result<Appended, LogError> {
        (self.before_append)(topic)?;
        self.log.append(topic, log_partition, batch).await
    }
    async fn read(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
        mut limit: ReadLimit,
    ) -> Result<Read, LogError> {
        if let Some((events, pause)) = self.pieces {
            tokio::time::sleep(pause).await;
            limit.events = limit.events.min(events);
        }
        self.log.read(topic, log_partition, offset, limit).await
    }
    async fn offsets(&self, topic: &str, log_partition: u32) -> Result<Offsets, LogError> {
        self.log.offsets(topic, log_partition).await
    }
    async fn last_event(&self, topic: &str, log_partition: u32) -> Result<Option<Event>, LogError> {
        self.log.last_event(topic, log_partition).await
    }
    async fn delete_before(&self, topic: &str, log_partition: u32, offset: u64) -> Result<(), LogError> {
        (self.before_append)(topic)?;
        self.log.delete_before(topic, log_partition, offset).await
    }
    async fn claim(&self, topic: &str) -> Result<(), LogError> {
        self.log.claim(topic).await
    }
    async fn settings(&self, topic: &str) -> Result<Vec<Setting>, LogError> {
        self.log.settings(topic).await
    }
    async fn brokers(&self) -> Result<Option<Brokers>, LogError> {
        self.log.brokers().await
    }
}

/// Two states of the views of one database: what a run left is kept aside, and a later one compared with it.
pub struct Views {
    client: Client,
    /// Name and compared columns of each table, without bookkeeping.
    tables: Vec<(String, String)>,
}

impl Views {
    /// All base tables of the generation, and the watermarks.
    pub async fn new(client: Client) -> Self {
        let select =
            "SELECT a.attrelid::regclass::text, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            WHERE (c.relnamespace = 'views_1'::regnamespace
                   OR c.oid = 'serviceradar_base.pipeline_watermarks'::regclass)
              AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
              AND a.attname NOT IN ('epoch', 'modified_at')
            GROUP BY 1 ORDER BY 1";
        let rows = client.query(select, &[]).await.unwrap();
        let tables: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert!(tables.len() >= 10, "{tables:?}");
        client.batch_execute("CREATE SCHEMA kept").await.unwrap();
        Self { client, tables }
    }

    fn kept(table: &str) -> String {
        format!("kept.{}", table.rsplit('.').next().unwrap())
    }

    /// Keeps the views as they are, and begins anew.
    pub async fn keep_and_clear(&self) {
        for (table, columns) in &self.tables {
            let kept = Self::kept(table);
            self.client
                .batch_execute(&format!("CREATE TABLE {kept} AS SELECT {columns} FROM {table}"))
                .await
                .unwrap();
        }
        let kept = self.count("SELECT count(*) FROM kept.record_summaries").await;
        assert!(kept > 0, "nothing to compare with");
        self.clear().await;
    }

    /// All rows of all tables, without bookkeeping, each table's in order.
    pub async fn rows(&self) -> BTreeMap<String, Vec<String>> {
        let mut rows = BTreeMap::new();
        for (table, columns) in &self.tables {
            let select = format!("SELECT r::text FROM (SELECT {columns} FROM {table}) r ORDER BY 1");
            let of_table = self.client.query(&select, &[]).await.unwrap();
            rows.insert(table.clone(), of_table.iter().map(|row| row.get(0)).collect());
        }
        rows
    }

    /// As if nothing had ever been taken in.
    pub async fn clear(&self) {
        let select = "SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c WHERE c.relkind = 'r'
            AND (c.relnamespace = 'views_1'::regnamespace OR c.relnamespace = 'serviceradar_base'::regnamespace
                 AND c.relname NOT IN ('migrations', 'pipeline_generations', 'analysts'))";
        let tables: String = self.client.query_one(select, &[]).await.unwrap().get(0);
        self.client.batch_execute(&format!("TRUNCATE {tables}")).await.unwrap();
    }

    /// The views are, row by row, what was kept.
    pub async fn assert_as_kept(&self, what: &str) {
        for (table, columns) in &self.tables {
            let kept = Self::kept(table);
            let (now, before) = (format!("SELECT {columns} FROM {table}"), format!("TABLE {kept}"));
            for (one, other, which) in [(&now, &before, "new"), (&before, &now, "missing")] {
                let select =
                    format!("SELECT count(*), min(d::text) FROM (({one}) EXCEPT ALL ({other})) AS d");
                let row = self.client.query_one(&select, &[]).await.unwrap();
                let (rows, first): (i64, Option<String>) = (row.get(0), row.get(1));
                assert_eq!(rows, 0, "{what}: {which} in {table}, such as {first:?}");
            }
        }
    }

    /// Epochs are there one after the other, and count each event of the tenant's log once.
    pub async fn assert_each_event_once(&self, log: &Arc<dyn LogStore>, tenant: &str) {
        let holes = "SELECT count(*) FROM (SELECT epoch - lag(epoch) OVER (ORDER BY epoch) AS step
            FROM serviceradar_base.pipeline_epochs) AS e WHERE step <> 1";
        assert_eq!(self.count(holes).await, 0);
        let mut ends = 0;
        for partition in serviceradar_replay::topics::read_by(&**log, tenant).await.unwrap() {
            ends += log.offsets(&partition.topic, partition.log_partition).await.unwrap().end as i64;
        }
        let frontiers = "SELECT sum(next_offset)::bigint FROM serviceradar_base.pipeline_frontiers";
        assert_eq!(self.count(frontiers).await, ends);
        let events = "SELECT sum(records)::bigint FROM serviceradar_base.pipeline_epochs";
        assert_eq!(self.count(events).await, ends);
    }

    /// What a disturbed run left is what one that nothing disturbs makes of the same log.
    pub async fn assert_as_undisturbed(&self, log: Arc<dyn LogStore>, tenant: &str, url: &str, what: &str) {
        self.assert_each_event_once(&log, tenant).await;
        let (kept, of_rows) = PostgresViews::connect(url).await.unwrap().sums(tenant).await.unwrap();
        assert_eq!(kept, of_rows, "{what}: the sums of epochs, and of the rows");
        self.keep_and_clear().await;
        let driver = drive_tenant(tenant, log, url).await;
        driver.caught_up().await.unwrap();
        driver.stop().await.unwrap();
        self.assert_as_kept(what).await;
    }

    /// The number that a query gives.
    pub async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }
}
