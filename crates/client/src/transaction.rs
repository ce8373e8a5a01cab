//! Consume, work, publish: in one step.

use std::collections::BTreeMap;
use std::time::Duration;

use dwell_proto::v1;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::call::Policy;
use crate::client::{Client, messages};
use crate::delivery::Delivery;
use crate::error::Error;
use crate::message::PublishMessage;
use crate::options::random_id;
use crate::published::{PublishOutcome, Published, all_stored};
use crate::trace;

/// A producer that is not used for so long is not used again: the server forgets it after 24 h.
const PRODUCER_IDLE_MAX: Duration = Duration::from_secs(12 * 60 * 60);
/// Producers that are kept for the next transactions.
const PRODUCERS_MAX: usize = 64;

/// Deliveries to acknowledge and messages to publish: all of them or none.
#[derive(Debug, Clone, Default)]
#[must_use = "it is done by Client::transact"]
pub struct Transaction {
    /// By queue.
    acks: BTreeMap<String, Vec<v1::Lease>>,
    messages: Vec<v1::PublishMessage>,
}

impl Transaction {
    /// Nothing so far.
    pub fn new() -> Transaction {
        Transaction::default()
    }

    /// Acknowledges this delivery with the rest. It is to be kept until the transaction is done. At most 10000, of 100
    /// queues.
    pub fn ack(mut self, delivery: &Delivery) -> Transaction {
        self.acks.entry(delivery.handle.queue.clone()).or_default().push(delivery.lease());
        self
    }

    /// Publishes this message with the rest, as a mandatory one: if it reaches no queue, nothing is done. At most 1000.
    pub fn publish(mut self, message: PublishMessage) -> Transaction {
        let mut message = message.mandatory().into_proto();
        if let Some(headers) = trace::Headers::current() {
            headers.put_on(&mut message);
        }
        self.messages.push(message);
        self
    }

    fn into_request(self, producer: v1::ProducerSequence) -> v1::TransactRequest {
        let acks = self.acks.into_iter().map(|(queue, leases)| v1::QueueLeases { queue, leases });
        v1::TransactRequest {
            namespace: String::new(),
            acks: acks.collect(),
            messages: self.messages,
            producer: Some(producer),
        }
    }
}

impl Client {
    /// Acknowledges deliveries and publishes messages, or does nothing of it: one result for each message, in order.
    /// A transaction whose answer is lost is repeated, and done once.
    ///
    /// Errors, with nothing done: [`Error::FailedPrecondition`] if a lease is not held any more, is named twice, or a
    /// message reaches no queue; [`Error::NotFound`]; [`Error::ResourceExhausted`] if a queue that rejects when it is
    /// full has no room; [`Error::InvalidArgument`]; [`Error::Unavailable`]. [`Error::Timeout`]: it may be done.
    pub async fn transact(&self, transaction: Transaction) -> Result<Vec<Published>, Error> {
        let mut producer = self.transactors.take(Instant::now());
        producer.sequence += 1;
        let request = transaction.into_request(producer.clone());
        // A full queue may stay so for long.
        let policy = Policy { wait_when_exhausted: false, ..Policy::WRITE };
        let outcome = self.core.call(policy, |channel| {
            let request = request.clone();
            async move { messages(channel).transact(request).await }
        });
        let results = outcome.await.result?.results;
        // After anything but success it is not certain whether the number is used.
        self.transactors.give_back(producer, Instant::now());
        all_stored(results.into_iter().map(PublishOutcome::from).collect())
    }
}

/// Producers of a client's transactions. Each numbers its own, one after the other, so that there are as many as
/// transactions are under way at a time.
#[derive(Debug, Default)]
pub(crate) struct Transactors {
    idle: Mutex<Vec<(v1::ProducerSequence, Instant)>>,
}

impl Transactors {
    /// The producer with its last sequence.
    fn take(&self, now: Instant) -> v1::ProducerSequence {
        let mut idle = self.idle.lock();
        // The one used last is at the end.
        match idle.pop() {
            Some((producer, since)) if now.duration_since(since) < PRODUCER_IDLE_MAX => producer,
            Some(_) => {
                idle.clear();
                v1::ProducerSequence { producer_id: random_id(), sequence: 0 }
            }
            None => v1::ProducerSequence { producer_id: random_id(), sequence: 0 },
        }
    }

    fn give_back(&self, producer: v1::ProducerSequence, now: Instant) {
        let mut idle = self.idle.lock();
        if idle.len() < PRODUCERS_MAX {
            idle.push((producer, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_transactions_have_a_producer_each_and_later_ones_use_them_again() {
        let transactors = Transactors::default();
        let now = Instant::now();
        let (mut first, second) = (transactors.take(now), transactors.take(now));
        assert_ne!(first.producer_id, second.producer_id);
        first.sequence = 1;
        transactors.give_back(first.clone(), now);
        assert_eq!(transactors.take(now), first);
        transactors.give_back(second, now);
        transactors.give_back(first.clone(), now);
        let later = transactors.take(now + PRODUCER_IDLE_MAX);
        assert_eq!(later.sequence, 0, "the server may have forgotten the others");
        assert!(transactors.idle.lock().is_empty());
    }

    #[test]
    fn messages_of_a_transaction_must_reach_a_queue() {
        let transaction = Transaction::new().publish(PublishMessage::new("q", "body"));
        let request = transaction.into_request(v1::ProducerSequence::default());
        assert!(request.messages[0].mandatory);
    }
}
