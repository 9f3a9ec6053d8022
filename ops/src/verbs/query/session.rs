//! A session: who asks, and the connection by which it is answered.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use serviceradar_ops::config::Config;
use serviceradar_schemas::time::{Clock, SystemClock};
use serviceradar_srql::{
    cursor::{Asker, Cursors},
    page::Keyset,
    plan::{Extent, Plan, plan},
    reader::{Answer, Reader},
};

use super::Refused;
use crate::lag;

/// How long the database is waited for when a query is given up.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(1);

/// Asks as a tenant. It connects when it is first asked, and again after the connection was found lost.
pub(crate) struct Session<'a> {
    config: &'a Config,
    cursors: Cursors,
    reader: Option<Reader>,
}

/// A query that can be answered.
pub(crate) struct Planned<'q> {
    query: &'q str,
    /// What it takes for now, microseconds since 1970.
    now: i64,
    /// How it is answered.
    pub(crate) plan: Plan,
}

impl<'a> Session<'a> {
    /// Without a connection.
    pub(crate) fn new(config: &'a Config) -> Self {
        // Whoever reads the database could write any cursor: the key keeps mistakes away, and nobody.
        Self { config, cursors: Cursors::new(b"query"), reader: None }
    }

    fn asker(&self) -> Asker<'_> {
        Asker { tenant: &self.config.tenant, principal: "query" }
    }

    /// Plans a page: the first, or where a cursor says.
    pub(crate) fn page<'q>(&self, query: &'q str, cursor: Option<&str>) -> Result<Planned<'q>, Refused> {
        let planned = self.cursors.plan(self.asker(), query, SystemClock.now(), None, cursor);
        let (plan, now) = planned.map_err(|mistakes| Refused::new(query, mistakes))?;
        Ok(Planned { query, now, plan })
    }

    /// Plans all rows.
    pub(crate) fn all<'q>(&self, query: &'q str) -> Result<Planned<'q>, Refused> {
        let now = SystemClock.now();
        let plan = plan(query, now, Extent::All { limit: None });
        Ok(Planned { query, now, plan: plan.map_err(|mistakes| Refused::new(query, mistakes))? })
    }

    /// Writes a cursor to a place in the rows of a query.
    pub(crate) fn cursor(&self, planned: &Planned<'_>, from: Keyset) -> String {
        self.cursors.write(self.asker(), &planned.plan, planned.now, from)
    }

    /// Whether there was a connection that is lost.
    pub(crate) async fn is_lost(&mut self) -> bool {
        let Some(reader) = &self.reader else {
            return false;
        };
        let is_lost = !reader.is_answered().await;
        if is_lost {
            self.reader = None;
        }
        is_lost
    }

    /// Connects, unless it is connected.
    pub(crate) async fn connect(&mut self) -> anyhow::Result<&mut Reader> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => {
                let url = lag::database_url(self.config).with_context(|| {
                    format!(
                        "no database: give --database, or start a pipeline on {}",
                        self.config.dir.display()
                    )
                })?;
                Reader::connect(&url, None).await.map_err(|mistake| Refused::new("", vec![mistake]))?
            }
        };
        Ok(self.reader.insert(reader))
    }

    /// Answers a query, with all its rows.
    pub(crate) async fn answer(&mut self, planned: &Planned<'_>) -> anyhow::Result<Answer> {
        let tenant = &self.config.tenant;
        let answer = self.connect().await?.answer(tenant, &planned.plan).await;
        Ok(answer.map_err(|mistake| Refused::new(planned.query, vec![mistake]))?)
    }

    /// Answers a query, row by row, for as long as `take` wants more.
    pub(crate) async fn read(
        &mut self,
        planned: &Planned<'_>,
        take: impl FnMut(Vec<Value>) -> bool,
    ) -> anyhow::Result<()> {
        let tenant = &self.config.tenant;
        let read = self.connect().await?.read(tenant, &planned.plan, take).await;
        read.map_err(|mistake| Refused::new(planned.query, vec![mistake]))?;
        Ok(())
    }

    /// Gives up what is being answered, and the connection with it.
    pub(crate) async fn give_up(&mut self) {
        if let Some(reader) = self.reader.take() {
            // Where that is not heard, the statement's own time-out ends it.
            tokio::time::timeout(GIVE_UP_WITHIN, reader.give_up()).await.ok();
        }
    }
}
