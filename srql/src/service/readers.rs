//! Readers: connections that are kept, and how many may be at work at a time, in all and of a tenant.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{error::QueryError, reader::Reader};

/// Queries of a tenant at a time, unless said; who asks more is told to wait.
pub const CONCURRENT_DEFAULT: usize = 16;
/// Connections to the database, at most.
pub const READERS_MAX: usize = 32;

/// Connections that answer.
pub struct Readers {
    url: String,
    idle: Mutex<Vec<Reader>>,
    all: Arc<Semaphore>,
    concurrent: usize,
    of_tenants: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// A connection that is at work. Unless it is given back it is closed: nobody waits for a query that was given up.
pub struct Borrowed {
    /// The connection.
    pub reader: Reader,
    _permits: [OwnedSemaphorePermit; 2],
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Refused {
    /// The tenant asks too much at a time.
    Busy,
    /// The database does not answer.
    Unavailable(QueryError),
}

impl Readers {
    /// With nothing connected.
    pub fn new(url: String, concurrent: usize) -> Self {
        Self {
            url,
            idle: Mutex::default(),
            all: Arc::new(Semaphore::new(READERS_MAX)),
            concurrent,
            of_tenants: Mutex::default(),
        }
    }

    /// The database that is asked.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes a connection for a query of a tenant.
    pub async fn borrow(&self, tenant: &str) -> Result<Borrowed, Refused> {
        let of_tenant = {
            let mut tenants = self.of_tenants.lock().unwrap_or_else(PoisonError::into_inner);
            let concurrent = self.concurrent;
            tenants.entry(tenant.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(concurrent))).clone()
        };
        let of_tenant = of_tenant.try_acquire_owned().map_err(|_| Refused::Busy)?;
        // Never closed.
        let of_all = self.all.clone().acquire_owned().await.map_err(|_| Refused::Busy)?;
        let idle = loop {
            let one = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match one {
                Some(reader) if reader.is_closed() => {}
                found => break found,
            }
        };
        let reader = match idle {
            Some(reader) => reader,
            None => Reader::connect(&self.url).await.map_err(Refused::Unavailable)?,
        };
        Ok(Borrowed { reader, _permits: [of_tenant, of_all] })
    }

    /// Takes a connection back whose query has ended.
    pub fn give_back(&self, borrowed: Borrowed) {
        let Borrowed { reader, _permits } = borrowed;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
    }
}
