//! A crawl: every page of Armis, published as one snapshot.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serviceradar_log::{LogError, NewEvent};
use serviceradar_schemas::{
    Action, Framing, Observation, Snapshot,
    time::{self, Clock},
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    client::{ArmisClient, FetchError},
    map::{Mapped, Mapping, map},
    page::{Page, PageRequest},
};
use crate::publish::{EventTooLarge, Observations, event};

/// How many refused devices an error names.
const REFUSED_SHOWN: usize = 5;

/// How far a crawl has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Distinct records published.
    pub records: usize,
    /// Devices that Armis has.
    pub total: usize,
    /// Pages published.
    pub pages: usize,
}

/// A crawl that was complete.
#[derive(Clone, Debug, PartialEq)]
pub struct CrawlReport {
    /// When it began, microseconds since the Unix epoch: it names the snapshot.
    pub begin: i64,
    /// Records published.
    pub records: usize,
    /// Devices left out because all their addresses are excluded.
    pub excluded: usize,
    /// Pages fetched.
    pub pages: usize,
    /// How long it took, seconds.
    pub seconds: f64,
}

/// Why a crawl is not complete. No SNAPSHOT_END was published, so it ends no record;
/// what had come by then is in the log and holds.
#[derive(Debug, thiserror::Error)]
pub enum CrawlError {
    /// A page could not be fetched.
    #[error(
        "the crawl stopped after {} of {} devices in {} pages, and ends no record: {error}",
        .progress.records, .progress.total, .progress.pages
    )]
    Fetch {
        /// How far it came.
        progress: Progress,
        /// Why it went no further.
        error: FetchError,
    },
    /// The log refused a page.
    #[error(
        "the crawl stopped after {} of {} devices in {} pages, and ends no record: {error}",
        .progress.records, .progress.total, .progress.pages
    )]
    Publish {
        /// How far it came.
        progress: Progress,
        /// Why it went no further.
        error: LogError,
    },
    /// An event of the snapshot itself is over the limit of the log.
    #[error(transparent)]
    TooLarge(#[from] EventTooLarge),
    /// Every page came, and they do not add up.
    #[error(
        "the crawl fetched all {} pages, and ends no record, for they do not add up: {why}; if the \
         inventory changed meanwhile, the next crawl will do", .progress.pages
    )]
    Incomplete {
        /// How far it came.
        progress: Progress,
        /// What does not add up.
        why: String,
    },
    /// The program ends.
    #[error("the crawl was cut short by the end of the program, and ends no record")]
    Stopped,
}

