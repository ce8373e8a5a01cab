//! The requests that have a number and no confirm: what is sent again when the stream breaks.
//!
//! The server takes a producer's requests only in the order of their numbers. A request that it refuses
//! before that check (a body over the limit) leaves a gap, and everything sent behind it is refused as out of
//! step. Those requests come back here, wait until all others are answered, and are numbered anew.

use std::collections::VecDeque;
use std::time::Duration;

use dwell_proto::v1;
use dwell_proto::v1::publish_stream_response::Outcome;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Code;

use super::WINDOW;
use super::backlog::Backlog;
use super::request::Request;
use crate::error::{Error, is_transient_code};

/// Refused so often for its number, under a new producer id too, a request is given up.
const OUT_OF_STEP_MAX: u32 = 3;
/// After so long without an answer a producer begins anew: the server forgets one that it has not heard of for 24 h,
/// and would refuse the next number.
const PRODUCER_IDLE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

#[derive(Debug)]
pub(super) struct Window {
    /// The producer's id without the count of its renewals.
    producer: String,
    renewals: u64,
    next_number: u64,
    next_request_id: u64,
    /// In order of their numbers, which have no gaps but those of requests that were refused.
    unconfirmed: VecDeque<Entry>,
    /// How many of them, from the front, were sent on the current stream.
    on_wire: usize,
    /// To be numbered anew, before anything from the backlog.
    returned: VecDeque<Request>,
    /// What came back since, to go before what is left in `returned`: it was sent before it.
    collected: VecDeque<Request>,
    /// More may still join `collected`: nothing is sent before `unconfirmed` is empty.
    collecting: bool,
    /// The lowest number that was refused without having been used up, as far as is known.
    unused_from: Option<u64>,
    /// Numbers up to this one were sent on a stream that is gone: copies may still be under way.
    stray_until: u64,
    /// The server ended the stream for one of the requests up to this id: they are sent one by one.
    suspect_until: Option<u64>,
    /// When the server last answered a request of this producer, or the producer began.
    heard_of_at: Instant,
}

#[derive(Debug)]
struct Entry {
    request_id: u64,
    number: u64,
    request: Request,
    /// It was sent on a stream that is gone, and whether it was taken there is not known.
    may_be_stored: bool,
}

/// A confirm could not be used.
#[derive(Debug)]
pub(super) enum Interruption {
    /// The stream is of no use: everything is to be sent again, later or elsewhere.
    Transient(String),
    /// The same, for want of something that the cluster is short of: this is the server's message.
    Exhausted(String),
}

