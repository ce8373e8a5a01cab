//! Doing a producer's command once, however often it is sent; and the ids that mark a message as sent before.

use crate::command::ProducerSequence;
use crate::key::{self, Timer, TimerKind};
use crate::limits::{
    COPIES_MAX, DEDUPE_ENTRIES_MAX, DEDUPE_WINDOW_MS_DEFAULT, PRODUCER_IDLE_MS, PRODUCER_WINDOW, TARGETS_MAX,
};
use crate::machine::Step;
use crate::record::{
    self, CopyRecord, DedupeRecord, ForgetRecord, OutcomeRecord, ProducerRecord, RefusalKind, RefusalRecord,
    ResultRecord,
};
use crate::reply::{PublishResult, Refusal, Reply, RoutedCopy};
use crate::store::{Store, StoreError, Table};

/// What a publishing command comes to.
pub(crate) type Outcome = Result<Vec<PublishResult>, Refusal>;

impl<S: Store> Step<'_, S> {
    /// Does the work if this command of the producer was not done before; otherwise repeats the answer.
    pub fn once(
        &mut self,
        producer: Option<ProducerSequence>,
        work: impl FnOnce(&mut Self) -> Result<Outcome, StoreError>,
    ) -> Result<Reply, StoreError> {
        let Some(producer) = producer else { return Ok(reply_of(work(self)?, false)) };
        let row = self.read_producer(&producer.producer_id)?;
        let last_sequence = row.as_ref().map_or(0, |row| row.last_sequence);
        if producer.sequence <= last_sequence {
            return self.repeat_outcome(&producer, last_sequence);
        }
        if producer.sequence != last_sequence + 1 {
            return Ok(Reply::Refused(Refusal::SequenceGap {
                producer_id: producer.producer_id,
                expected: last_sequence + 1,
                got: producer.sequence,
            }));
        }
        let outcome = work(self)?;
        self.remember_outcome(producer, row, &outcome);
        Ok(reply_of(outcome, false))
    }

    fn read_producer(&self, producer_id: &str) -> Result<Option<ProducerRecord>, StoreError> {
        if let Some(row) = self.machine.changed_producers.get(producer_id) {
            return Ok(Some(*row));
        }
        match self.store.get(Table::Producers, producer_id.as_bytes())? {
            Some(value) => record::decode(Table::Producers, value).map(Some),
            None => Ok(None),
        }
    }

    fn repeat_outcome(&self, producer: &ProducerSequence, last_sequence: u64) -> Result<Reply, StoreError> {
        let outcome_key = key::outcome(&producer.producer_id, producer.sequence);
        match self.store.get(Table::Outcomes, &outcome_key)? {
            Some(value) => Ok(reply_of(outcome_of(record::decode(Table::Outcomes, value)?), true)),
            None => Ok(Reply::Refused(Refusal::SequenceTooOld {
                producer_id: producer.producer_id.clone(),
                oldest: last_sequence.saturating_add(1).saturating_sub(PRODUCER_WINDOW).max(1),
                got: producer.sequence,
            })),
        }
    }

    /// A refused command takes its number as well: those behind it are on their way already.
    fn remember_outcome(&mut self, producer: ProducerSequence, before: Option<ProducerRecord>, outcome: &Outcome) {
        let number = match before {
            Some(row) => row.number,
            None => self.meet_producer(&producer.producer_id),
        };
        let outcome_key = key::outcome(&producer.producer_id, producer.sequence);
        self.store.insert(Table::Outcomes, &outcome_key, record::encode(&record_of(outcome)));
        if let Some(forgotten) = producer.sequence.checked_sub(PRODUCER_WINDOW).filter(|sequence| *sequence > 0) {
            self.store.delete(Table::Outcomes, &key::outcome(&producer.producer_id, forgotten));
        }
        let row = ProducerRecord { last_sequence: producer.sequence, last_seen_ms: self.now_ms(), number };
        self.machine.changed_producers.insert(producer.producer_id, row);
    }

    /// Gives a producer its number, and the timer that will ask whether it is still there.
    pub fn meet_producer(&mut self, producer_id: &str) -> u64 {
        self.machine.meta.last_producer += 1;
        let number = self.machine.meta.last_producer;
        self.arm_producer(producer_id, number, self.now_ms());
        number
    }

    fn arm_producer(&mut self, producer_id: &str, number: u64, last_seen_ms: u64) {
        let at_ms = last_seen_ms.saturating_add(PRODUCER_IDLE_MS);
        let timer = Timer { at_ms, kind: TimerKind::Producer, queue: 0, sequence: number };
        self.put_timer(timer, record::encode(&ForgetRecord { name: producer_id.to_owned() }));
    }

    /// Forgets a producer that was not heard of for long; otherwise its timer asks again later.
    pub fn fire_producer(&mut self, forget: &ForgetRecord) -> Result<(), StoreError> {
        let producer_id = forget.name.as_str();
        let Some(row) = self.read_producer(producer_id)? else { return Ok(()) };
        if row.last_seen_ms.saturating_add(PRODUCER_IDLE_MS) > self.now_ms() {
            self.arm_producer(producer_id, row.number, row.last_seen_ms);
            return Ok(());
        }
        self.store.delete(Table::Producers, producer_id.as_bytes());
        let oldest = row.last_sequence.saturating_add(1).saturating_sub(PRODUCER_WINDOW).max(1);
        for sequence in oldest..=row.last_sequence {
            self.store.delete(Table::Outcomes, &key::outcome(producer_id, sequence));
        }
        Ok(())
    }

    /// The message that came to the queue with this id, if it is remembered.
    pub fn find_duplicate(&self, queue_id: u64, dedupe_id: &str) -> Result<Option<u64>, StoreError> {
        let row = self.read_dedupe(queue_id, dedupe_id)?;
        Ok(row.filter(|row| row.until_ms > self.now_ms()).map(|row| row.sequence))
    }

    fn read_dedupe(&self, queue_id: u64, dedupe_id: &str) -> Result<Option<DedupeRecord>, StoreError> {
        if dedupe_id.is_empty() {
            return Ok(None);
        }
        match self.store.get(Table::Dedupe, &key::dedupe(queue_id, dedupe_id))? {
            Some(value) => record::decode(Table::Dedupe, value).map(Some),
            None => Ok(None),
        }
    }

    /// True if the queue can remember one more id.
    pub fn has_dedupe_room(&self, queue_id: u64, dedupe_id: &str) -> bool {
        let entries = self.machine.queues.get(&queue_id).map_or(0, |queue| queue.dedupe_entries);
        dedupe_id.is_empty() || entries < DEDUPE_ENTRIES_MAX
    }

    pub fn remember_dedupe_id(&mut self, queue_id: u64, dedupe_id: &str, sequence: u64) -> Result<(), StoreError> {
        if dedupe_id.is_empty() {
            return Ok(());
        }
        // One whose time is over may still be there: its timer finds another message in its place.
        let is_new = self.read_dedupe(queue_id, dedupe_id)?.is_none();
        let now_ms = self.now_ms();
        let queue = self.queue(queue_id);
        let window_ms = match queue.settings.dedupe_window_ms {
            0 => DEDUPE_WINDOW_MS_DEFAULT,
            window_ms => window_ms,
        };
        queue.dedupe_entries += u64::from(is_new);
        let row = DedupeRecord { sequence, until_ms: now_ms.saturating_add(window_ms) };
        self.store.put(Table::Dedupe, &key::dedupe(queue_id, dedupe_id), record::encode(&row));
        let timer = Timer { at_ms: row.until_ms, kind: TimerKind::Dedupe, queue: queue_id, sequence };
        self.put_timer(timer, record::encode(&ForgetRecord { name: dedupe_id.to_owned() }));
        Ok(())
    }

    /// Forgets a `dedupe_id` whose window is over.
    pub fn fire_dedupe(&mut self, timer: Timer, forget: &ForgetRecord) -> Result<(), StoreError> {
        let row = self.read_dedupe(timer.queue, &forget.name)?;
        if row.is_none_or(|row| row.sequence != timer.sequence) {
            return Ok(());
        }
        self.store.delete(Table::Dedupe, &key::dedupe(timer.queue, &forget.name));
        if let Some(queue) = self.machine.changing(timer.queue) {
            queue.dedupe_entries -= 1;
        }
        Ok(())
    }
}

