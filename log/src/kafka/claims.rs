//! Topics that one process has for itself: its appends go through a transactional producer, whose id is the topic. Whoever
//! claims it next ends what is under way there, and the cluster takes nothing more from the one before: not from a
//! process, either, that was stopped in the middle of an append and goes on an hour later.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    producer::{FutureProducer, Producer as _},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

use super::{
    Context,
    appends::{APPEND_WITHIN, send},
    broke_off, unavailable,
};
use crate::{
    sequence::{self, Last},
    store::{Appended, Batch, LogError},
};

/// How long the cluster may take to end what the one before had under way.
const CLAIM_WITHIN: Duration = Duration::from_secs(10);
/// How long a transaction may stay open; also how long its events may take to be delivered, milliseconds.
const TRANSACTION_MS: u32 = 30_000;
/// How long the end of a transaction may take.
const END_WITHIN: Duration = Duration::from_secs(30);
/// How long a batch waits for those of the other log partitions: they are published together, and become one
/// transaction.
const GATHER: Duration = Duration::from_millis(2);
/// Batches that wait for the transaction under way: of a few log partitions, one each.
const WAITING: usize = 256;

/// The topics that this process has claimed.
pub(super) struct Claims {
    config: ClientConfig,
    context: Context,
    claimed: Mutex<BTreeMap<String, mpsc::Sender<Waiting>>>,
}

struct Waiting {
    log_partition: u32,
    batch: Batch,
    reply: oneshot::Sender<Result<Appended, LogError>>,
}

impl Claims {
    pub(super) fn new(mut config: ClientConfig, context: Context) -> Self {
        config
            .set("transaction.timeout.ms", TRANSACTION_MS.to_string())
            .set("message.timeout.ms", TRANSACTION_MS.to_string());
        Self { config, context, claimed: Mutex::default() }
    }

    fn claimed(&self) -> MutexGuard<'_, BTreeMap<String, mpsc::Sender<Waiting>>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a topic, again where it was claimed before.
    pub(super) async fn claim(&self, topic: &str) -> Result<(), LogError> {
        let mut config = self.config.clone();
        config.set("transactional.id", topic);
        let context = self.context.clone();
        let made = spawn_blocking(move || {
            let producer: FutureProducer<Context> = config.create_with_context(context)?;
            producer.init_transactions(CLAIM_WITHIN)?;
            Ok::<_, KafkaError>(producer)
        });
        let producer = made.await.map_err(broke_off)?.map_err(unavailable)?;
        let (queue, waiting) = mpsc::channel(WAITING);
        let claim = Claim { topic: topic.to_owned(), producer: Arc::new(producer), last: BTreeMap::new() };
        tokio::spawn(claim.run(waiting));
        self.claimed().insert(topic.to_owned(), queue);
        Ok(())
    }

    /// Appends a batch to a topic that was claimed; where it was not, gives it back.
    pub(super) async fn append(
        &self,
        topic: &str,
        log_partition: u32,
        batch: Batch,
    ) -> Result<Result<Appended, LogError>, Batch> {
        let Some(queue) = self.claimed().get(topic).cloned() else {
            return Err(batch);
        };
        let lost = || LogError::Fenced(topic.to_owned());
        let (reply, answer) = oneshot::channel();
        let appended = async {
            queue.send(Waiting { log_partition, batch, reply }).await.map_err(|_| lost())?;
            answer.await.map_err(|_| lost())?
        };
        let late = |_| LogError::Unavailable(format!("the cluster did not take a batch for {topic}"));
        Ok(tokio::time::timeout(APPEND_WITHIN, appended).await.map_err(late).flatten())
    }
}

/// A topic that was claimed, as long as nobody else claims it.
struct Claim {
    topic: String,
    producer: Arc<FutureProducer<Context>>,
    /// What was appended last, by log partition and producer.
    last: BTreeMap<u32, BTreeMap<u64, Last>>,
}

impl Claim {
    /// Puts what waits at the same time into one transaction, until it is fenced: then all that waits, and comes, is
    /// refused.
    async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>) {
        while let Some(first) = waiting.recv().await {
            tokio::time::sleep(GATHER).await;
            let mut group = vec![first];
            while let Ok(next) = waiting.try_recv() {
                group.push(next);
            }
            let new = self.answer_known(group);
            let ended = self.transact(&new).await;
            let is_over = matches!(ended, Err(LogError::Fenced(_)));
            for (at, of) in new.into_iter().enumerate() {
                let appended = ended.clone().map(|all| all.get(at).copied().unwrap_or(NOWHERE));
                if let Ok(appended) = appended {
                    let last = Last { sequence: of.batch.id.sequence, appended };
                    let producers = self.last.entry(of.log_partition).or_default();
                    sequence::remember(producers, of.batch.id.producer, last);
                }
                // Whoever stopped waiting finds out by asking again.
                let _ = of.reply.send(appended);
            }
            if is_over {
                return;
            }
        }
    }

    /// Answers what was appended before, or is out of sequence; returns the others.
    fn answer_known(&self, group: Vec<Waiting>) -> Vec<Waiting> {
        let mut new = Vec::with_capacity(group.len());
        for of in group {
            let producers = self.last.get(&of.log_partition);
            let last = producers.and_then(|producers| producers.get(&of.batch.id.producer)).copied();
            match sequence::judge(last, of.batch.id) {
                Ok(None) => new.push(of),
                Ok(Some(appended)) => drop(of.reply.send(Ok(appended))),
                Err(error) => drop(of.reply.send(Err(error))),
            }
        }
        new
    }

    /// Appends batches, all or none. Where that cannot be told, or another has the topic, it is [`LogError::Fenced`].
    async fn transact(&self, group: &[Waiting]) -> Result<Vec<Appended>, LogError> {
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let fenced = |why: KafkaError| {
            tracing::warn!(topic = self.topic, %why, "the topic is no longer this process's own");
            LogError::Fenced(self.topic.clone())
        };
        self.producer.begin_transaction().map_err(fenced)?;
        let places: Vec<_> = group.iter().map(|of| (self.topic.clone(), of.log_partition)).collect();
        let sends =
            group.iter().zip(&places).map(|(of, place)| send(&self.producer, place, &of.batch.events));
        let sent: Result<Vec<_>, _> = join_all(sends).await.into_iter().collect();
        let (producer, is_sent) = (self.producer.clone(), sent.is_ok());
        let ending = spawn_blocking(move || {
            let committed = if is_sent { producer.commit_transaction(END_WITHIN) } else { Ok(()) };
            match committed {
                Ok(()) if is_sent => Ok(Ok(())),
                // Nothing of it is there; the next one may be.
                Err(KafkaError::Transaction(why)) if why.txn_requires_abort() => {
                    producer.abort_transaction(END_WITHIN)?;
                    Ok(Err(unavailable(KafkaError::Transaction(why))))
                }
                Err(why) => Err(why),
                Ok(()) => producer.abort_transaction(END_WITHIN).map(Ok),
            }
        });
        ending.await.map_err(broke_off)?.map_err(fenced)??;
        Ok(sent?.into_iter().map(|appended| appended.unwrap_or(NOWHERE)).collect())
    }
}

/// Where an empty batch went.
const NOWHERE: Appended = Appended { first_offset: 0, append_time: 0 };
