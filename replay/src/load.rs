//! Load: empty views are filled from the log's start in one epoch, and get their indexes afterwards.
//!
//! Epoch by epoch, a row would be written as often as an epoch changes it, into indexes that grow with it.

use std::time::Instant;

use serviceradar_materializers::views::{Pieces, ViewsError};
use serviceradar_streams::engine::Closed;
use tokio::task::JoinHandle;

use crate::{
    chores::BEAT_EVERY,
    commit::Commit,
    driver::{Driver, DriverError, RETRY, Running, with_engine},
    epochs::Gathered,
    status::Phase,
    topics::Partition,
};

/// Bytes of the log that the dataflow is fed with at a time.
const FEED_BYTES: u64 = 1024 * 1024;
/// Pieces of rows that wait between the dataflow and the views.
const PIECES_WAITING: usize = 1;
/// A load that meets more dead letters is closed early: they are held until it is.
const DEAD_LETTERS_MAX: usize = 10_000;

/// What views lack that were empty.
pub(crate) enum Indexes {
    /// Nothing.
    There,
    /// All, until what the log held at the start is loaded: an epoch without them would read whole tables.
    Missing,
    /// They are being made.
    Making(JoinHandle<Result<(), ViewsError>>),
}

impl Indexes {
    /// Whether nothing is missing.
    pub(crate) fn are_there(&self) -> bool {
        matches!(self, Indexes::There)
    }

    /// Whether they have been made, and nobody has asked about it.
    pub(crate) fn are_made(&self) -> bool {
        matches!(self, Indexes::Making(making) if making.is_finished())
    }
}

impl Driver {
    /// Fills empty views with what the log holds, in one epoch: all of it is folded, and what it comes to is
    /// written once. What is held meanwhile is the state alone. What the guard then says belongs to it.
    pub(crate) async fn load(&mut self, running: &mut Running) -> Result<(), DriverError> {
        let mut loading = Gathered::default();
        self.feed(running, &mut loading).await?;
        // Of a load that was broken off nothing is written: the next one begins anew.
        if self.is_stopped() {
            return Ok(());
        }
        if loading.events == 0 {
            self.reach(running, loading.frontiers.into_values());
            return Ok(());
        }
        let closed_at = self.config.clock.now();
        let started = Instant::now();
        let decisions = std::mem::take(&mut loading.batch.decisions);
        let mut closed = with_engine(running, move |engine| engine.load(decisions)).await?;
        if self.judge_load(running, &closed).await? {
            self.feed(running, &mut loading).await?;
            let decisions = std::mem::take(&mut loading.batch.decisions);
            let judged = with_engine(running, move |engine| engine.load(decisions)).await?;
            closed.then(judged);
        }
        let mut commit = self.commit_of(running, loading, closed, closed_at, started);
        while let Err(error) = self.write_load(running, &mut commit).await? {
            if !error.is_unavailable() || self.is_stopped() {
                return Err(error.into());
            }
            self.board.database(Some(&error.to_string()));
            tokio::time::sleep(RETRY).await;
        }
        self.board.update(|status| (status.loading, status.database) = (0, None));
        self.tell(running, commit);
        self.make_indexes(running, false).await
    }

    /// Feeds the dataflow with what the log holds, up to its ends.
    async fn feed(&mut self, running: &mut Running, loading: &mut Gathered) -> Result<(), DriverError> {
        let mut beat = Instant::now();
        while !running.ends.iter().all(|(partition, end)| {
            running.lanes.get(partition).is_some_and(|lane| lane.frontier().next_offset >= *end)
        }) {
            if self.is_stopped() || loading.dead_letters.len() > DEAD_LETTERS_MAX {
                break;
            }
            let mut gathered = Gathered::of(FEED_BYTES);
            if gathered.gather(&mut running.lanes, Instant::now())? {
                let sightings = std::mem::take(&mut gathered.batch.sightings);
                with_engine(running, move |engine| engine.feed(sightings)).await?;
                loading.add(gathered);
                self.board.update(|status| status.loading = loading.events);
            } else {
                let mut stop = self.stop.clone();
                tokio::select! {
                    _ = running.came.notified() => {}
                    _ = stop.changed() => {}
                    _ = tokio::time::sleep(RETRY) => {}
                }
            }
            if beat.elapsed() >= BEAT_EVERY {
                self.keep(running.committer.writer()?.beat().await)?;
                beat = Instant::now();
            }
        }
        Ok(())
    }

