//! Where the effects of applied entries meet the streams and calls that wait for them.
//!
//! Called in the apply path, so nothing here waits. What a stream does not take is bounded: its events by the
//! credit of its consumers, and the bodies in them by [`INLINE_BYTES_MAX`]; beyond that an event carries no body,
//! and the stream reads it from the store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dwell_consensus::clock::Clock;
use dwell_consensus::group::EffectSink;
use dwell_consensus::leadership::Leadership;
use dwell_machine::{CloseReason, Delivery, Effect};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::metrics::HubMetrics;

/// Most consumers of one stream.
pub const STREAM_CONSUMERS_MAX: usize = 1000;
/// The most credit that they have together.
pub const STREAM_CREDIT_MAX: usize = 100_000;
/// Most bytes of bodies waiting for one stream.
const INLINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a stream is told of one of its consumers.
#[derive(Debug)]
pub enum StreamEvent {
    /// Send this.
    Deliver(Delivery),
    /// The consumer has ended.
    Close(CloseReason),
}

/// The hub's end of a stream.
struct Sink {
    /// With the attachment that it is about.
    events: mpsc::Sender<(u64, StreamEvent)>,
    inline_bytes: AtomicUsize,
    ended: CancellationToken,
}

/// The streams and waiting calls of one group on this node.
pub struct Hub {
    /// The stream of each attachment.
    attachments: Mutex<HashMap<u64, Arc<Sink>>>,
    waiters: Mutex<HashMap<u64, Arc<Notify>>>,
    clock: Arc<dyn Clock>,
    leads: Mutex<Option<watch::Receiver<Leadership>>>,
    metrics: HubMetrics,
    /// Notified when there may be other users than before.
    users_changed: Arc<Notify>,
}

/// A stream's end of the hub; takes its consumers with it when it is dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    sink: Arc<Sink>,
    events: mpsc::Receiver<(u64, StreamEvent)>,
    attachments: HashSet<u64>,
}

impl Hub {
    /// A hub without streams.
    pub fn new(clock: Arc<dyn Clock>, metrics: HubMetrics) -> Arc<Hub> {
        let (attachments, waiters, leads, users_changed) = Default::default();
        Arc::new(Hub { attachments, waiters, clock, leads, metrics, users_changed })
    }

    /// Ends all streams whenever the leadership changes.
    pub fn follow(self: &Arc<Self>, mut leadership: watch::Receiver<Leadership>) {
        *self.leads.lock() = Some(leadership.clone());
        let hub = Arc::clone(self);
        tokio::spawn(async move {
            // Every change, also to leading again: the first entry of a leadership detaches all consumers.
            while leadership.changed().await.is_ok() {
                let mut attachments = hub.attachments.lock();
                attachments.drain().for_each(|(_, sink)| sink.ended.cancel());
                hub.metrics.consumers.set(0);
            }
        });
    }

    /// Notified when there may be other users than before, on every node.
    pub fn users_changed(&self) -> Arc<Notify> {
        self.users_changed.clone()
    }

