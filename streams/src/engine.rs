//! The engine: workers that each run the dataflow for some of a tenant's partitions.
//!
//! Identity never crosses a partition, so that workers share nothing; TICKs go to all of them.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use serviceradar_schemas::Action;

use crate::{
    changes::Row,
    dataflow::{Closing, Dataflow, Event, Gauges},
    decisions::{Decisions, Taken},
    normalise::Sighting,
    resolve::{Placed, Redirect},
    restore::Piece,
    rows::{DecisionRow, EpochOutput, IssueRow, State},
    rules::Rules,
    snapshots::Undecided,
};

/// Why the engine stopped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// A worker ended: a defect; the log and the views are whole, and a restart goes on from them.
    #[error("a worker of the dataflow ended unexpectedly: restart, and report the message above")]
    WorkerEnded,
    /// The views hold a row that no epoch wrote.
    #[error("the views cannot be read back: {0}; rebuild them with `serviceradar replay rebuild`")]
    Restore(String),
    /// A thread could not be started.
    #[error("a worker cannot be started: {0}")]
    Spawn(String),
}

/// The input of an epoch.
#[derive(Default)]
pub struct Batch {
    /// Normalised observations, in any order.
    pub sightings: Vec<Sighting>,
    /// Decisions, in any order.
    pub decisions: Vec<Taken>,
}

/// A closed epoch.
#[derive(Debug, Default)]
pub struct Closed {
    /// What it changes in the views.
    pub output: EpochOutput,
    /// Fetches that wait for a verdict.
    pub undecided: Vec<Undecided>,
    /// The tenant's last TICK.
    pub tick: Option<i64>,
    /// Sizes.
    pub gauges: Gauges,
}

enum Command {
    /// Not answered: what went wrong is told once all is there.
    Restore(Box<Piece>),
    Restored,
    /// Not answered: who waits for its turn waits long enough.
    Feed(Vec<Event>),
    Epoch(Vec<Event>, Telling),
    Issues,
    Rows,
    Remember,
    Places,
}

enum Answer {
    Restored(Result<(), String>),
    Closed(Box<Closing>),
    Issues(Vec<IssueRow>),
    /// A piece of the rows; none: there are no more.
    Rows(Option<Box<EpochOutput>>),
    Placed(Vec<Placed>),
    Redirects(Vec<Redirect>),
}

/// Whether an epoch tells rows of devices, records and evidence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Telling {
    Rows,
    Nothing,
}

struct Worker {
    commands: SyncSender<Command>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

/// A tenant's dataflow.
pub struct Engine {
    workers: Vec<Worker>,
    /// Of all partitions: an id is one decision wherever it holds.
    decisions: Decisions,
}

impl Engine {
    /// Starts as many workers for a tenant.
    pub fn start(tenant: &str, rules: &Arc<Rules>, workers: usize) -> Result<Self, EngineError> {
        let workers = (0..workers.max(1)).map(|index| Worker::start(index, tenant, rules));
        Ok(Self { workers: workers.collect::<Result<_, _>>()?, decisions: Decisions::default() })
    }

    /// Puts the state back that was read from the views, before the first epoch. While the workers take in one piece
    /// the next is made ready.
    pub fn restore(&mut self, pieces: impl IntoIterator<Item = State>) -> Result<(), EngineError> {
        let mut decisions = Vec::new();
        for mut piece in pieces {
            let read = |row: DecisionRow| Taken::read(row.decision, None);
            let read =
                std::mem::take(&mut piece.decisions).into_iter().map(read).collect::<Result<Vec<_>, _>>();
            decisions.extend(read.map_err(|refusal| EngineError::Restore(refusal.to_string()))?);
            for (worker, share) in self.workers.iter().zip(self.shares_of_state(piece)) {
                let piece = Piece::read(share).map_err(EngineError::Restore)?;
                worker.tell(Command::Restore(Box::new(piece)))?;
            }
        }
        for worker in &self.workers {
            worker.tell(Command::Restored)?;
        }
        for worker in &self.workers {
            match worker.hear()? {
                Answer::Restored(restored) => restored.map_err(EngineError::Restore)?,
                _ => return Err(EngineError::WorkerEnded),
            }
        }
        // What follows from the state are the rows that are there: no change.
        self.load(decisions)?;
        for worker in &self.workers {
            worker.tell(Command::Remember)?;
        }
        for worker in &self.workers {
            match worker.hear()? {
                Answer::Rows(None) => {}
                _ => return Err(EngineError::WorkerEnded),
            }
        }
        self.load(Vec::new()).map(|_| ())
    }

