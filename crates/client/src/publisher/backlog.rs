//! What was submitted and has not entered the window. Single messages are merged here while they wait.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::request::Request;
use crate::error::Error;

/// Most messages of a merged request.
const MERGED_MESSAGES_MAX: usize = 256;
/// A merged request takes no more messages past this size.
const MERGED_BYTES_MAX: usize = 1024 * 1024;
/// While fewer requests than this are unconfirmed, a single message goes at once. Past it, the messages wait
/// for the next confirm and travel together: that costs them a fraction of a round trip, and saves the work of
/// a request each. But when as many requests wait, they are of as many queues, and gain nothing by waiting.
const EAGER_REQUESTS: usize = 16;

/// Requests in order of submission; the order among the messages of one queue is always kept. Where an exchange
/// routes to is not known here: nothing overtakes a message that goes through one, nor does it overtake anything.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    requests: VecDeque<Request>,
    /// How many requests have left at the front: the position of the first one.
    left: u64,
    /// The position of each queue's last request, if it is one that takes more messages.
    open: HashMap<String, u64>,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Takes a submission in: behind everything, or into the last request of its queue.
    pub(super) fn push(&mut self, request: Request) {
        let position = self.left + self.requests.len() as u64;
        let Some(queue) = request.queue() else {
            return self.push_behind_all(request);
        };
        if let Some(open) = self.open.get(queue).and_then(|open| self.requests.get_mut((open - self.left) as usize))
            && has_room(open, &request)
        {
            open.absorb(request);
            return;
        }
        self.open.insert(queue.to_owned(), position);
        self.requests.push_back(request);
    }

    /// Takes in a batch, or a message that goes through an exchange.
    fn push_behind_all(&mut self, request: Request) {
        if let Some(last) = self.requests.back_mut()
            && request.exchange().is_some()
            && last.exchange() == request.exchange()
            && has_room(last, &request)
        {
            last.absorb(request);
            return;
        }
        // What comes later for these queues must stay behind it.
        for message in &request.messages {
            if !message.exchange.is_empty() {
                self.open.clear();
                break;
            }
            self.open.remove(&message.routing_key);
        }
        self.requests.push_back(request);
    }

    /// The next request to send, if it should go while `unconfirmed` others are under way.
    pub(super) fn pop(&mut self, unconfirmed: usize) -> Option<Request> {
        let front = self.requests.front()?;
        let full = front.messages.len() >= MERGED_MESSAGES_MAX || front.bytes >= MERGED_BYTES_MAX;
        let may_grow = front.mergeable && !full && self.requests.len() < EAGER_REQUESTS;
        if may_grow && unconfirmed >= EAGER_REQUESTS {
            return None;
        }
        let request = self.requests.pop_front()?;
        if let Some(queue) = request.queue()
            && self.open.get(queue) == Some(&self.left)
        {
            self.open.remove(queue);
        }
        self.left += 1;
        Some(request)
    }

    /// Fails what waited past its deadline.
    pub(super) fn expire(&mut self, now: Instant, error: &Error) {
        let before = self.requests.len();
        self.requests.retain_mut(|request| request.expire_unsent(now, error));
        if self.requests.len() != before {
            // Positions have moved.
            self.open.clear();
        }
    }
}