/// Crawls everything once into the tenant's `observations`. `progress` is called after each page. At
/// most `concurrency` pages are in memory beside the one being published.
pub async fn crawl(
    client: &ArmisClient,
    observations: &Observations,
    clock: &dyn Clock,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<CrawlReport, CrawlError> {
    let started = Instant::now();
    let mut crawl = Crawl::new(client, observations, clock.now());
    let page_size = client.config().page_size;
    let first = PageRequest { from: 0, length: page_size, expected: None };
    let fetched = client.page(first).await.map_err(|error| crawl.fetch_failed(error))?;
    let total = fetched.total;
    // A server may give less to a page than was asked for.
    let step = if fetched.count < total { fetched.count.max(1) } else { page_size };
    crawl.progress.total = total;
    crawl.mark(Action::SnapshotBegin, crawl.begin(), None).await?;
    crawl.publish(read(fetched, &crawl.mapping, observations.framing)).await?;
    progress(crawl.progress);

    let mut requests = (step..total).step_by(step).map(|from| PageRequest {
        from,
        length: step,
        expected: Some(step.min(total - from)),
    });
    let mut coming = JoinSet::new();
    loop {
        while coming.len() < client.config().concurrency
            && let Some(request) = requests.next()
        {
            let (client, mapping) = (client.clone(), crawl.mapping.clone());
            let framing = observations.framing;
            coming.spawn(async move { Ok(read(client.page(request).await?, &mapping, framing)) });
        }
        let Some(came) = coming.join_next().await else {
            break;
        };
        let page = came.map_err(|_| CrawlError::Stopped)?.map_err(|error| crawl.fetch_failed(error))?;
        crawl.publish(page).await?;
        progress(crawl.progress);
    }
    crawl.check()?;
    let records = crawl.progress.records;
    crawl.mark(Action::SnapshotEnd, clock.now(), Some(records)).await?;
    Ok(CrawlReport {
        begin: crawl.begin(),
        records,
        excluded: crawl.excluded,
        pages: crawl.progress.pages,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Crawls at once and then at each interval, counted from the begin of the crawl before, until the
/// shutdown, which also cuts a crawl short. `crawled` hears how each went.
pub async fn run_every(
    client: &ArmisClient,
    observations: &Observations,
    clock: &dyn Clock,
    interval: Duration,
    shutdown: CancellationToken,
    mut crawled: impl FnMut(Result<CrawlReport, CrawlError>) + Send,
) {
    loop {
        let next = Instant::now() + interval;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return crawled(Err(CrawlError::Stopped)),
            result = crawl(client, observations, clock, |_| {}) => crawled(result),
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// A page as read: its events, and what there is to count.
struct ReadPage {
    total: usize,
    /// Per device its id and, unless it is excluded, its event.
    devices: Vec<(String, Option<NewEvent>)>,
    /// Why others are no records.
    refused: Vec<String>,
}

fn read(page: Page, mapping: &Mapping, framing: Framing) -> ReadPage {
    let mut read = ReadPage { total: page.total, devices: Vec::new(), refused: Vec::new() };
    for device in page.results {
        match map(device, mapping) {
            Ok(Mapped::Excluded { native_key }) => read.devices.push((native_key, None)),
            Ok(Mapped::Record(observation)) => match event(&observation, framing) {
                Ok(event) => read.devices.push((observation.native_key, Some(event))),
                Err(error) => read.refused.push(error.to_string()),
            },
            Err(error) => read.refused.push(error.to_string()),
        }
    }
    read
}

/// A crawl under way.
struct Crawl<'a> {
    observations: &'a Observations,
    mapping: Arc<Mapping>,
    progress: Progress,
    seen: HashSet<String>,
    excluded: usize,
    /// The first id that came twice.
    repeated: Option<String>,
    /// Another total than the first page's.
    other_total: Option<usize>,
    refused: usize,
    refused_shown: Vec<String>,
}

impl<'a> Crawl<'a> {
    fn new(client: &ArmisClient, observations: &'a Observations, begin: i64) -> Self {
        let config = client.config();
        let snapshot = Snapshot { id: time::format(begin), begin, count: None };
        Self {
            observations,
            mapping: Arc::new(Mapping {
                source: config.source(),
                partition: config.partition.clone(),
                exclude: config.exclude.clone(),
                snapshot,
            }),
            progress: Progress::default(),
            seen: HashSet::new(),
            excluded: 0,
            repeated: None,
            other_total: None,
            refused: 0,
            refused_shown: Vec::new(),
        }
    }

    fn begin(&self) -> i64 {
        self.mapping.snapshot.begin
    }

    fn fetch_failed(&self, error: FetchError) -> CrawlError {
        CrawlError::Fetch { progress: self.progress, error }
    }

    /// Publishes SNAPSHOT_BEGIN or SNAPSHOT_END.
    async fn mark(&self, action: Action, at: i64, count: Option<usize>) -> Result<(), CrawlError> {
        let mark = Observation {
            event_time: at,
            partition: self.mapping.partition.clone(),
            source: self.mapping.source.clone(),
            action,
            snapshot: Some(Snapshot {
                count: count.map(|count| count as i64),
                ..self.mapping.snapshot.clone()
            }),
            ..Observation::default()
        };
        self.append(vec![event(&mark, self.observations.framing)?]).await
    }

    async fn append(&self, events: Vec<NewEvent>) -> Result<(), CrawlError> {
        let progress = self.progress;
        let appended = self.observations.publisher.publish(events).await;
        appended.map(|_| ()).map_err(|error| CrawlError::Publish { progress, error })
    }

    /// Publishes the devices of a page that have not come before.
    async fn publish(&mut self, page: ReadPage) -> Result<(), CrawlError> {
        let mut events = Vec::with_capacity(page.devices.len());
        let mut excluded = 0;
        for (native_key, event) in page.devices {
            if self.seen.contains(&native_key) {
                self.repeated.get_or_insert(native_key);
                continue;
            }
            self.seen.insert(native_key);
            match event {
                Some(event) => events.push(event),
                None => excluded += 1,
            }
        }
        let records = events.len();
        self.append(events).await?;
        self.excluded += excluded;
        self.progress.records += records;
        self.progress.pages += 1;
        self.refused += page.refused.len();
        let room = REFUSED_SHOWN.saturating_sub(self.refused_shown.len());
        self.refused_shown.extend(page.refused.into_iter().take(room));
        if page.total != self.progress.total {
            self.other_total = Some(page.total);
        }
        Ok(())
    }

    /// Whether what came is what Armis has.
    fn check(&self) -> Result<(), CrawlError> {
        let total = self.progress.total;
        let why = if self.refused > 0 {
            format!("{} devices are no records: {}", self.refused, self.refused_shown.join("; "))
        } else if let Some(native_key) = &self.repeated {
            let distinct = self.seen.len();
            format!("device {native_key} came twice, {distinct} of {total} are distinct")
        } else if let Some(other) = self.other_total {
            format!("there were {total} devices on the first page and {other} on another")
        } else if self.seen.len() != total {
            format!("{} of {total} devices came", self.seen.len())
        } else {
            return Ok(());
        };
        Err(CrawlError::Incomplete { progress: self.progress, why })
    }
}