impl Window {
    pub(super) fn new(producer: String) -> Window {
        Window {
            producer,
            renewals: 0,
            next_number: 1,
            next_request_id: 1,
            unconfirmed: VecDeque::new(),
            on_wire: 0,
            returned: VecDeque::new(),
            collected: VecDeque::new(),
            collecting: false,
            unused_from: None,
            stray_until: 0,
            suspect_until: None,
            heard_of_at: Instant::now(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unconfirmed.is_empty() && self.returned.is_empty() && self.collected.is_empty()
    }

    /// True if the server owes an answer on the current stream.
    pub(super) fn is_on_wire(&self) -> bool {
        self.on_wire > 0
    }

    /// A new stream is open: everything unconfirmed will be sent on it, in order.
    pub(super) fn begin_stream(&mut self) {
        self.unconfirmed.iter_mut().take(self.on_wire).for_each(|entry| entry.may_be_stored = true);
        self.on_wire = 0;
        self.stray_until = self.next_number - 1;
    }

    /// Sends what may be sent: first what the stream has not seen yet, then what comes from `backlog`.
    pub(super) fn send(
        &mut self,
        backlog: &mut Backlog,
        outbound: &mpsc::Sender<v1::PublishStreamRequest>,
        now: Instant,
    ) {
        loop {
            if self.on_wire < self.unconfirmed.len() {
                if self.is_careful() && self.on_wire > 0 {
                    return;
                }
                // A fresh stream's channel holds a whole window; if it is full or closed, the stream is ending.
                if outbound.try_send(self.on_the_wire(&self.unconfirmed[self.on_wire])).is_err() {
                    return;
                }
                self.on_wire += 1;
                continue;
            }
            if self.collecting {
                if !self.unconfirmed.is_empty() {
                    return;
                }
                self.renumber();
            }
            if self.unconfirmed.len() >= WINDOW {
                return;
            }
            let next = self.returned.pop_front().or_else(|| backlog.pop(self.unconfirmed.len()));
            let Some(request) = next else { return };
            if self.unconfirmed.is_empty() && now.duration_since(self.heard_of_at) > PRODUCER_IDLE_MAX {
                self.renew();
                self.heard_of_at = now;
            }
            let (request_id, number) = (self.next_request_id, self.next_number);
            let entry = Entry { request_id, number, request, may_be_stored: false };
            self.next_request_id += 1;
            self.next_number += 1;
            self.unconfirmed.push_back(entry);
        }
    }

    fn on_the_wire(&self, entry: &Entry) -> v1::PublishStreamRequest {
        let producer_id = match self.renewals {
            0 => self.producer.clone(),
            renewals => format!("{}-{renewals}", self.producer),
        };
        let publish = v1::PublishRequest {
            namespace: String::new(),
            messages: entry.request.messages.clone(),
            producer: Some(v1::ProducerSequence { producer_id, sequence: entry.number }),
        };
        v1::PublishStreamRequest { request_id: entry.request_id, publish: Some(publish) }
    }

    /// Takes an answer.
    pub(super) fn confirm(&mut self, response: v1::PublishStreamResponse) -> Result<(), Interruption> {
        let found = self.unconfirmed.binary_search_by_key(&response.request_id, |entry| entry.request_id);
        let Ok(index) = found else {
            tracing::warn!(request_id = response.request_id, "a confirm for a request that is not waiting for one");
            return Ok(());
        };
        self.heard_of_at = Instant::now();
        let refusal = match response.outcome {
            Some(Outcome::Confirmed(confirmed)) => {
                let Some(entry) = self.take(index) else { return Ok(()) };
                // The server went on past the refused numbers: it counts them as used.
                self.unused_from = self.unused_from.filter(|unused| *unused > entry.number);
                entry.request.confirm(confirmed.results);
                return Ok(());
            }
            Some(Outcome::Refused(refusal)) => refusal,
            None => v1::Failure { code: Code::Internal.into(), message: "a confirm without an outcome".into() },
        };
        match Code::from_i32(refusal.code) {
            Code::ResourceExhausted => {
                self.give_back(index);
                Err(Interruption::Exhausted(refusal.message))
            }
            code if is_transient_code(code) => Err(Interruption::Transient(format!("{code}: {}", refusal.message))),
            Code::FailedPrecondition if self.is_unroutable(index, &refusal) => {
                // The machine's outcome, as an unknown queue is.
                self.refuse(index, &Error::Unroutable(refusal.message), true);
                Ok(())
            }
            Code::FailedPrecondition => {
                self.out_of_step(index, &Error::from_failure(refusal));
                Ok(())
            }
            code => {
                // The machine found no such queue or exchange: that is an outcome, and the number is used up by it.
                self.refuse(index, &Error::from_failure(refusal), code == Code::NotFound);
                Ok(())
            }
        }
    }

    /// Nothing was done about the request, nor about those that were sent behind it, whose numbers do not follow then. If
    /// it may have been taken on an earlier stream, nobody knows what became of those.
    fn give_back(&mut self, index: usize) {
        if !self.unconfirmed.range(..=index).any(|entry| entry.may_be_stored) {
            self.on_wire = self.on_wire.min(index);
        }
    }

    /// The server ended the stream with a status that sending everything again will not change. Which request
    /// it meant shows when they are sent one by one.
    pub(super) fn blame(&mut self, error: &Error) {
        if self.on_wire == 1 {
            self.refuse(0, error, false);
        } else if let Some(last) = self.unconfirmed.back() {
            self.suspect_until = Some(last.request_id);
        }
    }

    /// Tells those who waited too long. True if nobody waits for anything sent any more: then it is forgotten.
    pub(super) fn expire(&mut self, now: Instant, sent: &Error, unsent: &Error) -> bool {
        if self.is_known_not_stored() && self.unconfirmed.iter().any(|entry| entry.request.is_past(now)) {
            self.take_back();
        }
        for entry in &mut self.unconfirmed {
            entry.request.expire_sent(now, sent);
        }
        for waiting in [&mut self.returned, &mut self.collected] {
            waiting.retain_mut(|request| request.expire_unsent(now, unsent));
        }
        let forgotten =
            !self.unconfirmed.is_empty() && self.unconfirmed.iter().all(|entry| entry.request.is_abandoned());
        if forgotten {
            // Their numbers may be used or not: only a new producer can go on.
            self.unconfirmed.clear();
            self.on_wire = 0;
            self.renew();
        }
        forgotten
    }

    /// True if the server has nothing of what is unconfirmed. What may be stored comes before what is not, so the first of
    /// them tells.
    fn is_known_not_stored(&self) -> bool {
        self.on_wire == 0 && self.unconfirmed.front().is_some_and(|entry| !entry.may_be_stored)
    }

    /// Takes the numbers off all that is unconfirmed, and not stored: what nobody waits for any more is not to be stored
    /// later either. The numbers are not given to others, since copies of them may still be on their way.
    fn take_back(&mut self) {
        for entry in self.unconfirmed.drain(..).rev() {
            self.returned.push_front(entry.request);
        }
        self.renew();
    }

    fn take(&mut self, index: usize) -> Option<Entry> {
        if index < self.on_wire {
            self.on_wire -= 1;
        }
        self.unconfirmed.remove(index)
    }

    /// True if a mandatory message reached no queue. The status is that of a number out of step, and only the words
    /// tell them apart. Not recognized, it would be sent again under other numbers, and refused in the end as well.
    fn is_unroutable(&self, index: usize, refusal: &v1::Failure) -> bool {
        refusal.message.contains("mandatory") && self.unconfirmed[index].request.is_mandatory()
    }

    fn refuse(&mut self, index: usize, error: &Error, number_is_used: bool) {
        let Some(entry) = self.take(index) else { return };
        if !number_is_used {
            self.unused_from = Some(self.unused_from.unwrap_or(entry.number).min(entry.number));
        }
        if entry.request.is_merged() && !matches!(error, Error::NotFound(_)) {
            // Only one of the messages need be to blame.
            self.collected.extend(entry.request.split());
            self.collecting = true;
        } else {
            entry.request.fail(error);
        }
    }

    fn out_of_step(&mut self, index: usize, error: &Error) {
        let Some(Entry { mut request, .. }) = self.take(index) else { return };
        request.out_of_step += 1;
        if request.out_of_step >= OUT_OF_STEP_MAX {
            request.fail(error);
            return;
        }
        self.collected.push_back(request);
        self.collecting = true;
    }

    /// Chooses the numbers for what came back; nothing else is under way.
    fn renumber(&mut self) {
        self.collecting = false;
        self.collected.append(&mut self.returned);
        std::mem::swap(&mut self.collected, &mut self.returned);
        match self.returned.iter().map(|request| request.out_of_step).max() {
            // Only split requests: the next number may fit, and is refused if it does not.
            None | Some(0) => {}
            // The gap is where the refused request was. The numbers from there are free, if no copy of an
            // earlier request under one of them can still arrive.
            Some(1) if self.unused_from.is_some_and(|unused| unused > self.stray_until) => {
                self.next_number = self.unused_from.take().unwrap_or(self.next_number);
            }
            Some(_) => self.renew(),
        }
    }

    /// Goes on as another producer.
    fn renew(&mut self) {
        self.renewals += 1;
        self.next_number = 1;
        self.stray_until = 0;
        self.unused_from = None;
        tracing::debug!(producer = self.producer, renewals = self.renewals, "the producer begins anew");
    }

    fn is_careful(&mut self) -> bool {
        let front = self.unconfirmed.front().map(|entry| entry.request_id);
        self.suspect_until = self.suspect_until.filter(|until| front.is_some_and(|front| front <= *until));
        self.suspect_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Semaphore, oneshot};

    use super::super::request::{Answer, Room, Waiter};
    use super::*;
    use crate::published::PublishOutcome;

    fn submission() -> Request {
        submission_answered(oneshot::channel().0, Duration::from_secs(1))
    }

    fn submission_answered(answer: Answer, patience: Duration) -> Request {
        let semaphore = Arc::new(Semaphore::new(2));
        let permit = || semaphore.clone().try_acquire_owned().unwrap();
        let room = Room { _place: permit(), _bytes: permit() };
        let waiter = Waiter::new(1, Instant::now() + patience, answer, room);
        Request::new(vec![v1::PublishMessage::default()], 10, waiter, false)
    }

    fn confirmed(request: &v1::PublishStreamRequest) -> v1::PublishStreamResponse {
        let outcome = Some(Outcome::Confirmed(v1::PublishResponse::default()));
        v1::PublishStreamResponse { request_id: request.request_id, outcome }
    }

    fn refused(request: &v1::PublishStreamRequest, code: Code) -> v1::PublishStreamResponse {
        let outcome = Some(Outcome::Refused(v1::Failure { code: code.into(), message: "no room".into() }));
        v1::PublishStreamResponse { request_id: request.request_id, outcome }
    }

    type Answered = oneshot::Receiver<Result<Vec<PublishOutcome>, Error>>;

    /// Two requests that were sent on so many streams without an answer, and on one more on which the first was refused
    /// for want of room. One waits for a second, the other for `patience`.
    fn refused_for_want_of_room(unanswered_streams: usize, patience: Duration) -> (Window, [Answered; 2]) {
        let (outbound, mut wire) = mpsc::channel(WINDOW);
        let (mut backlog, mut window) = (Backlog::default(), Window::new("p".into()));
        let answers = [Duration::from_secs(1), patience].map(|patience| {
            let (answer, answered) = oneshot::channel();
            backlog.push(submission_answered(answer, patience));
            answered
        });
        let mut first = None;
        for _ in 0..=unanswered_streams {
            window.begin_stream();
            window.send(&mut backlog, &outbound, Instant::now());
            first = wire.try_recv().ok();
            wire.try_recv().unwrap();
        }
        let refusal = window.confirm(refused(&first.unwrap(), Code::ResourceExhausted));
        assert!(matches!(refusal, Err(Interruption::Exhausted(message)) if message == "no room"));
        (window, answers)
    }

    fn expire_after_two_seconds(window: &mut Window) {
        let late = Instant::now() + Duration::from_secs(2);
        window.expire(late, &Error::Unknown("sent".into()), &Error::ResourceExhausted("unsent".into()));
    }

    #[test]
    fn what_was_refused_for_want_of_room_and_what_was_sent_behind_it_are_not_stored_nor_sent_later() {
        let (mut window, answers) = refused_for_want_of_room(0, Duration::from_secs(1));
        expire_after_two_seconds(&mut window);
        for mut answer in answers {
            assert!(matches!(answer.try_recv().unwrap(), Err(Error::ResourceExhausted(_))));
        }
        assert!(window.is_empty());
    }

    #[test]
    fn what_may_have_been_stored_on_an_earlier_stream_is_not_said_to_be_refused() {
        let (mut window, answers) = refused_for_want_of_room(1, Duration::from_secs(1));
        expire_after_two_seconds(&mut window);
        for mut answer in answers {
            assert!(matches!(answer.try_recv().unwrap(), Err(Error::Unknown(_))));
        }
    }

    #[test]
    fn what_still_waits_when_others_were_refused_is_sent_by_a_producer_that_begins_anew() {
        let (mut window, [mut refused, mut waiting]) = refused_for_want_of_room(0, Duration::from_secs(60));
        expire_after_two_seconds(&mut window);
        assert!(matches!(refused.try_recv().unwrap(), Err(Error::ResourceExhausted(_))));
        let (outbound, mut wire) = mpsc::channel(WINDOW);
        window.begin_stream();
        window.send(&mut Backlog::default(), &outbound, Instant::now());
        let request = wire.try_recv().unwrap();
        let producer = request.publish.as_ref().unwrap().producer.clone().unwrap();
        assert_eq!((producer.producer_id.as_str(), producer.sequence), ("p-1", 1));
        assert!(wire.try_recv().is_err() && waiting.try_recv().is_err());
        let results = vec![v1::PublishResult { outcome: v1::PublishOutcome::Stored.into(), ..Default::default() }];
        let outcome = Some(Outcome::Confirmed(v1::PublishResponse { results }));
        window.confirm(v1::PublishStreamResponse { request_id: request.request_id, outcome }).unwrap();
        waiting.try_recv().unwrap().unwrap();
    }

    #[test]
    fn a_producer_that_the_server_may_have_forgotten_begins_anew_once_nothing_is_unconfirmed() {
        let (outbound, mut wire) = mpsc::channel(WINDOW);
        let mut backlog = Backlog::default();
        let mut window = Window::new("p".into());
        let mut publish_at = |window: &mut Window, at| {
            backlog.push(submission());
            window.send(&mut backlog, &outbound, at);
            let request = wire.try_recv().unwrap();
            let producer = request.publish.as_ref().unwrap().producer.clone().unwrap();
            (request, producer.producer_id, producer.sequence)
        };
        let begin = Instant::now();
        let (first, id, sequence) = publish_at(&mut window, begin);
        assert_eq!((id.as_str(), sequence), ("p", 1));
        let late = begin + PRODUCER_IDLE_MAX + Duration::from_secs(1);
        let (second, id, sequence) = publish_at(&mut window, late);
        assert_eq!((id.as_str(), sequence), ("p", 2), "the first is unconfirmed");
        window.confirm(confirmed(&first)).unwrap();
        window.confirm(confirmed(&second)).unwrap();
        let (third, id, sequence) = publish_at(&mut window, begin + PRODUCER_IDLE_MAX / 2);
        assert_eq!((id.as_str(), sequence), ("p", 3));
        window.confirm(confirmed(&third)).unwrap();
        let (_, id, sequence) = publish_at(&mut window, late + Duration::from_secs(60));
        assert_eq!((id.as_str(), sequence), ("p-1", 1));
    }
}
