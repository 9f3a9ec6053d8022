//! Dead letters, published again to the topic that they came from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use serviceradar_log::{Event, LogError, LogStore, NewEvent, Publisher, ReadLimit};
use serviceradar_materializers::outbox::{REPLAYED_HEADER, REPLAYED_TO_HEADER};
use serviceradar_schemas::{
    codec::{Unavailable, WriterSchemas, registry_id},
    time::Clock,
    topics::Stream,
};

use super::{Letter, LetterId, LettersError, Marks};
use crate::{
    intake::{Intake, LEFT_OUT, Taking},
    reader::{READ_BYTES, READ_WAIT},
    topics::{Partition, READ},
};

/// Which letters are meant.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// These; all, where there are none.
    pub ids: BTreeSet<LetterId>,
    /// Whose reason has these words.
    pub reason: Option<String>,
    /// Of events of this topic.
    pub topic: Option<String>,
}

impl Choice {
    /// Whether a letter is among them.
    pub fn takes(&self, letter: &Letter) -> bool {
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && self.reason.as_ref().is_none_or(|words| letter.reason.contains(&**words))
            && self.topic.as_ref().is_none_or(|topic| letter.id.topic == *topic)
    }
}

/// Says whether a letter would be read now, by the pipeline's own intake.
pub struct Judge {
    writers: Arc<dyn WriterSchemas>,
    /// By topic.
    intakes: BTreeMap<String, Intake>,
}

impl Judge {
    /// By the schemas of this program, and those that `writers` knows.
    pub fn new(writers: Arc<dyn WriterSchemas>) -> Self {
        Self { writers, intakes: BTreeMap::new() }
    }

    /// Asks for the schemas of events before they are judged.
    async fn learn(&self, events: impl Iterator<Item = &NewEvent>) -> Result<(), Unavailable> {
        let ids: BTreeSet<u32> = events.filter_map(|event| registry_id(event.value.as_deref()?)).collect();
        self.writers.learn(&ids).await
    }

    /// Why an event would be refused again, if it came at `now`, microseconds since the Unix epoch.
    pub async fn refusal(
        &mut self,
        id: &LetterId,
        event: &NewEvent,
        now: i64,
    ) -> Result<Option<String>, Unavailable> {
        self.learn(std::iter::once(event)).await?;
        self.judge(id, event, now)
    }

    /// The same, of an event whose schema was asked for.
    fn judge(&mut self, id: &LetterId, event: &NewEvent, now: i64) -> Result<Option<String>, Unavailable> {
        let writers = self.writers.clone();
        let intake = self.intakes.entry(id.topic.clone()).or_insert_with(|| Intake::of(&id.topic, writers));
        let partition = Partition { topic: id.topic.clone(), log_partition: id.log_partition };
        let NewEvent { key, value, headers } = event.clone();
        let event = Event { offset: id.offset, append_time: now, key, value, headers };
        Ok(match intake.take(&partition, event, now, &mut BTreeMap::new())? {
            Taking::Refused(letter) => Some(letter.reason),
            Taking::Sighting(_) | Taking::Decision(_) => None,
        })
    }
}

/// How letters are published again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Nothing is published, and all is said.
    pub dry_run: bool,
    /// Those, too, that would be refused again.
    pub even_unreadable: bool,
    /// Those, too, that were published again before.
    pub again: bool,
}

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was published, and stands there now.
    Replayed(LetterId),
    /// It would be published.
    Readable,
    /// It would be published, and refused again: why.
    Unreadable(String),
    /// It would be refused again, and stays: why.
    Refused(String),
    /// It was published again before, at that time, microseconds since the Unix epoch.
    Before(i64),
    /// It is not of a topic that the tenant's pipeline reads: nobody but the pipeline should write letters.
    Foreign,
    /// The log takes it no more: why.
    TooLarge(String),
}

/// Publishes letters of a tenant again.
pub struct Replay {
    log: Arc<dyn LogStore>,
    clock: Arc<dyn Clock>,
    tenant: String,
    judge: Judge,
    marks: Marks,
    manner: Manner,
    publishers: BTreeMap<String, Publisher>,
}

impl Replay {
    /// With the marks of what was published again before.
    pub fn new(
        log: Arc<dyn LogStore>,
        clock: Arc<dyn Clock>,
        tenant: &str,
        writers: Arc<dyn WriterSchemas>,
        marks: Marks,
        manner: Manner,
    ) -> Self {
        let (tenant, judge, publishers) = (tenant.to_owned(), Judge::new(writers), BTreeMap::new());
        Self { log, clock, tenant, judge, marks, manner, publishers }
    }

