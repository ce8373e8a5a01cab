//! What a consumer, its deliveries and its driver share.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use dwell_proto::v1;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::Command;
use super::settling::Settle;
use crate::call::Core;
use crate::delivery::{Delivery, lease_of};
use crate::error::Error;
use crate::message::since_epoch_ms;
use crate::settle::{Settlement, UnarySettler};

/// The highest credit of a consumer, by the API.
const CREDIT_MAX: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Link {
    core: Arc<Core>,
    commands: mpsc::Sender<Command>,
    /// For deliveries that outlive the stream.
    unary: UnarySettler,
    credit: usize,
    state: Mutex<State>,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    /// Arrived and not taken by the caller yet. At most as many as the credit, but for [`State::drop_stale`].
    waiting: VecDeque<(v1::Delivery, SystemTime)>,
    /// The token of each lease that is in `waiting`, or in a [`Delivery`] that is alive and unsettled.
    held: HashMap<u64, u64>,
    ended: bool,
    end: Option<Error>,
}

impl Link {
    pub(super) fn new(core: Arc<Core>, queue: String, credit: u32, commands: mpsc::Sender<Command>) -> Link {
        let unary = UnarySettler::new(core.clone(), queue);
        let state = Mutex::default();
        Link { core, commands, unary, credit: credit as usize, state, reader: AtomicWaker::new() }
    }

    /// Takes deliveries in, once each.
    pub(super) fn deliver(&self, deliveries: Vec<v1::Delivery>) {
        let received_at = SystemTime::now();
        let mut state = self.state.lock();
        for delivery in deliveries {
            let lease = lease_of(&delivery);
            match state.held.insert(lease.sequence, lease.token) {
                Some(token) if token == lease.token => continue,
                // Leased anew: the older lease has ended.
                Some(_) => state.waiting.retain(|(waiting, _)| lease_of(waiting).sequence != lease.sequence),
                None => {}
            }
            state.waiting.push_back((delivery, received_at));
            state.drop_stale(self.credit, since_epoch_ms(received_at));
        }
        drop(state);
        self.reader.wake();
    }

    /// The leases to name when attaching again.
    pub(super) fn holding(&self) -> Vec<v1::Lease> {
        let state = self.state.lock();
        let mut leases: Vec<_> = state.held.iter().map(|(&sequence, &token)| v1::Lease { sequence, token }).collect();
        leases.sort_unstable_by_key(|lease| lease.sequence);
        leases
    }

    /// The server says that these are held no more: the caller shall not get them.
    pub(super) fn lost(&self, leases: &[v1::Lease]) {
        let mut state = self.state.lock();
        for lease in leases {
            if state.release(lease) {
                state.waiting.retain(|(waiting, _)| lease_of(waiting) != *lease);
            }
        }
    }

    /// The lease is settled, or its delivery was dropped.
    pub(crate) fn forget(&self, lease: &v1::Lease) {
        self.state.lock().release(lease);
    }

    /// Nothing more will come.
    pub(super) fn end(&self, error: Option<Error>) {
        let mut state = self.state.lock();
        state.ended = true;
        state.end = error;
        drop(state);
        self.reader.wake();
    }

    /// What the consumer ended with.
    pub(super) fn take_end(&self) -> Option<Error> {
        self.state.lock().end.take()
    }

    pub(super) fn poll_next(self: &Arc<Link>, context: &mut Context<'_>) -> Poll<Option<Result<Delivery, Error>>> {
        self.reader.register(context.waker());
        let mut state = self.state.lock();
        if let Some((delivery, received_at)) = state.waiting.pop_front() {
            return Poll::Ready(Some(Ok(Delivery::consumed(delivery, received_at, self.clone()))));
        }
        match (state.ended, state.end.take()) {
            (true, error) => Poll::Ready(error.map(Err)),
            (false, _) => Poll::Pending,
        }
    }

    pub(super) async fn command(&self, command: Command) -> Result<(), mpsc::error::SendError<Command>> {
        self.commands.send(command).await
    }

    /// Settles a lease over the stream, or by a single call if the consumer is gone.
    pub(crate) async fn settle(&self, lease: v1::Lease, settlement: Settlement) -> Result<(), Error> {
        let deadline = self.core.options.retry_deadline;
        let settling = tokio::time::timeout(deadline, self.settle_by_stream(lease, settlement));
        match settling.await {
            Ok(ByStream::Answered(result)) => result,
            Ok(ByStream::Gone { perhaps_sent }) => self.unary.settle(lease, settlement, perhaps_sent).await,
            Err(_) => Err(Error::Timeout { deadline, reason: "settling a lease".into() }),
        }
    }

    async fn settle_by_stream(&self, lease: v1::Lease, settlement: Settlement) -> ByStream {
        let (answer, settled) = oneshot::channel();
        let settle = Settle { lease, settlement, perhaps_done: false, answer };
        if self.command(Command::Settle(settle)).await.is_err() {
            return ByStream::Gone { perhaps_sent: false };
        }
        match settled.await {
            Ok(result) => ByStream::Answered(result),
            Err(_) => ByStream::Gone { perhaps_sent: true },
        }
    }
}

enum ByStream {
    Answered(Result<(), Error>),
    Gone { perhaps_sent: bool },
}

impl State {
    /// The server leases no more than the credit to a consumer. Beyond it, leases have timed out while the
    /// caller was slow, the oldest first; or a consumer was resumed that had more credit before.
    fn drop_stale(&mut self, credit: usize, now_ms: i64) {
        while let Some((oldest, _)) = self.waiting.front()
            && self.waiting.len() > credit
            && (self.waiting.len() > CREDIT_MAX || oldest.lease_deadline_ms < now_ms)
        {
            let lease = lease_of(oldest);
            self.waiting.pop_front();
            self.release(&lease);
        }
    }

    /// False if this lease was not held: a later one of the same message may be.
    fn release(&mut self, lease: &v1::Lease) -> bool {
        let held = self.held.get(&lease.sequence) == Some(&lease.token);
        if held {
            self.held.remove(&lease.sequence);
        }
        held
    }
}