fn reply_of(outcome: Outcome, duplicate: bool) -> Reply {
    match outcome {
        Ok(results) => Reply::Published { results, duplicate },
        Err(refusal) => Reply::Refused(refusal),
    }
}

fn record_of(outcome: &Outcome) -> OutcomeRecord {
    let results = match outcome {
        Ok(results) => results,
        Err(Refusal::QueueNotFound { queue }) => {
            return OutcomeRecord { queue_not_found: Some(queue.clone()), ..OutcomeRecord::default() };
        }
        Err(refusal) => return OutcomeRecord { refusal: Some(refusal_record(refusal)), ..OutcomeRecord::default() },
    };
    let mut sequences = Vec::with_capacity(results.len());
    for result in results {
        let PublishResult::Stored { sequence } = result else {
            return OutcomeRecord { results: results.iter().map(result_record).collect(), ..OutcomeRecord::default() };
        };
        sequences.push(*sequence);
    }
    OutcomeRecord { sequences, ..OutcomeRecord::default() }
}

fn result_record(result: &PublishResult) -> ResultRecord {
    match result {
        PublishResult::Stored { sequence } => ResultRecord { sequence: *sequence, ..ResultRecord::default() },
        PublishResult::Routed(copies) => {
            let copies = copies.iter().map(|copy| CopyRecord {
                queue: copy.queue.clone(),
                sequence: copy.sequence,
                duplicate: copy.duplicate,
            });
            ResultRecord { copies: copies.collect(), ..ResultRecord::default() }
        }
        PublishResult::Unroutable => ResultRecord::default(),
        PublishResult::Rejected { queue } => {
            ResultRecord { rejected_by: Some(queue.clone()), ..ResultRecord::default() }
        }
    }
}