    fn shares_of_state(&self, state: State) -> Vec<State> {
        let mut shares: Vec<State> = self.workers.iter().map(|_| State::default()).collect();
        if let [share] = &mut shares[..] {
            *share = state;
            return shares;
        }
        let of = |partition: &str| self.worker_of(partition);
        let of_record = |key: &str| of(key.split('/').next().unwrap_or_default());
        for row in state.records {
            shares[of_record(&row.record_key)].records.push(row);
        }
        for row in state.evidence {
            shares[of_record(&row.record_key)].evidence.push(row);
        }
        for row in state.snapshots {
            shares[of(&row.partition)].snapshots.push(row);
        }
        for row in state.snapshot_members {
            shares[of(&row.partition)].snapshot_members.push(row);
        }
        for row in state.watermarks {
            match &row.partition {
                Some(partition) => shares[of(partition)].watermarks.push(row),
                None => shares.iter_mut().for_each(|share| share.watermarks.push(row.clone())),
            }
        }
        shares
    }

    /// Runs one epoch to its end. Blocks while it computes.
    pub fn epoch(&mut self, batch: Batch) -> Result<Closed, EngineError> {
        self.close(batch, Telling::Rows)
    }

    /// Takes in a part of the first epoch, which `load` closes. It is worked through as it comes, while the next is
    /// made ready: of a log of any length nothing is held but what it comes to.
    pub fn feed(&mut self, sightings: Vec<Sighting>) -> Result<(), EngineError> {
        for (worker, share) in self.workers.iter().zip(self.shares(sightings)) {
            worker.tell(Command::Feed(share))?;
        }
        Ok(())
    }

    /// Closes what was fed, and tells no rows of devices, records and evidence: `rows` does. What is told of those
    /// is counted at the next close.
    pub fn load(&mut self, decisions: Vec<Taken>) -> Result<Closed, EngineError> {
        self.close(Batch { sightings: Vec::new(), decisions }, Telling::Nothing)
    }

    /// Tells all rows of devices, records and evidence as new ones, piece by piece, until told that it is enough.
    pub fn rows(&mut self, tell: &mut dyn FnMut(EpochOutput) -> bool) -> Result<(), EngineError> {
        let mut more = true;
        for worker in &self.workers {
            worker.tell(Command::Rows)?;
            loop {
                match worker.hear()? {
                    Answer::Rows(Some(piece)) => more = more && tell(*piece),
                    Answer::Rows(None) => break,
                    _ => return Err(EngineError::WorkerEnded),
                }
            }
        }
        Ok(())
    }

    /// Where all records are, by key, and where claims and addresses lead, by uid: without a row being made. The records
    /// are told while the workers find out the rest.
    pub fn places<T>(
        &mut self,
        tell: impl FnOnce(Vec<Placed>) -> T,
    ) -> Result<(T, Vec<Redirect>), EngineError> {
        for worker in &self.workers {
            worker.tell(Command::Places)?;
        }
        let (mut records, mut redirects) = (Vec::new(), Vec::new());
        for worker in &self.workers {
            match worker.hear()? {
                Answer::Placed(some) => records.extend(some),
                _ => return Err(EngineError::WorkerEnded),
            }
        }
        records.sort_unstable();
        let told = tell(records);
        for worker in &self.workers {
            match worker.hear()? {
                Answer::Redirects(some) => redirects.extend(some),
                _ => return Err(EngineError::WorkerEnded),
            }
        }
        if self.workers.len() > 1 {
            redirects.sort_unstable();
        }
        Ok((told, redirects))
    }

    /// The events of each worker.
    fn shares(&self, sightings: Vec<Sighting>) -> Vec<Vec<Event>> {
        let mut shares: Vec<Vec<Event>> = self.workers.iter().map(|_| Vec::new()).collect();
        for sighting in sightings {
            if sighting.action == Action::Tick {
                for share in &mut shares {
                    share.push(Event::Sighting(Box::new(sighting.clone())));
                }
            } else {
                let worker = self.worker_of(&sighting.partition);
                shares[worker].push(Event::Sighting(Box::new(sighting)));
            }
        }
        shares
    }

    fn close(&mut self, batch: Batch, telling: Telling) -> Result<Closed, EngineError> {
        let mut shares = self.shares(batch.sightings);
        let decided = self.decisions.take(batch.decisions);
        for (effect, diff) in decided.effects {
            let worker = self.worker_of(&effect.0);
            shares[worker].push(Event::Effect(Box::new(effect), diff));
        }
        for (worker, share) in self.workers.iter().zip(shares) {
            worker.tell(Command::Epoch(share, telling))?;
        }
        let mut closed = Closed::default();
        closed.output.decisions = decided.rows;
        for worker in &self.workers {
            match worker.hear()? {
                Answer::Closed(closing) => closed.add(*closing),
                _ => return Err(EngineError::WorkerEnded),
            }
        }
        Ok(closed)
    }