    /// Publishes letters again, those of one id once, then their marks. Returns what became of each, in their order.
    pub async fn publish(&mut self, letters: &[Letter]) -> Result<Vec<Outcome>, LettersError> {
        let mut outcomes = Vec::with_capacity(letters.len());
        let mut events = Vec::with_capacity(letters.len());
        for letter in letters {
            events.push(whole(&*self.log, letter).await?);
        }
        self.judge.learn(events.iter()).await?;
        let mut taken: BTreeSet<&LetterId> = BTreeSet::new();
        let mut by_topic: BTreeMap<&str, Vec<(usize, NewEvent)>> = BTreeMap::new();
        for (letter, event) in letters.iter().zip(events) {
            let now = self.clock.now();
            let mut outcome = self.outcome(letter, &event, now)?;
            let is_taken = matches!(outcome, Outcome::Readable | Outcome::Unreadable(_));
            if is_taken && !taken.insert(&letter.id) {
                outcome = Outcome::Before(now);
            } else if is_taken && !self.manner.dry_run {
                by_topic.entry(&letter.id.topic).or_default().push((outcomes.len(), event));
            }
            outcomes.push(outcome);
        }
        for (topic, events) in by_topic {
            let (at, events): (Vec<usize>, Vec<NewEvent>) = events.into_iter().unzip();
            let places = self.publisher(topic).publish(events).await?;
            for (at, (log_partition, offset)) in at.into_iter().zip(places) {
                if let Some(outcome) = outcomes.get_mut(at) {
                    *outcome = Outcome::Replayed(LetterId { topic: topic.to_owned(), log_partition, offset });
                }
            }
        }
        self.mark(letters, &outcomes).await?;
        Ok(outcomes)
    }

    fn outcome(&mut self, letter: &Letter, event: &NewEvent, now: i64) -> Result<Outcome, LettersError> {
        if !READ.iter().any(|stream| stream.topic(&self.tenant) == letter.id.topic) {
            return Ok(Outcome::Foreign);
        }
        if let Some(at) = self.marks.of(letter).filter(|_| !self.manner.again) {
            return Ok(Outcome::Before(at));
        }
        if let Err(error) = event.check() {
            return Ok(Outcome::TooLarge(error.to_string()));
        }
        Ok(match self.judge.judge(&letter.id, event, now)? {
            None => Outcome::Readable,
            Some(why) if self.manner.even_unreadable => Outcome::Unreadable(why),
            Some(why) => Outcome::Refused(why),
        })
    }

    /// Marks what was published.
    async fn mark(&mut self, letters: &[Letter], outcomes: &[Outcome]) -> Result<(), LettersError> {
        let now = self.clock.now();
        let mut marks = Vec::new();
        for (letter, outcome) in letters.iter().zip(outcomes) {
            let Outcome::Replayed(to) = outcome else { continue };
            marks.push(mark(&letter.id, to));
            // The log's clock has the say in the mark itself; here it is enough that it is no older than the letter.
            self.marks.put(letter.id.clone(), now.max(letter.at))?;
        }
        if !marks.is_empty() {
            let topic = Stream::DeadLetters.topic(&self.tenant);
            self.publisher(&topic).publish(marks).await?;
        }
        Ok(())
    }

    fn publisher(&mut self, topic: &str) -> &Publisher {
        let log = self.log.clone();
        self.publishers.entry(topic.to_owned()).or_insert_with(|| Publisher::new(log, topic))
    }
}

fn mark(of: &LetterId, to: &LetterId) -> NewEvent {
    let header = |name: &str, id: &LetterId| (name.to_owned(), Bytes::from(id.to_string()));
    NewEvent {
        headers: vec![header(REPLAYED_HEADER, of), header(REPLAYED_TO_HEADER, to)],
        ..NewEvent::default()
    }
}

/// The event of a letter. What was left out of the letter, for it to be within the log's limit, is taken from where the
/// event itself stands, as long as it does.
pub async fn whole(log: &dyn LogStore, letter: &Letter) -> Result<NewEvent, LettersError> {
    let Letter { id, key, value, headers, .. } = letter;
    let known = NewEvent { key: key.clone(), value: value.clone(), headers: headers.clone() };
    if !letter.reason.ends_with(LEFT_OUT) {
        return Ok(known);
    }
    let limit = ReadLimit { events: 1, bytes: READ_BYTES, wait: READ_WAIT };
    let read = match log.read(&id.topic, id.log_partition, id.offset, limit).await {
        Ok(read) => read,
        Err(
            LogError::UnknownTopic(_) | LogError::UnknownLogPartition { .. } | LogError::OutOfRange { .. },
        ) => {
            return Ok(known);
        }
        Err(error) => return Err(error.into()),
    };
    // Of a topic that was made anew it would be another.
    let is_it = |event: &Event| {
        event.offset == id.offset
            && event.append_time <= letter.at
            && (key.is_none() || event.key == *key)
            && (value.is_none() || event.value == *value)
    };
    let found = read.events.into_iter().next().filter(is_it);
    Ok(found.map_or(known, |event| NewEvent { key: event.key, value: event.value, headers: event.headers }))
}
