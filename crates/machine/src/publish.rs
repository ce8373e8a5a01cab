//! Storing messages, and remembering for each producer what it was answered.

use std::sync::Arc;

use crate::command::{ProducerSequence, Publish, PublishMessage};
use crate::key;
use crate::limits::PRODUCER_WINDOW;
use crate::machine::Step;
use crate::record::{self, MessageRecord, OutcomeRecord, ProducerRecord, Ticket};
use crate::reply::{Refusal, Reply};
use crate::store::{Store, StoreError, Table};

impl<S: Store> Step<'_, S> {
    pub fn publish(&mut self, command: Publish) -> Result<Reply, StoreError> {
        let Some(producer) = &command.producer else {
            return Ok(reply_of(self.store_messages(command.messages)?, false));
        };
        let last_sequence = self.last_sequence_of(producer)?;
        if producer.sequence <= last_sequence {
            return self.repeat_outcome(producer, last_sequence);
        }
        if producer.sequence != last_sequence + 1 {
            return Ok(Reply::Refused(Refusal::SequenceGap {
                producer_id: producer.producer_id.clone(),
                expected: last_sequence + 1,
                got: producer.sequence,
            }));
        }
        let outcome = self.store_messages(command.messages)?;
        self.remember_outcome(producer, &outcome);
        Ok(reply_of(outcome, false))
    }

    /// Stores all messages, or none if a queue is missing.
    fn store_messages(&mut self, messages: Vec<PublishMessage>) -> Result<OutcomeRecord, StoreError> {
        let missing = messages.iter().find(|message| !self.machine.queue_names.contains_key(&message.queue));
        if let Some(missing) = missing {
            return Ok(OutcomeRecord { sequences: Vec::new(), queue_not_found: Some(missing.queue.clone()) });
        }
        let mut outcome = OutcomeRecord { sequences: Vec::with_capacity(messages.len()), queue_not_found: None };
        for message in messages {
            outcome.sequences.push(self.store_message(message)?);
        }
        Ok(outcome)
    }

    fn store_message(&mut self, message: PublishMessage) -> Result<u64, StoreError> {
        let now_ms = self.now_ms();
        self.machine.meta.last_sequence += 1;
        let sequence = self.machine.meta.last_sequence;
        // The caller has looked all names up, and nothing is deleted in between.
        let Some(queue_id) = self.machine.queue_names.get(&message.queue).copied() else { return Ok(sequence) };

        let ready_at_ms = match message.deliver_at_ms {
            0 => now_ms.saturating_add(message.delay_ms),
            deliver_at_ms => deliver_at_ms.max(now_ms),
        };
        let by_age = if message.ttl_ms == 0 { 0 } else { ready_at_ms.saturating_add(message.ttl_ms) };
        let expires_at_ms = match (by_age, message.expire_at_ms) {
            (0, other) | (other, 0) => other,
            (by_age, by_date) => by_age.min(by_date),
        };
        let ticket = Ticket {
            priority: message.priority.min(u8::MAX.into()),
            delivery_count: 0,
            expires_at_ms,
            bytes: message.content.body.len() as u64,
            moved: false,
        };
        let queue = self.queue(queue_id);
        queue.totals.published += 1;
        if ticket.is_expired(now_ms) {
            queue.totals.expired += 1;
            return Ok(sequence);
        }
        queue.counts.bytes += ticket.bytes;
        let record = MessageRecord {
            content: message.content,
            priority: ticket.priority,
            published_at_ms: now_ms,
            ready_at_ms,
            expires_at_ms,
        };
        self.store.put(Table::Messages, &key::message(queue_id, sequence), record::encode(&record));
        let position = key::Position { ready_at_ms, sequence };
        if ready_at_ms > now_ms {
            self.schedule(queue_id, position, ticket);
        } else {
            self.arm_expiry(queue_id, position, ticket);
            self.admit(queue_id, position, ticket, Some(Arc::new(record)))?;
        }
        Ok(sequence)
    }

    fn last_sequence_of(&self, producer: &ProducerSequence) -> Result<u64, StoreError> {
        match self.store.get(Table::Producers, producer.producer_id.as_bytes())? {
            Some(value) => Ok(record::decode::<ProducerRecord>(Table::Producers, value)?.last_sequence),
            None => Ok(0),
        }
    }

    fn repeat_outcome(&self, producer: &ProducerSequence, last_sequence: u64) -> Result<Reply, StoreError> {
        let outcome_key = key::outcome(&producer.producer_id, producer.sequence);
        match self.store.get(Table::Outcomes, &outcome_key)? {
            Some(value) => Ok(reply_of(record::decode(Table::Outcomes, value)?, true)),
            None => Ok(Reply::Refused(Refusal::SequenceTooOld {
                producer_id: producer.producer_id.clone(),
                oldest: (last_sequence + 1).saturating_sub(PRODUCER_WINDOW).max(1),
                got: producer.sequence,
            })),
        }
    }

    /// A refused command takes its number as well: those behind it are on their way already.
    fn remember_outcome(&mut self, producer: &ProducerSequence, outcome: &OutcomeRecord) {
        let record = ProducerRecord { last_sequence: producer.sequence, last_seen_ms: self.now_ms() };
        self.store.put(Table::Producers, producer.producer_id.as_bytes(), record::encode(&record));
        let outcome_key = key::outcome(&producer.producer_id, producer.sequence);
        self.store.put(Table::Outcomes, &outcome_key, record::encode(outcome));
        if let Some(forgotten) = producer.sequence.checked_sub(PRODUCER_WINDOW).filter(|sequence| *sequence > 0) {
            self.store.delete(Table::Outcomes, &key::outcome(&producer.producer_id, forgotten));
        }
    }
}

fn reply_of(outcome: OutcomeRecord, duplicate: bool) -> Reply {
    match outcome.queue_not_found {
        Some(queue) => Reply::Refused(Refusal::QueueNotFound { queue }),
        None => Reply::Published { sequences: outcome.sequences, duplicate },
    }
}
