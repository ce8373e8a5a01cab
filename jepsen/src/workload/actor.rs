//! One process: its client, its chance, and its place in the history.

use std::future::Future;
use std::time::Duration;

use bytes::{Buf, Bytes};
use dwell_client::{Client, Delivery, Error, PublishMessage, PublishOutcome, Publisher, Target, Transaction};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::timeout;

use crate::history::{
    Answer, Call, Delivered, Lease, Publication, Recorder, Revised, Revision, Settlement, Stored, StoredCopy,
};

/// By it, messages are recalled together.
pub(super) const BATCH_HEADER: &str = "batch";
/// The client gives up before it.
const PATIENCE: Duration = Duration::from_secs(40);

/// A process of the workload.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    pub(super) process: u32,
    /// Of the whole workload.
    pub(super) seed: u64,
    pub(super) random: StdRng,
    messages: u64,
}

impl Actor {
    pub(super) fn new(client: Client, recorder: Recorder, process: u32, seed: u64, random: StdRng) -> Actor {
        Actor { client, recorder, process, seed, random, messages: 0 }
    }

    /// One that does something beside this one.
    pub(super) fn branch(&mut self) -> Actor {
        let random = StdRng::seed_from_u64(self.random.random());
        // Its messages are numbered apart.
        self.messages += 1 << 8;
        Actor {
            client: self.client.clone(),
            recorder: self.recorder.clone(),
            process: self.process,
            seed: self.seed,
            random,
            messages: self.messages - (1 << 8),
        }
    }

    /// A number that no other message has.
    pub(super) fn next_message(&mut self) -> u64 {
        self.messages += 1;
        (u64::from(self.process) + 1) << 40 | self.messages
    }

    pub(super) fn one_in(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    pub(super) fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from..=to))
    }

    /// How long to wait for an answer: mostly until the client gives up, sometimes so short that outcomes stay unknown.
    pub(super) fn patience(&mut self) -> Duration {
        if self.one_in(8) { self.milliseconds(2, 120) } else { PATIENCE }
    }

    /// Publishes in one request, and says where the messages are stored.
    pub(super) async fn publish(
        &self,
        publisher: &Publisher,
        producer: Option<(String, u64)>,
        messages: Vec<Publication>,
        patience: Duration,
    ) -> Vec<Stored> {
        let envelopes = messages.iter().map(envelope).collect();
        let call = Call::Publish { producer, messages };
        let publishing = async { publisher.publish(envelopes).await?.outcomes().await };
        let outcomes = self
            .perform(call, patience, publishing, |outcomes| Answer::Published(outcomes.iter().map(stored).collect()));
        outcomes.await.map(|outcomes| outcomes.iter().map(stored).collect()).unwrap_or_default()
    }

    /// Settles one delivery. True if it is certain that it was done.
    pub(super) async fn settle(&self, delivery: &Delivery, settlement: Settlement, patience: Duration) -> bool {
        let settling = async {
            match settlement {
                Settlement::Ack => delivery.ack().await,
                Settlement::Nack { delay_ms } => delivery.nack(delay_ms.map(Duration::from_millis)).await,
                Settlement::Reject => delivery.reject().await,
                Settlement::Extend { timeout_ms } => delivery.extend(Duration::from_millis(timeout_ms)).await,
            }
        };
        let call = Call::Settle { lease: lease_of(delivery), settlement };
        self.perform(call, patience, settling, |()| Answer::Done).await.is_some()
    }

    /// Changes plans for one message.
    pub(super) async fn revise(
        &self,
        queue: &str,
        sequence: u64,
        revision: Revision,
        revoke: bool,
        patience: Duration,
    ) {
        let target = Target::sequences(queue, [sequence]);
        let target = if revoke { target.revoke() } else { target };
        let revising = async {
            match revision {
                Revision::Recall => self.client.recall(target).await,
                Revision::Expire => self.client.expire_now(target).await,
                Revision::Reschedule { delay_ms } => {
                    let time = dwell_client::NewTime::after(Duration::from_millis(delay_ms));
                    self.client.reschedule(target, time).await
                }
            }
        };
        let call = Call::Revise { queue: queue.into(), sequence, revision, revoke };
        self.perform(call, patience, revising, |answer| {
            Answer::Revised(answer.revised.first().map_or(Revised::Unknown, |revised| revised_of(revised.outcome)))
        })
        .await;
    }

    /// Acknowledges one delivery and publishes.
    pub(super) async fn transact(&self, delivery: &Delivery, messages: Vec<Publication>, patience: Duration) {
        let mut transaction = Transaction::new().ack(delivery);
        for message in &messages {
            transaction = transaction.publish(envelope(message));
        }
        let call = Call::Transact { leases: vec![lease_of(delivery)], messages };
        self.perform(call, patience, self.client.transact(transaction), |published| {
            let stored = published.iter().map(|published| stored(&PublishOutcome::Stored(published.clone())));
            Answer::Published(stored.collect())
        })
        .await;
    }

    /// Makes a call and records it with what comes of it; the result, if it is certain that it was done.
    pub(super) async fn perform<T>(
        &self,
        call: Call,
        patience: Duration,
        work: impl Future<Output = Result<T, Error>>,
        answer: impl FnOnce(&T) -> Answer,
    ) -> Option<T> {
        let invocation = self.recorder.invoke(self.process, call);
        match timeout(patience, work).await {
            Ok(Ok(result)) => {
                self.recorder.ok(invocation, answer(&result));
                return Some(result);
            }
            Ok(Err(error)) if is_refusal(&error) => self.recorder.fail(invocation, error),
            Ok(Err(error)) => self.recorder.info(invocation, error),
            Err(_) => self.recorder.info(invocation, format!("given up after {patience:?}")),
        }
        None
    }
}