fn refusal_record(refusal: &Refusal) -> RefusalRecord {
    let (kind, name, routing_key, number) = match refusal {
        Refusal::ExchangeNotFound { exchange } => (RefusalKind::ExchangeNotFound, exchange.clone(), "", 0),
        Refusal::Unroutable { exchange, routing_key } => {
            (RefusalKind::Unroutable, exchange.clone(), routing_key.as_str(), 0)
        }
        Refusal::QueueFull { queue } => (RefusalKind::QueueFull, queue.clone(), "", 0),
        Refusal::LeaseLost { queue, sequence } => (RefusalKind::LeaseLost, queue.clone(), "", *sequence),
        Refusal::TooManyCopies { copies, .. } => (RefusalKind::TooManyCopies, String::new(), "", *copies as u64),
        // Publishing is refused for no other reason.
        _ => (RefusalKind::TooManyTargets, String::new(), "", 0),
    };
    RefusalRecord { kind: kind.into(), name, routing_key: routing_key.to_owned(), number }
}

fn outcome_of(row: OutcomeRecord) -> Outcome {
    if let Some(queue) = row.queue_not_found {
        return Err(Refusal::QueueNotFound { queue });
    }
    if let Some(refusal) = row.refusal {
        return Err(refusal_of(refusal));
    }
    if row.results.is_empty() {
        return Ok(row.sequences.into_iter().map(|sequence| PublishResult::Stored { sequence }).collect());
    }
    Ok(row.results.into_iter().map(result_of).collect())
}

fn result_of(row: ResultRecord) -> PublishResult {
    if row.sequence != 0 {
        return PublishResult::Stored { sequence: row.sequence };
    }
    if let Some(queue) = row.rejected_by {
        return PublishResult::Rejected { queue };
    }
    if row.copies.is_empty() {
        return PublishResult::Unroutable;
    }
    let copies = row.copies.into_iter().map(|copy| RoutedCopy {
        queue: copy.queue,
        sequence: copy.sequence,
        duplicate: copy.duplicate,
    });
    PublishResult::Routed(copies.collect())
}

fn refusal_of(row: RefusalRecord) -> Refusal {
    match row.kind() {
        RefusalKind::ExchangeNotFound => Refusal::ExchangeNotFound { exchange: row.name },
        RefusalKind::Unroutable => Refusal::Unroutable { exchange: row.name, routing_key: row.routing_key },
        RefusalKind::TooManyTargets => Refusal::TooManyTargets { limit: TARGETS_MAX },
        RefusalKind::TooManyCopies => {
            let copies = usize::try_from(row.number).unwrap_or(usize::MAX);
            Refusal::TooManyCopies { copies, limit: COPIES_MAX }
        }
        RefusalKind::QueueFull => Refusal::QueueFull { queue: row.name },
        RefusalKind::LeaseLost => Refusal::LeaseLost { queue: row.name, sequence: row.number },
    }
}
