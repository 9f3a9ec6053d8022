//! Readers: connections that are kept, and how many may be at work at a time, in all and of a tenant.

use std::{
    collections::BTreeMap,
    num::NonZero,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    thread::available_parallelism,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{error::QueryError, reader::Reader};

/// Queries of a tenant that are answered at a time, unless said; who asks more waits for a place.
pub const CONCURRENT_DEFAULT: usize = 16;
/// Queries of a tenant that wait for a place, at most; who asks more is refused at once.
pub const WAITING_MAX: usize = 64;
/// How long a query waits for a place: not longer than who is refused is told to stay away.
pub const WAIT_MAX: Duration = Duration::from_secs(1);
/// The cost, as PostgreSQL estimates it, up to which a query is run, unless said.
pub const COST_DEFAULT: f64 = 100_000_000.0;
/// Connections to the database for queries, at most.
pub const READERS_MAX: usize = 32;

/// Pages that are read at a time, per core: the more at once, the later each of them comes.
pub const TURNS_PER_CORE: usize = 2;
/// The least: the database may be on a larger machine.
pub const TURNS_MIN: usize = 4;
/// How long a turn lasts. A page that takes longer is read on beside those whose turn it is.
pub const TURN: Duration = Duration::from_millis(50);

/// Connections that answer.
pub struct Readers {
    url: String,
    idle: Mutex<Vec<Reader>>,
    all: Arc<Semaphore>,
    /// The cost up to which a connection that is made from now on runs a query.
    pub cost_max: f64,
    of_tenants: PerTenant,
    waiting: PerTenant,
    /// Of the service itself, which asks nothing but whether it is answered.
    own: Arc<Semaphore>,
    turns: Semaphore,
}

/// How many of something each tenant may have at a time.
pub struct PerTenant {
    each: usize,
    taken: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

impl PerTenant {
    /// So many.
    pub fn new(each: usize) -> Self {
        Self { each, taken: Mutex::default() }
    }

    fn of(&self, tenant: &str) -> Arc<Semaphore> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.entry(tenant.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.each))).clone()
    }

    /// One, if the tenant has not as many as it may.
    pub fn try_acquire(&self, tenant: &str) -> Option<OwnedSemaphorePermit> {
        self.of(tenant).try_acquire_owned().ok()
    }
}

/// A connection that is at work. Unless it is given back it is closed: nobody waits for a query that was given up.
pub struct Borrowed {
    /// The connection.
    pub reader: Reader,
    _permits: Permits,
}

/// Of all and of the tenant, or of the service itself.
type Permits = [Option<OwnedSemaphorePermit>; 2];

/// Why there is no connection.
#[derive(Debug)]
pub enum Refused {
    /// The tenant asks too much at a time.
    Busy,
    /// The database does not answer.
    Unavailable(QueryError),
}

/// How many pages are read at a time.
pub fn turns() -> usize {
    TURNS_MIN.max(TURNS_PER_CORE * available_parallelism().map_or(1, NonZero::get))
}

impl Readers {
    /// With nothing connected.
    pub fn new(url: String, concurrent: usize, cost_max: f64) -> Self {
        Self {
            url,
            idle: Mutex::default(),
            all: Arc::new(Semaphore::new(READERS_MAX)),
            cost_max,
            of_tenants: PerTenant::new(concurrent),
            waiting: PerTenant::new(WAITING_MAX),
            own: Arc::new(Semaphore::new(1)),
            turns: Semaphore::new(turns()),
        }
    }

    /// What comes of reading a page, when its turn has come. First come, first served.
    pub async fn in_turn<T>(&self, page: impl Future<Output = T>) -> T {
        // Never closed.
        let turn = self.turns.acquire().await.ok();
        let mut page = pin!(page);
        match timeout(TURN, &mut page).await {
            Ok(read) => read,
            Err(_) => {
                drop(turn);
                page.await
            }
        }
    }

    /// The database that is asked.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes a connection for a query of a tenant, who waits a moment where all its places are taken.
    pub async fn borrow(&self, tenant: &str) -> Result<Borrowed, Refused> {
        self.take_of(self.place(tenant).await.ok_or(Refused::Busy)?).await
    }

    /// The same for a query that was taken in before, which waits for its turn.
    pub async fn borrow_in_turn(&self, tenant: &str) -> Result<Borrowed, Refused> {
        // Never closed.
        self.take_of(self.of_tenants.of(tenant).acquire_owned().await.map_err(|_| Refused::Busy)?).await
    }

    /// The same for the service itself: it takes no tenant a place away, and waits for no query.
    pub(super) async fn borrow_own(&self) -> Result<Borrowed, Refused> {
        // Never closed.
        let own = self.own.clone().acquire_owned().await.map_err(|_| Refused::Busy)?;
        self.take([Some(own), None]).await
    }

    /// A place of the tenant; none where too many wait for one, or it takes too long. First come, first served.
    async fn place(&self, tenant: &str) -> Option<OwnedSemaphorePermit> {
        let place = self.of_tenants.try_acquire(tenant);
        if place.is_some() {
            return place;
        }
        // Until it has a place or gives up, and no longer than somebody waits for the answer.
        let _waiting = self.waiting.try_acquire(tenant)?;
        timeout(WAIT_MAX, self.of_tenants.of(tenant).acquire_owned()).await.ok()?.ok()
    }

    async fn take_of(&self, of_tenant: OwnedSemaphorePermit) -> Result<Borrowed, Refused> {
        // Never closed.
        let of_all = self.all.clone().acquire_owned().await.map_err(|_| Refused::Busy)?;
        self.take([Some(of_tenant), Some(of_all)]).await
    }

    async fn take(&self, _permits: Permits) -> Result<Borrowed, Refused> {
        let idle = loop {
            let one = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match one {
                Some(reader) if reader.is_closed() => {}
                found => break found,
            }
        };
        let reader = match idle {
            Some(reader) => reader,
            None => Reader::connect(&self.url, Some(self.cost_max)).await.map_err(Refused::Unavailable)?,
        };
        Ok(Borrowed { reader, _permits })
    }

    /// Takes a connection back whose query has ended.
    pub fn give_back(&self, borrowed: Borrowed) {
        let Borrowed { reader, _permits } = borrowed;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
    }
}
