//! The one thread that writes: what waits for it at the same time becomes one durable commit.

use std::{sync::Arc, thread};

use fail::fail_point;
use tokio::sync::{mpsc, oneshot};

use super::{ends::Ends, storage::Storage, tables::Tables};
use crate::store::LogError;

/// Changes that wait for the writer. Whoever finds the queue full waits with its own change.
const QUEUE_CHANGES_MAX: usize = 256;
/// Bytes of events after which a commit takes no more changes: enough that the time of a commit
/// goes into writing, little enough to keep its pages in memory.
const COMMIT_BYTES: usize = 16 * 1024 * 1024;

/// A change, its weight in bytes of events, and who waits for it.
pub(super) struct Change<F, T> {
    pub(super) bytes: usize,
    pub(super) apply: Option<F>,
    pub(super) outcome: Option<Result<T, LogError>>,
    pub(super) reply: oneshot::Sender<Result<T, LogError>>,
}

/// A change whatever its answer is.
pub(super) trait Work: Send {
    /// See [`Change::bytes`].
    fn bytes(&self) -> usize;
    /// Makes the change. An error is of the storage, and undoes all of the commit.
    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), LogError>;
    /// Answers, after the commit.
    fn finish(self: Box<Self>, committed: Result<(), LogError>);
}

impl<F, T> Work for Change<F, T>
where
    F: FnOnce(&mut Tables<'_>) -> Result<T, LogError> + Send,
    T: Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), LogError> {
        let outcome = self.apply.take().map(|apply| apply(tables));
        match outcome {
            Some(Err(error @ (LogError::Unavailable(_) | LogError::Corrupt(_)))) => Err(error),
            outcome => {
                self.outcome = outcome;
                Ok(())
            }
        }
    }

    fn finish(self: Box<Self>, committed: Result<(), LogError>) {
        let Self { outcome, reply, .. } = *self;
        let not_made = || Err(LogError::Unavailable("the change was not made".to_owned()));
        // Even a refusal may rest on a change before it that was undone with it.
        let answer = committed.and_then(|()| outcome.unwrap_or_else(not_made));
        // Whoever stopped waiting finds out by asking again.
        let _ = reply.send(answer);
    }
}

/// The writer's end that takes changes, and its thread.
pub(super) struct Writer {
    pub(super) queue: Option<mpsc::Sender<Box<dyn Work>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(storage: Arc<Storage>, ends: Arc<Ends>) -> Result<Self, LogError> {
        let (queue, changes) = mpsc::channel(QUEUE_CHANGES_MAX);
        let thread = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || run(&storage, &ends, changes))
            .map_err(|error| LogError::Unavailable(format!("no thread to write with: {error}")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Takes no more, and waits until what was taken is committed.
    pub(super) fn stop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed, and there is nothing left to do here.
            let _ = thread.join();
        }
    }
}

fn run(storage: &Storage, ends: &Ends, mut changes: mpsc::Receiver<Box<dyn Work>>) {
    while let Some(first) = changes.blocking_recv() {
        let mut bytes = first.bytes();
        let mut group = vec![first];
        while bytes < COMMIT_BYTES
            && let Ok(next) = changes.try_recv()
        {
            bytes += next.bytes();
            group.push(next);
        }
        let committed = storage.guarded(|| commit(storage, &mut group));
        if let Err(error) = &committed {
            // The storage may take no other change after this one.
            storage.fail();
            tracing::error!(%error, "a commit failed; the log's file is opened anew");
        }
        let committed = committed.map(|moved| ends.advance(moved));
        for change in group {
            change.finish(committed.clone());
        }
    }
}

type Moved = Vec<(super::tables::LogPartitionId, Option<u64>)>;

fn commit(storage: &Storage, group: &mut [Box<dyn Work>]) -> Result<Moved, LogError> {
    let transaction = storage.begin_write()?;
    let mut tables = Tables::open(storage, &transaction)?;
    for change in group {
        change.apply(&mut tables)?;
    }
    fail_point!("in-append");
    let moved = std::mem::take(&mut tables.moved);
    drop(tables);
    transaction.commit().map_err(|error| storage.error(error))?;
    Ok(moved)
}