/// True if it is certain that nothing was done.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::NotFound(_)
            | Error::InvalidArgument(_)
            | Error::AlreadyExists(_)
            | Error::FailedPrecondition(_)
            | Error::ResourceExhausted(_)
            | Error::Unroutable(_)
            | Error::Rejected { .. }
            | Error::LeaseLost
            | Error::Unavailable { .. }
    )
}

/// The body that carries a message's number, at least eight bytes of it.
pub(super) fn body(message: u64, bytes: usize) -> Bytes {
    let mut body = message.to_be_bytes().to_vec();
    body.resize(bytes.max(8), b'.');
    body.into()
}

/// The message as the client takes it.
fn envelope(publication: &Publication) -> PublishMessage {
    // Sizes differ, and are the same in a repetition.
    let bytes = 8 + usize::try_from(publication.message % 5).unwrap_or(0) * 50;
    let mut message = PublishMessage::new(&publication.to, body(publication.message, bytes))
        .message_id(publication.message.to_string())
        .priority(publication.priority);
    if publication.through_exchange {
        message = message.exchange(&publication.to).mandatory();
    }
    if let Some(delay_ms) = publication.delay_ms {
        message = message.delay(Duration::from_millis(delay_ms));
    }
    if let Some(deliver_at_ms) = publication.deliver_at_ms {
        message = message.deliver_at_ms(deliver_at_ms);
    }
    if let Some(ttl_ms) = publication.ttl_ms {
        message = message.ttl(Duration::from_millis(ttl_ms));
    }
    if let Some(expire_at_ms) = publication.expire_at_ms {
        message = message.expire_at_ms(expire_at_ms);
    }
    if let Some(group) = &publication.group {
        message = message.group(group);
    }
    if let Some(dedupe_id) = &publication.dedupe_id {
        message = message.dedupe_id(dedupe_id);
    }
    if let Some(batch) = publication.batch {
        message = message.header(BATCH_HEADER, batch.to_string());
    }
    message
}

fn stored(outcome: &PublishOutcome) -> Stored {
    match outcome {
        PublishOutcome::Stored(published) => {
            let first = (&published.handle, published.duplicate);
            let further = published.further.iter().map(|copy| (&copy.handle, copy.duplicate));
            let copy = |(handle, duplicate): (&dwell_client::Handle, bool)| StoredCopy {
                queue: handle.queue.clone(),
                sequence: handle.sequence,
                duplicate,
            };
            Stored { copies: std::iter::once(first).chain(further).map(copy).collect(), refused: None }
        }
        PublishOutcome::Unroutable => Stored { copies: Vec::new(), refused: Some("unroutable".into()) },
        PublishOutcome::Rejected { queue } => Stored { copies: Vec::new(), refused: Some(format!("{queue} is full")) },
    }
}

fn revised_of(outcome: dwell_client::RevisionOutcome) -> Revised {
    match outcome {
        dwell_client::RevisionOutcome::Done => Revised::Done,
        dwell_client::RevisionOutcome::Leased => Revised::Leased,
        dwell_client::RevisionOutcome::Gone => Revised::Gone,
        dwell_client::RevisionOutcome::Unknown => Revised::Unknown,
        dwell_client::RevisionOutcome::DoneOrGone => Revised::DoneOrGone,
    }
}

/// The lease that a delivery is.
pub(super) fn lease_of(delivery: &Delivery) -> Lease {
    Lease { queue: delivery.handle.queue.clone(), sequence: delivery.handle.sequence, token: delivery.token }
}

/// What the history keeps of a delivery.
pub(super) fn delivered(delivery: &Delivery) -> Delivered {
    Delivered {
        // A body that is too short is no message of ours: number 0 is nobody's.
        message: delivery.message.body.clone().try_get_u64().unwrap_or(0),
        sequence: delivery.handle.sequence,
        token: delivery.token,
        delivery_count: delivery.delivery_count,
        published_at_ms: delivery.published_at_ms,
        ready_at_ms: delivery.ready_at_ms,
        deadline_ms: delivery.lease_deadline_ms,
        schedule_due_ms: schedule_due_ms(&delivery.message),
        died: delivery.deaths.first().map(|death| (death.queue.clone(), death.last_at_ms)),
    }
}

/// Of a schedule's message: the due time.
pub(super) fn schedule_due_ms(message: &dwell_client::Message) -> Option<i64> {
    message.headers.get("dwell-schedule-due-ms")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_carries_the_number() {
        assert_eq!(body(0x0102_0304_0506_0708, 20).len(), 20);
        assert_eq!(body(0x0102_0304_0506_0708, 0).get_u64(), 0x0102_0304_0506_0708);
    }

    #[test]
    fn only_what_certainly_did_nothing_is_a_failure() {
        let (deadline, reason) = (Duration::ZERO, String::new());
        assert!(is_refusal(&Error::LeaseLost));
        assert!(is_refusal(&Error::Unavailable { deadline, reason: reason.clone() }));
        assert!(!is_refusal(&Error::Timeout { deadline, reason: reason.clone() }));
        assert!(!is_refusal(&Error::Unknown(reason)));
        assert!(!is_refusal(&Error::Closed));
    }
}
