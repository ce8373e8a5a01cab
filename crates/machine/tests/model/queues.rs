//! The reference machine's rules for queues: their settings, and who gets their messages.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use dwell_machine::{
    CloseReason, DeclareQueue, DeleteQueue, Delivery, DestinationKind, Effect, QueueSettings, Receive, Refusal, Reply,
    Totals, UpdateQueue,
};

use crate::reference::{Message, Place, Queue, Reference};

/// Priorities end here.
const PRIORITY_MAX: u64 = 255;

/// Each setting's name and value, in the order of their tags.
fn listed(settings: &QueueSettings) -> [(&'static str, String); 15] {
    [
        ("lease_timeout_ms", settings.lease_timeout_ms.to_string()),
        ("delivery_limit", settings.delivery_limit.to_string()),
        ("default_delay_ms", settings.default_delay_ms.to_string()),
        ("message_ttl_ms", settings.message_ttl_ms.to_string()),
        ("idle_ttl_ms", settings.idle_ttl_ms.to_string()),
        ("messages_max", settings.messages_max.to_string()),
        ("bytes_max", settings.bytes_max.to_string()),
        ("overflow", settings.overflow.to_string()),
        ("dead_letter", format!("{:?}", settings.dead_letter)),
        ("priority_max", format!("{:?}", settings.priority_max)),
        ("dedupe_window_ms", settings.dedupe_window_ms.to_string()),
        ("single_active_consumer", settings.single_active_consumer.to_string()),
        ("paused", settings.paused.to_string()),
        ("backoff", format!("{:?}", settings.backoff)),
        ("aging_ms", settings.aging_ms.to_string()),
    ]
}

impl Reference {
    pub fn declare(&mut self, declare: &DeclareQueue) -> Result<Reply, Refusal> {
        let now_ms = self.now_ms;
        if let Some(queue) = self.queues.iter_mut().find(|queue| queue.name == declare.queue) {
            let (there, asked) = (listed(&queue.settings), listed(&declare.settings));
            if let Some((there, _)) = there.iter().zip(&asked).find(|(there, asked)| there != asked) {
                return Err(Refusal::QueueDiffers { queue: declare.queue.clone(), field: there.0 });
            }
            queue.last_used_ms = now_ms;
            return Ok(Reply::QueueDeclared { created: false });
        }
        self.last_queue += 1;
        self.queues.push(Queue {
            id: self.last_queue,
            name: declare.queue.clone(),
            settings: declare.settings.clone(),
            created_at_ms: now_ms,
            totals: Totals::default(),
            last_served: 0,
            last_used_ms: now_ms,
            active_consumer: 0,
            current: Default::default(),
        });
        Ok(Reply::QueueDeclared { created: true })
    }

    pub fn update(&mut self, update: &UpdateQueue) -> Result<Reply, Refusal> {
        let id = self.find(&update.queue)?;
        let known = listed(&update.settings);
        for field in &update.fields {
            if !known.iter().any(|(name, _)| name == field) {
                return Err(Refusal::SettingUnknown { field: field.clone() });
            }
            if ["priority_max", "single_active_consumer"].contains(&field.as_str()) {
                return Err(Refusal::SettingFixed { field: field.clone() });
            }
        }
        let (now_ms, new) = (self.now_ms, update.settings.clone());
        let queue = self.queue_mut(id);
        queue.last_used_ms = now_ms;
        let settings = &mut queue.settings;
        for field in &update.fields {
            match field.as_str() {
                "lease_timeout_ms" => settings.lease_timeout_ms = new.lease_timeout_ms,
                "delivery_limit" => settings.delivery_limit = new.delivery_limit,
                "default_delay_ms" => settings.default_delay_ms = new.default_delay_ms,
                "message_ttl_ms" => settings.message_ttl_ms = new.message_ttl_ms,
                "idle_ttl_ms" => settings.idle_ttl_ms = new.idle_ttl_ms,
                "messages_max" => settings.messages_max = new.messages_max,
                "bytes_max" => settings.bytes_max = new.bytes_max,
                "overflow" => settings.overflow = new.overflow,
                "dead_letter" => settings.dead_letter = new.dead_letter.clone(),
                "dedupe_window_ms" => settings.dedupe_window_ms = new.dedupe_window_ms,
                "paused" => settings.paused = new.paused,
                "backoff" => settings.backoff = new.backoff.clone(),
                "aging_ms" => settings.aging_ms = new.aging_ms,
                field => panic!("setting {field} was let through"),
            }
        }
        self.dispatch_returned(id);
        Ok(Reply::Done)
    }

    pub fn delete(&mut self, delete: &DeleteQueue) -> Result<Reply, Refusal> {
        let id = self.find(&delete.queue)?;
        let (messages, consumers) = (self.total(id), self.consumer_count(id));
        if delete.if_empty && messages > 0 {
            return Err(Refusal::QueueNotEmpty { queue: delete.queue.clone(), messages });
        }
        if delete.if_unused && consumers > 0 {
            return Err(Refusal::QueueInUse { queue: delete.queue.clone(), consumers });
        }
        self.remove_queue(id);
        Ok(Reply::QueueDeleted { messages })
    }

    /// Takes a queue from sight, with all that is its.
    pub fn remove_queue(&mut self, id: u64) {
        for (&consumer, session) in self.consumers.iter().filter(|(_, session)| session.queue == id) {
            if session.session_deadline_ms.is_none() {
                let (attachment, reason) = (session.attachment, CloseReason::QueueDeleted);
                self.effects.push(Effect::CloseConsumer { consumer, attachment, reason });
            }
        }
        let name = self.queue(id).name.clone();
        self.bindings.retain(|_, binding| {
            binding.destination_kind != DestinationKind::Queue as i32 || binding.destination != name
        });
        self.dedupe.retain(|(queue, _), _| *queue != id);
        self.consumers.retain(|_, consumer| consumer.queue != id);
        self.messages.retain(|_, message| message.queue != id);
        self.queues.retain(|queue| queue.id != id);
    }

    /// When a queue is to be deleted because nobody used it.
    pub fn idle_at_ms(&self, queue: &Queue) -> Option<u64> {
        let is_idle = queue.settings.idle_ttl_ms > 0 && self.consumer_count(queue.id) == 0;
        is_idle.then_some(queue.last_used_ms + queue.settings.idle_ttl_ms)
    }

    pub fn receive(&mut self, receive: &Receive) -> Result<Reply, Refusal> {
        let queue = self.find(&receive.queue)?;
        if self.queue(queue).settings.single_active_consumer {
            return Err(Refusal::SingleActiveConsumer { queue: receive.queue.clone() });
        }
        self.queue_mut(queue).last_used_ms = self.now_ms;
        let mut deliveries = Vec::new();
        while deliveries.len() < receive.messages_max as usize && !self.queue(queue).settings.paused {
            let Some(sequence) = self.first_lasting(queue) else { break };
            deliveries.push(self.lease(sequence, 0, receive.lease_timeout_ms));
        }
        Ok(Reply::Received { queue, deliveries })
    }

    /// Ready messages of a queue that need not wait for others of their group.
    pub fn eligible(&self, id: u64) -> BTreeSet<u64> {
        let current = &self.queue(id).current;
        let (mut eligible, mut first_of_group) = (BTreeSet::new(), BTreeMap::new());
        let ready = self.messages.iter().filter(|(_, message)| message.queue == id && message.place == Place::Ready);
        for (&sequence, message) in ready {
            let (group, position) = (message.record.group.as_str(), lane_position(sequence, message));
            match current.get(group) {
                _ if group.is_empty() => drop(eligible.insert(sequence)),
                Some(current) => eligible.extend((*current == sequence).then_some(sequence)),
                None => {
                    let first = first_of_group.entry(group).or_insert(position);
                    *first = position.min(*first);
                }
            }
        }
        eligible.extend(first_of_group.into_values().map(|(_, _, sequence)| sequence));
        eligible
    }

    /// The ready message that is to be delivered next.
    fn first_ready(&self, queue: u64) -> Option<u64> {
        let aging_ms = self.queue(queue).settings.aging_ms;
        let position = |sequence: &u64| {
            let message = &self.messages[sequence];
            let waited_ms = self.now_ms.saturating_sub(message.ready_at_ms);
            let gained = waited_ms.checked_div(aging_ms).unwrap_or(0);
            let priority = (u64::from(message.record.priority) + gained).min(PRIORITY_MAX);
            (Reverse(priority), message.ready_at_ms, *sequence)
        };
        self.eligible(queue).into_iter().min_by_key(position)
    }

    /// The same, once those before it are dropped whose time is over: a pulse need not have come for them.
    fn first_lasting(&mut self, queue: u64) -> Option<u64> {
        while let Some(sequence) = self.first_ready(queue) {
            if !self.is_over(sequence) {
                return Some(sequence);
            }
            self.expire(sequence);
        }
        None
    }

    /// Leases a message to a consumer, or to nobody (0); a timeout of 0 is the queue's.
    fn lease(&mut self, sequence: u64, consumer: u64, timeout_ms: u64) -> Delivery {
        self.last_token += 1;
        let (now_ms, token) = (self.now_ms, self.last_token);
        let (id, group) = (self.messages[&sequence].queue, self.messages[&sequence].record.group.clone());
        let queue = self.queue_mut(id);
        queue.totals.delivered += 1;
        if !group.is_empty() {
            queue.current.insert(group, sequence);
        }
        let timeout_ms = if timeout_ms == 0 { queue.settings.lease_timeout_ms } else { timeout_ms };
        self.message(sequence).place = Place::Leased { token, consumer, deadline_ms: now_ms + timeout_ms };
        self.delivery(sequence)
    }

    /// A leased message as its consumer is told of it.
    pub fn delivery(&self, sequence: u64) -> Delivery {
        let message = &self.messages[&sequence];
        let Place::Leased { token, deadline_ms, .. } = message.place else {
            panic!("message {sequence} is not leased: {message:?}");
        };
        Delivery {
            queue: message.queue,
            sequence,
            token,
            delivery_count: message.delivery_count,
            ready_at_ms: message.ready_at_ms,
            deadline_ms,
            message: None,
        }
    }

    /// Leases ready messages while anybody can take one.
    pub fn dispatch(&mut self, queue: u64) {
        while let Some(consumer) = self.next_taker(queue) {
            let Some(sequence) = self.first_lasting(queue) else { break };
            self.queue_mut(queue).last_served = consumer;
            let (attachment, delivery) = (self.consumers[&consumer].attachment, self.lease(sequence, consumer, 0));
            self.effects.push(Effect::Deliver { consumer, attachment, delivery });
        }
    }

    /// The consumer whose turn it is, of those that may hold one more.
    fn next_taker(&self, id: u64) -> Option<u64> {
        let queue = self.queues.iter().find(|queue| queue.id == id && !queue.settings.paused)?;
        let takes = |key: u64| {
            let consumer = &self.consumers[&key];
            consumer.queue == id
                && consumer.session_deadline_ms.is_none()
                && (self.held_by(key).len() as u64) < consumer.credit
                && (!queue.settings.single_active_consumer || queue.active_consumer == key)
        };
        let takers = self.consumers.keys().copied().filter(|key| takes(*key));
        takers.min_by_key(|key| (*key <= queue.last_served, *key))
    }

    /// Dispatches after messages came, or came back, which is when waiting receive calls may have to be woken.
    pub fn dispatch_returned(&mut self, queue: u64) {
        self.dispatch(queue);
        self.allow_wake(queue);
    }

    /// A receive call may be woken, if there is something for it.
    pub fn allow_wake(&mut self, queue: u64) {
        if !self.queue(queue).settings.paused && !self.eligible(queue).is_empty() {
            self.wakes_allowed.insert(queue);
        }
    }
}

/// Where a message stands among the ready ones, but for aging.
pub fn lane_position(sequence: u64, message: &Message) -> (Reverse<u32>, u64, u64) {
    (Reverse(message.record.priority), message.ready_at_ms, sequence)
}
