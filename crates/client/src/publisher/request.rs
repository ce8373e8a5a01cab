//! A request on its way to its confirm, with those who wait for it.

use dwell_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::error::Error;
use crate::published::PublishOutcome;

/// Where a submission's confirm waits for its answer.
pub(super) type Answer = oneshot::Sender<Result<Vec<PublishOutcome>, Error>>;

/// The places that a submission takes until its waiter is answered.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) _place: OwnedSemaphorePermit,
    pub(super) _bytes: OwnedSemaphorePermit,
}

/// One submission's claim on the answer to the request that carries it.
#[derive(Debug)]
pub(super) struct Waiter {
    /// How many of the request's messages are its own.
    messages: usize,
    deadline: Instant,
    /// None once it is answered.
    answer: Option<(Answer, Room)>,
}

impl Waiter {
    pub(super) fn new(messages: usize, deadline: Instant, answer: Answer, room: Room) -> Waiter {
        Waiter { messages, deadline, answer: Some((answer, room)) }
    }

    fn answer(&mut self, result: Result<Vec<PublishOutcome>, Error>) {
        if let Some((answer, _room)) = self.answer.take() {
            // Nobody need wait for it.
            let _ = answer.send(result);
        }
    }
}

/// Messages that are accepted all or none: one submission, or single messages for one queue or exchange merged.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) messages: Vec<v1::PublishMessage>,
    pub(super) bytes: usize,
    /// In the order of their messages.
    waiters: Vec<Waiter>,
    /// Holds single messages for one queue or exchange, and may take more.
    pub(super) mergeable: bool,
    /// How often the server refused it for its place in the producer's sequence.
    pub(super) out_of_step: u32,
}

impl Request {
    pub(super) fn new(messages: Vec<v1::PublishMessage>, bytes: usize, waiter: Waiter, mergeable: bool) -> Request {
        Request { messages, bytes, waiters: vec![waiter], mergeable, out_of_step: 0 }
    }

    /// The queue of a mergeable request that goes to one without an exchange.
    pub(super) fn queue(&self) -> Option<&str> {
        self.destination().filter(|message| message.exchange.is_empty()).map(|message| message.routing_key.as_str())
    }

    /// The exchange of a mergeable request that goes through one.
    pub(super) fn exchange(&self) -> Option<&str> {
        self.destination().map(|message| message.exchange.as_str()).filter(|exchange| !exchange.is_empty())
    }

    /// True if one of its messages must reach a queue.
    pub(super) fn is_mandatory(&self) -> bool {
        self.messages.iter().any(|message| message.mandatory)
    }

    fn destination(&self) -> Option<&v1::PublishMessage> {
        self.messages.first().filter(|_| self.mergeable)
    }

    /// Takes the other's messages in behind its own.
    pub(super) fn absorb(&mut self, other: Request) {
        self.messages.extend(other.messages);
        self.waiters.extend(other.waiters);
        self.bytes += other.bytes;
    }

    /// True if several submissions would share a refusal.
    pub(super) fn is_merged(&self) -> bool {
        self.waiters.len() > 1
    }

    /// One request for each submission, never to be merged again.
    pub(super) fn split(self) -> impl DoubleEndedIterator<Item = Request> {
        let mut messages = self.messages.into_iter();
        let out_of_step = self.out_of_step;
        let parts: Vec<Request> = self
            .waiters
            .into_iter()
            .map(|waiter| {
                let messages: Vec<_> = messages.by_ref().take(waiter.messages).collect();
                let bytes = messages.iter().map(crate::message::encoded_bytes).sum();
                Request { messages, bytes, waiters: vec![waiter], mergeable: false, out_of_step }
            })
            .collect();
        parts.into_iter()
    }

    /// Hands every submission its share of the results.
    pub(super) fn confirm(mut self, results: Vec<v1::PublishResult>) {
        let mut results = results.into_iter().map(PublishOutcome::from);
        for waiter in &mut self.waiters {
            let share: Vec<PublishOutcome> = results.by_ref().take(waiter.messages).collect();
            if share.len() == waiter.messages {
                waiter.answer(Ok(share));
            } else {
                let message = "the confirm holds too few results".to_owned();
                waiter.answer(Err(Error::Server { code: tonic::Code::Internal, message }));
            }
        }
    }

    /// Tells every submission the same.
    pub(super) fn fail(mut self, error: &Error) {
        for waiter in &mut self.waiters {
            waiter.answer(Err(error.clone()));
        }
    }

    /// Tells those whose deadline is past, and leaves the messages in place: they may have been sent.
    pub(super) fn expire_sent(&mut self, now: Instant, error: &Error) {
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.deadline <= now) {
            waiter.answer(Err(error.clone()));
        }
    }

    /// Tells those whose deadline is past, and takes their messages out: they were not sent. False if nothing
    /// is left.
    pub(super) fn expire_unsent(&mut self, now: Instant, error: &Error) -> bool {
        let mut kept = Vec::with_capacity(self.waiters.len());
        let mut start = 0;
        for mut waiter in std::mem::take(&mut self.waiters) {
            if waiter.deadline <= now {
                waiter.answer(Err(error.clone()));
                self.messages.drain(start..start + waiter.messages);
            } else {
                start += waiter.messages;
                kept.push(waiter);
            }
        }
        self.waiters = kept;
        !self.waiters.is_empty()
    }

    /// True if somebody has waited for longer than he would, and is to be told.
    pub(super) fn is_past(&self, now: Instant) -> bool {
        self.waiters.iter().any(|waiter| waiter.answer.is_some() && waiter.deadline <= now)
    }

    /// True if nobody is left who has not been told something.
    pub(super) fn is_abandoned(&self) -> bool {
        self.waiters.iter().all(|waiter| waiter.answer.is_none())
    }
}