fn has_room(open: &Request, request: &Request) -> bool {
    open.messages.len() < MERGED_MESSAGES_MAX && open.bytes + request.bytes <= MERGED_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use dwell_proto::v1;
    use tokio::sync::{Semaphore, oneshot};

    use super::super::request::{Room, Waiter};
    use super::*;

    fn submission(queues: &[&str], mergeable: bool) -> Request {
        let semaphore = Arc::new(Semaphore::new(2));
        let permit = || semaphore.clone().try_acquire_owned().unwrap();
        let room = Room { _place: permit(), _bytes: permit() };
        let deadline = Instant::now() + Duration::from_secs(1);
        let waiter = Waiter::new(queues.len(), deadline, oneshot::channel().0, room);
        // `x/k` goes through exchange `x`.
        let message = |name: &&str| {
            let (exchange, routing_key) = name.split_once('/').unwrap_or(("", name));
            v1::PublishMessage { exchange: exchange.into(), routing_key: routing_key.into(), ..Default::default() }
        };
        let messages = queues.iter().map(message).collect();
        Request::new(messages, 10, waiter, mergeable)
    }

    fn drain(mut backlog: Backlog) -> Vec<Vec<String>> {
        let queues = |request: Request| request.messages.into_iter().map(|message| message.routing_key).collect();
        std::iter::from_fn(|| backlog.pop(0)).map(queues).collect()
    }

    #[test]
    fn waiting_messages_of_one_queue_are_merged_and_those_of_others_are_not() {
        let mut backlog = Backlog::default();
        for queue in ["a", "b", "a", "b", "a"] {
            backlog.push(submission(&[queue], true));
        }
        assert_eq!(drain(backlog), [vec!["a", "a", "a"], vec!["b", "b"]]);
    }

    #[test]
    fn a_message_does_not_overtake_a_batch_for_its_queue() {
        let mut backlog = Backlog::default();
        backlog.push(submission(&["a"], true));
        backlog.push(submission(&["b"], true));
        backlog.push(submission(&["a", "c"], false));
        backlog.push(submission(&["a"], true));
        backlog.push(submission(&["b"], true));
        assert_eq!(drain(backlog), [vec!["a"], vec!["b", "b"], vec!["a", "c"], vec!["a"]]);
    }

    #[test]
    fn nothing_overtakes_a_message_that_goes_through_an_exchange() {
        let mut backlog = Backlog::default();
        for name in ["a", "x/1", "x/2", "y/3", "x/4", "a", "x/5", "a", "b", "a"] {
            backlog.push(submission(&[name], true));
        }
        assert_eq!(
            drain(backlog),
            [vec!["a"], vec!["1", "2"], vec!["3"], vec!["4"], vec!["a"], vec!["5"], vec!["a", "a"], vec!["b"]]
        );
        let mut backlog = Backlog::default();
        backlog.push(submission(&["a"], true));
        backlog.push(submission(&["b", "x/1"], false));
        backlog.push(submission(&["a"], true));
        assert_eq!(drain(backlog), [vec!["a"], vec!["b", "1"], vec!["a"]]);
    }

    #[test]
    fn merging_goes_on_after_requests_have_left() {
        let mut backlog = Backlog::default();
        backlog.push(submission(&["a"], true));
        assert_eq!(backlog.pop(0).unwrap().messages.len(), 1);
        backlog.push(submission(&["a"], true));
        backlog.push(submission(&["a"], true));
        assert_eq!(drain(backlog), [vec!["a", "a"]]);
    }

    #[test]
    fn singles_wait_when_enough_is_under_way_and_batches_and_full_requests_do_not() {
        let mut backlog = Backlog::default();
        backlog.push(submission(&["a"], true));
        assert!(backlog.pop(EAGER_REQUESTS).is_none());
        for _ in 0..MERGED_MESSAGES_MAX {
            backlog.push(submission(&["a"], true));
        }
        assert_eq!(backlog.pop(EAGER_REQUESTS).unwrap().messages.len(), MERGED_MESSAGES_MAX);
        assert!(backlog.pop(EAGER_REQUESTS).is_none());
        assert!(backlog.pop(EAGER_REQUESTS - 1).is_some());
        backlog.push(submission(&["a"], false));
        assert!(backlog.pop(EAGER_REQUESTS).is_some());
    }

    #[test]
    fn singles_of_many_queues_do_not_wait_for_company_that_they_cannot_have() {
        let mut backlog = Backlog::default();
        for queue in 0..EAGER_REQUESTS + 2 {
            backlog.push(submission(&[&queue.to_string()], true));
        }
        let left = std::iter::from_fn(|| backlog.pop(EAGER_REQUESTS)).count();
        assert_eq!(left, 3, "the rest may grow yet");
    }

    #[test]
    fn only_the_messages_past_their_deadline_are_dropped() {
        let mut backlog = Backlog::default();
        backlog.push(submission(&["a"], true));
        let later = Instant::now() + Duration::from_secs(2);
        backlog.expire(Instant::now(), &Error::Closed);
        assert!(!backlog.is_empty());
        backlog.expire(later, &Error::Closed);
        assert!(backlog.is_empty());
    }
}