    /// Lets the guard judge a load. Where it wrote a verdict the log ends behind it.
    async fn judge_load(&self, running: &mut Running, closed: &Closed) -> Result<bool, DriverError> {
        let reached = |partition: &Partition, end: &u64| {
            running.lanes.get(partition).is_some_and(|lane| lane.frontier().next_offset >= *end)
        };
        if !running.is_live || !running.ends.iter().all(|(partition, end)| reached(partition, end)) {
            return Ok(false);
        }
        match running.guard.judge(&closed.undecided, closed.tick).await {
            Ok(true) => self.find_ends(running).await.map(|()| true),
            Ok(false) => Ok(false),
            Err(error) => {
                tracing::warn!(%error, "the guard could not write its verdict; it will try again");
                Ok(false)
            }
        }
    }

    /// Writes the epoch of a load, its rows as the dataflow tells them.
    async fn write_load(
        &self,
        running: &mut Running,
        commit: &mut Commit,
    ) -> Result<Result<(), ViewsError>, DriverError> {
        let Commit { epoch, closed, .. } = commit;
        let (put, pieces) = Pieces::new(PIECES_WAITING);
        let mut engine = running.take_engine()?;
        let mut rest = std::mem::take(&mut epoch.output);
        let telling = tokio::task::spawn_blocking(move || {
            // Counts follow from the rows: they, and all else, come last. Whoever takes no more has failed.
            let (mut rows, mut evidence) = (0, 0);
            let told = engine.rows(&mut |piece| {
                (rows, evidence) = (rows + piece.rows(), evidence + piece.evidence.len());
                put.blocking_send(Some(piece)).is_ok()
            });
            let counted = told.and_then(|()| engine.load(Vec::new()));
            let counted = counted.map(|counted| {
                rest.counts.then(counted.output.counts);
                let _ = put.blocking_send(Some(rest.clone()));
                let _ = put.blocking_send(None);
                (rest, counted.gauges, rows as u64, evidence as u64)
            });
            (engine, counted)
        });
        let written = running.committer.writer()?.load(epoch, pieces).await;
        let (engine, rest) = telling.await.map_err(|error| DriverError::Task(error.to_string()))?;
        running.engine = Some(engine);
        let (rest, gauges, rows, evidence) = rest?;
        (epoch.output, closed.gauges) = (rest, gauges);
        if written.is_ok() {
            self.board.update(|status| {
                (status.changes, status.evidence_changes) =
                    (status.changes + rows, status.evidence_changes + evidence);
            });
        }
        Ok(written)
    }

    /// Whether the views hold what the log held at the start.
    pub(crate) fn has_caught_up(&self, running: &Running) -> bool {
        let reached = |partition: &Partition| running.committed.get(partition).copied().unwrap_or_default();
        running.ends.iter().all(|(partition, end)| reached(partition) >= *end)
    }

    /// Has the indexes made of views that were filled. What is computed meanwhile is written afterwards: with
    /// `is_needed` it waits for them, and beats.
    pub(crate) async fn make_indexes(
        &self,
        running: &mut Running,
        is_needed: bool,
    ) -> Result<(), DriverError> {
        if matches!(running.indexes, Indexes::Missing) {
            let (views, generation) = (self.config.views.clone(), running.generation);
            let came = running.came.clone();
            running.indexes = Indexes::Making(tokio::spawn(async move {
                let made = views.make_indexes(generation).await;
                came.notify_one();
                made
            }));
        }
        let Indexes::Making(making) = &mut running.indexes else {
            return Ok(());
        };
        if !is_needed && !making.is_finished() {
            return Ok(());
        }
        let made = loop {
            tokio::select! {
                made = &mut *making => break made.map_err(|error| DriverError::Task(error.to_string()))?,
                _ = tokio::time::sleep(BEAT_EVERY) => self.keep(running.committer.writer()?.beat().await)?,
            }
        };
        running.indexes = if made.is_ok() { Indexes::There } else { Indexes::Missing };
        self.keep(made)
    }

    /// Says that views that were filled can be read, once they can.
    pub(crate) fn tell_loaded(&self, running: &Running) {
        if self.board.is_loading() && running.indexes.are_there() && self.has_caught_up(running) {
            self.board.update(|status| status.phase = Phase::Running);
        }
    }
}
