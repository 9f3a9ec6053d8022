//! What every log store does, whatever it is made of: a law each.
//!
//! [`log_conformance!`](crate::log_conformance!) makes a test of each law for a [`Fixture`]. Laws
//! know the trait alone, and name their own topics, so that they can share a server.

mod appends;
mod publishing;
mod reads;
mod topics;

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serviceradar_log::{Batch, BatchId, Event, LogStore, NewEvent, ReadLimit};
use serviceradar_schemas::time::ManualClock;

pub use self::{appends::*, publishing::*, reads::*, topics::*};

/// A log store under test.
#[async_trait]
pub trait Fixture: Send {
    /// A store that is ready, with nothing of this fixture in it.
    async fn start() -> Self
    where
        Self: Sized;

    /// The store.
    fn store(&self) -> &Arc<dyn LogStore>;

    /// The clock of the append times; `None` where a test cannot set it.
    fn clock(&self) -> Option<&ManualClock>;

    /// Ends whatever holds the events and starts it again; [`Fixture::store`] is ready again
    /// afterwards. A store that ends with its process says here that it has nothing to restart.
    async fn restart(&mut self);
}

/// Makes a test of every law for a [`Fixture`].
#[macro_export]
macro_rules! log_conformance {
    ($fixture:ty) => {
        $crate::log_conformance! { $fixture:
            a_topic_is_there_until_it_is_deleted
            topics_are_found_by_tenant_in_order
            names_and_numbers_that_no_store_takes_are_refused
            what_does_not_exist_is_refused
            events_come_back_as_they_went
            offsets_are_contiguous
            a_read_keeps_its_limits
            offsets_out_of_range_are_refused
            the_last_event_is_found
            append_times_never_fall
            what_is_deleted_is_gone_and_the_rest_stays
            a_batch_appended_again_changes_nothing
            a_batch_sent_many_times_at_once_is_there_once
            a_batch_out_of_sequence_is_refused
            an_empty_batch_takes_its_place_in_the_sequence
            batches_at_every_limit_are_taken
            batches_over_a_limit_leave_no_trace
            concurrent_appends_lose_nothing
            a_waiting_read_wakes_up_on_an_append
            a_read_that_waits_in_vain_returns_nothing
            a_restart_changes_nothing
            a_publisher_keeps_the_events_of_a_key_in_order
            a_publisher_splits_what_is_over_the_limits_of_a_batch
        }
    };
    ($fixture:ty: $($law:ident)+) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $law() {
            let mut fixture = <$fixture as $crate::log_conformance::Fixture>::start().await;
            $crate::log_conformance::$law(&mut fixture).await;
        }
    )+ };
}

/// Longest wait for what must come: only a store that hangs takes so long.
const HANGS: Duration = Duration::from_secs(120);
/// A read that takes all there is, in some pieces, and does not wait.
const ALL: ReadLimit = ReadLimit { events: 10_000, bytes: 4 * 1024 * 1024, wait: Duration::ZERO };

fn new_tenant() -> String {
    format!("t{:016x}", rand::random::<u64>())
}

async fn new_topic(store: &Arc<dyn LogStore>, log_partitions: u32) -> String {
    let topic = format!("{}.observations", new_tenant());
    store.create_topic(&topic, log_partitions).await.unwrap();
    topic
}

fn event(value: impl Into<Bytes>) -> NewEvent {
    NewEvent { value: Some(value.into()), ..NewEvent::default() }
}

/// Names the batches of one producer.
struct Producer(BatchId);

impl Producer {
    fn new() -> Self {
        Self(BatchId { producer: rand::random(), sequence: 0 })
    }

    fn batch(&mut self, events: Vec<NewEvent>) -> Batch {
        let batch = Batch { id: self.0, events };
        self.0.sequence += 1;
        batch
    }

    /// The next batch, of events `from..to`, each with its number as value.
    fn numbers(&mut self, numbers: Range<u64>) -> Batch {
        self.batch(numbers.map(|n| event(n.to_string())).collect())
    }
}

async fn read_from(store: &Arc<dyn LogStore>, topic: &str, log_partition: u32, offset: u64) -> Vec<Event> {
    let end = store.offsets(topic, log_partition).await.unwrap().end;
    let mut events = Vec::new();
    let mut offset = offset;
    while offset < end {
        let read = store.read(topic, log_partition, offset, ALL).await.unwrap();
        assert!(read.next_offset > offset, "a read stands still at {offset} of {end}");
        offset = read.next_offset;
        events.extend(read.events);
    }
    events
}

async fn read_all(store: &Arc<dyn LogStore>, topic: &str, log_partition: u32) -> Vec<Event> {
    let start = store.offsets(topic, log_partition).await.unwrap().start;
    read_from(store, topic, log_partition, start).await
}

fn number(event: &Event) -> u64 {
    std::str::from_utf8(event.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

fn without_place(event: &Event) -> NewEvent {
    NewEvent { key: event.key.clone(), value: event.value.clone(), headers: event.headers.clone() }
}