    /// All issues there are, in order.
    pub fn issues(&mut self) -> Result<Vec<IssueRow>, EngineError> {
        let mut issues = Vec::new();
        for worker in &self.workers {
            worker.tell(Command::Issues)?;
            match worker.hear()? {
                Answer::Issues(some) => issues.extend(some),
                _ => return Err(EngineError::WorkerEnded),
            }
        }
        issues.sort_unstable();
        Ok(issues)
    }

    fn worker_of(&self, partition: &str) -> usize {
        if self.workers.len() == 1 {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        partition.hash(&mut hasher);
        (hasher.finish() % self.workers.len() as u64) as usize
    }
}

impl Closed {
    /// Adds what was closed after this: the two are then one epoch.
    pub fn then(&mut self, later: Self) {
        self.output.then(later.output);
        (self.undecided, self.tick, self.gauges) = (later.undecided, later.tick, later.gauges);
    }

    fn add(&mut self, closing: Closing) {
        let Closing { mut output, undecided, tick, gauges, .. } = closing;
        // Every worker tells the tenant's TICK.
        let known = &self.output.watermarks;
        let known = known.new.iter().chain(&known.changed);
        if known.map(Row::key).any(|partition| partition.is_none()) {
            output.watermarks.new.retain(|row| row.partition.is_some());
            output.watermarks.changed.retain(|row| row.partition.is_some());
        }
        self.output.then(output);
        self.undecided.extend(undecided);
        self.tick = self.tick.max(tick);
        self.gauges.records += gauges.records;
        self.gauges.blocks_decided += gauges.blocks_decided;
        self.gauges.biggest_block = self.gauges.biggest_block.max(gauges.biggest_block);
        self.gauges.scopes.extend(gauges.scopes);
    }
}

impl Worker {
    fn start(index: usize, tenant: &str, rules: &Arc<Rules>) -> Result<Self, EngineError> {
        // One command and one answer are ever under way, but for pieces of the state.
        let (commands, inbox) = sync_channel(1);
        let (outbox, answers) = sync_channel(1);
        let (tenant, rules) = (tenant.to_owned(), rules.clone());
        let thread = std::thread::Builder::new()
            .name(format!("dataflow-{index}"))
            .spawn(move || {
                let inbox = std::sync::Mutex::new(inbox);
                timely::execute_directly(move |worker| {
                    let mut dataflow = Dataflow::build(worker, &tenant, &rules);
                    let Ok(inbox) = inbox.into_inner() else {
                        return;
                    };
                    let mut restored = Ok(());
                    while let Ok(command) = inbox.recv() {
                        let answer = match command {
                            Command::Restore(piece) => {
                                restored = restored.and_then(|()| dataflow.restore(*piece));
                                continue;
                            }
                            Command::Restored => {
                                dataflow.restored();
                                Answer::Restored(std::mem::replace(&mut restored, Ok(())))
                            }
                            Command::Feed(events) => {
                                dataflow.feed(worker, events);
                                continue;
                            }
                            Command::Epoch(events, telling) => {
                                let is_quiet = telling == Telling::Nothing;
                                Answer::Closed(Box::new(dataflow.epoch(worker, events, is_quiet)))
                            }
                            Command::Places => {
                                if outbox.send(Answer::Placed(dataflow.placed())).is_err() {
                                    break;
                                }
                                Answer::Redirects(dataflow.redirects())
                            }
                            Command::Issues => Answer::Issues(dataflow.issues()),
                            Command::Rows => {
                                dataflow.rows(Some(&mut |piece| {
                                    outbox.send(Answer::Rows(Some(Box::new(piece)))).is_ok()
                                }));
                                Answer::Rows(None)
                            }
                            Command::Remember => {
                                dataflow.rows(None);
                                Answer::Rows(None)
                            }
                        };
                        if outbox.send(answer).is_err() {
                            break;
                        }
                    }
                });
            })
            .map_err(|error| EngineError::Spawn(error.to_string()))?;
        Ok(Self { commands, answers, thread: Some(thread) })
    }

    fn tell(&self, command: Command) -> Result<(), EngineError> {
        self.commands.send(command).map_err(|_| EngineError::WorkerEnded)
    }

    fn hear(&self) -> Result<Answer, EngineError> {
        self.answers.recv().map_err(|_| EngineError::WorkerEnded)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Closing the channel ends the thread.
        let (closed, _) = sync_channel(1);
        self.commands = closed;
        if let Some(thread) = self.thread.take() {
            // A worker that ended badly has said so.
            let _ = thread.join();
        }
    }
}
