//! Where the effects of applied entries meet the streams and calls that wait for them.
//!
//! Called in the apply path, so nothing here waits. What a stream does not take is bounded: its events by the
//! credit of its consumer, and the bodies in them by [`INLINE_BYTES_MAX`]; beyond that an event carries no body,
//! and the stream reads it from the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dwell_consensus::clock::Clock;
use dwell_consensus::group::EffectSink;
use dwell_consensus::leadership::Leadership;
use dwell_machine::limits::CREDIT_MAX;
use dwell_machine::{CloseReason, Delivery, Effect};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use crate::metrics::HubMetrics;

/// Most bytes of bodies waiting for one stream.
const INLINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a consumer's stream is told.
#[derive(Debug)]
pub enum StreamEvent {
    /// Send this.
    Deliver(Delivery),
    /// End.
    Close(CloseReason),
}

struct Sink {
    events: mpsc::Sender<StreamEvent>,
    inline_bytes: Arc<AtomicUsize>,
}

/// The streams and waiting calls of one group on this node.
pub struct Hub {
    streams: Mutex<HashMap<u64, Sink>>,
    waiters: Mutex<HashMap<u64, Arc<Notify>>>,
    clock: Arc<dyn Clock>,
    leads: Mutex<Option<watch::Receiver<Leadership>>>,
    metrics: HubMetrics,
}

/// A consumer stream's end of the hub; unregisters when dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    attachment: u64,
    events: mpsc::Receiver<StreamEvent>,
    inline_bytes: Arc<AtomicUsize>,
}

impl Hub {
    /// A hub without streams.
    pub fn new(clock: Arc<dyn Clock>, metrics: HubMetrics) -> Arc<Hub> {
        Arc::new(Hub { streams: Mutex::default(), waiters: Mutex::default(), clock, leads: Mutex::default(), metrics })
    }

    /// Ends all streams whenever the leadership changes.
    pub fn follow(self: &Arc<Self>, mut leadership: watch::Receiver<Leadership>) {
        *self.leads.lock() = Some(leadership.clone());
        let hub = Arc::clone(self);
        tokio::spawn(async move {
            // Every change, also to leading again: the first entry of a leadership detaches all consumers.
            while leadership.changed().await.is_ok() {
                // Dropping the sinks ends the subscriptions.
                hub.streams.lock().clear();
                hub.metrics.streams.set(0);
            }
        });
    }

    /// Registers a stream, before its attach command is proposed.
    pub fn subscribe(self: &Arc<Self>, attachment: u64) -> Subscription {
        let (sender, events) = mpsc::channel(CREDIT_MAX as usize + 1);
        let inline_bytes = Arc::new(AtomicUsize::new(0));
        let mut streams = self.streams.lock();
        streams.insert(attachment, Sink { events: sender, inline_bytes: inline_bytes.clone() });
        self.metrics.streams.set(streams.len() as i64);
        Subscription { hub: self.clone(), attachment, events, inline_bytes }
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
        let mut streams = self.streams.lock();
        // No stream here: this node is a follower, or the stream broke and its detach is under way.
        let Some(sink) = streams.get(&attachment) else { return };
        if let Some(message) = &delivery.message {
            let bytes = message.content.body.len();
            if sink.inline_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > INLINE_BYTES_MAX {
                sink.inline_bytes.fetch_sub(bytes, Ordering::Relaxed);
                delivery.message = None;
            }
        }
        if sink.events.try_send(StreamEvent::Deliver(delivery)).is_err() {
            // More events than its credit allows, or gone: it will reconnect and say what it holds.
            streams.remove(&attachment);
        }
    }
}

impl EffectSink for Hub {
    fn effects(&self, effects: Vec<Effect>, released_due_ms: Vec<u64>) {
        for effect in effects {
            match effect {
                Effect::Deliver { attachment, delivery, .. } => self.deliver(attachment, delivery),
                Effect::CloseConsumer { attachment, reason, .. } => {
                    if let Some(sink) = self.streams.lock().remove(&attachment) {
                        // A full channel ends the stream all the same: the sender is dropped.
                        let _ = sink.events.try_send(StreamEvent::Close(reason));
                    }
                }
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
}

impl Subscription {
    /// Waits for events and takes up to `limit` of them. Empty: the stream is to end, since this node does not
    /// lead any more.
    pub async fn next(&mut self, limit: usize) -> Vec<StreamEvent> {
        let mut events = Vec::new();
        self.events.recv_many(&mut events, limit).await;
        for event in &events {
            if let StreamEvent::Deliver(Delivery { message: Some(message), .. }) = event {
                self.inline_bytes.fetch_sub(message.content.body.len(), Ordering::Relaxed);
            }
        }
        events
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut streams = self.hub.streams.lock();
        streams.remove(&self.attachment);
        self.hub.metrics.streams.set(streams.len() as i64);
    }
}