    /// Registers a stream, which has no consumers yet.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        // An event for each message that may be on its way, and the end of each consumer.
        let (sender, events) = mpsc::channel(STREAM_CREDIT_MAX + STREAM_CONSUMERS_MAX);
        let sink = Sink { events: sender, inline_bytes: AtomicUsize::new(0), ended: CancellationToken::new() };
        self.metrics.streams.inc();
        Subscription { hub: self.clone(), sink: Arc::new(sink), events, attachments: HashSet::new() }
    }

    /// Notified when something is ready in the queue that no consumer took. The caller asks once more after
    /// it has this, and before it waits.
    pub fn waiter(&self, queue: u64) -> Arc<Notify> {
        self.waiters.lock().entry(queue).or_default().clone()
    }

    /// Lets go of a waiter.
    pub fn leave(&self, queue: u64, waiter: Arc<Notify>) {
        let mut waiters = self.waiters.lock();
        drop(waiter);
        if waiters.get(&queue).is_some_and(|waiter| Arc::strong_count(waiter) == 1) {
            waiters.remove(&queue);
        }
    }

    fn deliver(&self, attachment: u64, mut delivery: Delivery) {
        // No stream here: this node is a follower, or the stream broke and its detach is under way.
        let attachments = self.attachments.lock();
        let Some(sink) = attachments.get(&attachment) else { return };
        if let Some(message) = &delivery.message {
            let bytes = message.content.body.len();
            if sink.inline_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > INLINE_BYTES_MAX {
                sink.inline_bytes.fetch_sub(bytes, Ordering::Relaxed);
                delivery.message = None;
            }
        }
        sink.send(attachment, StreamEvent::Deliver(delivery));
    }

    fn close(&self, attachment: u64, reason: CloseReason) {
        let mut attachments = self.attachments.lock();
        if let Some(sink) = attachments.remove(&attachment) {
            self.metrics.consumers.set(attachments.len() as i64);
            sink.send(attachment, StreamEvent::Close(reason));
        }
    }
}

impl Sink {
    fn send(&self, attachment: u64, event: StreamEvent) {
        if self.events.try_send((attachment, event)).is_err() {
            // More events than credit allows, or gone: its consumers will attach anew, and say what they hold.
            self.ended.cancel();
        }
    }
}

impl EffectSink for Hub {
    fn effects(&self, effects: Vec<Effect>, released_due_ms: Vec<u64>) {
        for effect in effects {
            match effect {
                Effect::Deliver { attachment, delivery, .. } => self.deliver(attachment, delivery),
                Effect::CloseConsumer { attachment, reason, .. } => self.close(attachment, reason),
                Effect::UsersChanged => self.users_changed.notify_one(),
                Effect::Wake { queue } => {
                    if let Some(waiter) = self.waiters.lock().get(&queue) {
                        waiter.notify_one();
                    }
                }
            }
        }
        let leads = self.leads.lock().as_ref().is_some_and(|leadership| leadership.borrow().is_local);
        if leads && !released_due_ms.is_empty() {
            let now_ms = self.clock.now_ms();
            for due_ms in released_due_ms {
                self.metrics.release_lateness.observe(now_ms.saturating_sub(due_ms) as f64 / 1000.0);
            }
        }
    }

    fn replaced(&self) {
        self.users_changed.notify_one();
    }
}

impl Subscription {
    /// Takes in a consumer, before its attach command is proposed.
    pub fn add(&mut self, attachment: u64) {
        self.attachments.insert(attachment);
        let mut attachments = self.hub.attachments.lock();
        attachments.insert(attachment, self.sink.clone());
        self.hub.metrics.consumers.set(attachments.len() as i64);
    }

    /// Lets go of a consumer.
    pub fn remove(&mut self, attachment: u64) {
        self.attachments.remove(&attachment);
        let mut attachments = self.hub.attachments.lock();
        attachments.remove(&attachment);
        self.hub.metrics.consumers.set(attachments.len() as i64);
    }

    /// Waits for events and takes up to `limit` of them, each with the attachment that it is about. Empty: the stream is
    /// to end, since this node does not lead any more.
    pub async fn next(&mut self, limit: usize) -> Vec<(u64, StreamEvent)> {
        let mut events = Vec::new();
        tokio::select! {
            biased;
            () = self.sink.ended.cancelled() => return events,
            _ = self.events.recv_many(&mut events, limit) => {}
        }
        for (_, event) in &events {
            if let StreamEvent::Deliver(Delivery { message: Some(message), .. }) = event {
                self.sink.inline_bytes.fetch_sub(message.content.body.len(), Ordering::Relaxed);
            }
        }
        events
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for attachment in std::mem::take(&mut self.attachments) {
            self.remove(attachment);
        }
        self.hub.metrics.streams.dec();
    }
}
