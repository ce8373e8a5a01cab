//! The reference machine's rules for the life of a message: it is settled, comes back, becomes due.

use dwell_machine::{
    Ack, BackoffKind, DeathReason, Extend, Lease, Nack, Refusal, Reply,
    limits::{HORIZON_MS, PRODUCER_IDLE_MS, SCHEDULE_KEPT_MS},
};

use crate::reference::{Place, Reference};

/// How a lease ended without an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// Nacked; a delay of 0 is none.
    Nack { delay_ms: u64, immediate: bool },
    /// Its own timeout, or its consumer's.
    Timeout,
    /// The consumer closed.
    Close,
}

/// What falls due by time, in the order in which that of the same time is worked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    Release { queue: u64, sequence: u64 },
    Expiry { queue: u64, sequence: u64 },
    Dedupe,
    Producer,
    Schedule { id: u64 },
    Idle { queue: u64 },
}

impl Reference {
    pub fn ack(&mut self, ack: &Ack) -> Result<Reply, Refusal> {
        let (queue, reply) = self.settle(&ack.queue, &ack.leases, |this, queue, sequence| {
            this.take_away(sequence);
            this.totals(queue).acknowledged += 1;
        })?;
        // Others of the messages' groups may have come to their turn.
        self.dispatch_returned(queue);
        Ok(reply)
    }

    pub fn nack(&mut self, nack: &Nack) -> Result<Reply, Refusal> {
        let how = Return::Nack { delay_ms: nack.delay_ms, immediate: nack.immediate };
        let (queue, reply) = self.settle(&nack.queue, &nack.leases, |this, queue, sequence| {
            if nack.reject {
                this.totals(queue).rejected += 1;
                this.die(sequence, DeathReason::Rejected);
            } else {
                this.give_back(sequence, how);
            }
        })?;
        self.dispatch_returned(queue);
        Ok(reply)
    }

    pub fn extend(&mut self, extend: &Extend) -> Result<Reply, Refusal> {
        let settled = self.settle(&extend.queue, &extend.leases, |this, queue, sequence| {
            let timeout_ms = match extend.lease_timeout_ms {
                0 => this.queue(queue).settings.lease_timeout_ms,
                timeout_ms => timeout_ms,
            };
            let now_ms = this.now_ms;
            if let Place::Leased { deadline_ms, .. } = &mut this.message(sequence).place {
                *deadline_ms = now_ms + timeout_ms;
            }
        });
        settled.map(|(_, reply)| reply)
    }

    /// Does something to each lease that is held, and lists those that are not.
    fn settle(
        &mut self,
        name: &str,
        leases: &[Lease],
        change: impl Fn(&mut Self, u64, u64),
    ) -> Result<(u64, Reply), Refusal> {
        let queue = self.find(name)?;
        let mut lost = Vec::new();
        for lease in leases {
            if self.is_held(queue, *lease) {
                change(self, queue, lease.sequence);
            } else {
                lost.push(*lease);
            }
        }
        Ok((queue, Reply::Settled { lost }))
    }

    pub fn is_held(&self, queue: u64, lease: Lease) -> bool {
        self.messages.get(&lease.sequence).is_some_and(|message| {
            message.queue == queue && matches!(message.place, Place::Leased { token, .. } if token == lease.token)
        })
    }

    /// Ends a lease without an acknowledgement.
    pub fn give_back(&mut self, sequence: u64, how: Return) {
        let now_ms = self.now_ms;
        let message = self.message(sequence);
        message.delivery_count += 1;
        let (queue, delivery_count) = (message.queue, message.delivery_count);
        self.totals(queue).returned += 1;
        let delivery_limit = self.queue(queue).settings.delivery_limit;
        if delivery_limit > 0 && delivery_count > delivery_limit {
            self.totals(queue).exhausted += 1;
            self.die(sequence, DeathReason::DeliveryLimit);
            return;
        }
        let delay_ms = match how {
            Return::Nack { delay_ms: delay_ms @ 1.., .. } => delay_ms,
            Return::Nack { immediate: true, .. } | Return::Close => 0,
            Return::Nack { .. } | Return::Timeout => self.backoff_ms(queue, delivery_count),
        };
        if delay_ms > 0 && !self.is_over(sequence) {
            let message = self.message(sequence);
            message.ready_at_ms = now_ms + delay_ms;
            message.place = Place::Scheduled;
        } else {
            self.become_ready(sequence);
        }
    }

    /// How long a message waits that came back so often.
    fn backoff_ms(&self, queue: u64, count: u32) -> u64 {
        let Some(backoff) = &self.queue(queue).settings.backoff else { return 0 };
        assert_eq!(backoff.jitter_percent, 0, "chance is the machine's own");
        let wait_ms = match backoff.kind() {
            BackoffKind::Fixed => backoff.base_ms,
            BackoffKind::Linear => backoff.base_ms.saturating_mul(count.into()),
            BackoffKind::Exponential => {
                let doubled = |wait_ms: u64, _| wait_ms.saturating_mul(2);
                (1..count).fold(backoff.base_ms, doubled)
            }
        };
        wait_ms.min(if backoff.cap_ms == 0 { HORIZON_MS } else { backoff.cap_ms })
    }

    /// Makes a message ready, unless its time is over.
    pub fn become_ready(&mut self, sequence: u64) {
        if self.is_over(sequence) {
            self.expire(sequence);
        } else {
            self.message(sequence).place = Place::Ready;
            self.fresh.insert(sequence);
        }
    }

    /// All that is due, without a bound: callers keep it below the bound of the machine's step.
    pub fn release(&mut self) -> Reply {
        let now_ms = self.now_ms;
        while let Some((at_ms, timer)) = self.timers().into_iter().filter(|due| due.0 <= now_ms).min() {
            match timer {
                Timer::Release { queue, sequence } => {
                    // Also if it came so late that the message expired meanwhile.
                    self.released_due_ms.push(self.messages[&sequence].ready_at_ms);
                    self.become_ready(sequence);
                    self.dispatch_returned(queue);
                }
                // It makes nothing ready. Whose turn in its group comes by it has it at the end of the command, or with
                // what becomes ready before: the higher priority goes first.
                Timer::Expiry { queue, sequence } => {
                    self.expire(sequence);
                    self.allow_wake(queue);
                }
                Timer::Dedupe => self.dedupe.retain(|_, (_, until_ms)| *until_ms != at_ms),
                Timer::Producer => {
                    self.producers.retain(|_, producer| producer.last_seen_ms + PRODUCER_IDLE_MS != at_ms);
                }
                Timer::Schedule { id } => self.release_schedule(id),
                Timer::Idle { queue } => self.remove_queue(queue),
            }
        }
        while let Some((_, queue, sequence)) = self.lease_deadlines().filter(|due| due.0 <= now_ms).min() {
            self.give_back(sequence, Return::Timeout);
            self.dispatch_returned(queue);
        }
        while let Some((_, consumer)) = self.session_deadlines().filter(|due| due.0 <= now_ms).min() {
            self.close(consumer, Return::Timeout);
        }
        Reply::Done
    }

    /// When something falls due next, if nothing else happens.
    pub fn next_due_ms(&self) -> Option<u64> {
        let timers = self.timers().into_iter().map(|due| due.0);
        let leases = self.lease_deadlines().map(|due| due.0);
        let sessions = self.session_deadlines().map(|due| due.0);
        timers.chain(leases).chain(sessions).min()
    }

    fn timers(&self) -> Vec<(u64, Timer)> {
        let mut timers = Vec::new();
        for (&sequence, message) in &self.messages {
            let (queue, expires_at_ms) = (message.queue, message.expires_at_ms);
            let expires_first = expires_at_ms != 0 && expires_at_ms <= message.ready_at_ms;
            if message.place == Place::Scheduled && !expires_first {
                timers.push((message.ready_at_ms, Timer::Release { queue, sequence }));
            }
            if matches!(message.place, Place::Scheduled | Place::Ready) && expires_at_ms != 0 {
                timers.push((expires_at_ms, Timer::Expiry { queue, sequence }));
            }
        }
        timers.extend(self.dedupe.values().map(|(_, until_ms)| (*until_ms, Timer::Dedupe)));
        for producer in self.producers.values() {
            timers.push((producer.last_seen_ms + PRODUCER_IDLE_MS, Timer::Producer));
        }
        for schedule in self.schedules.values().filter(|schedule| !schedule.paused) {
            let kept_until_ms = schedule.finished_at_ms + SCHEDULE_KEPT_MS;
            timers.push((schedule.next_due_ms.unwrap_or(kept_until_ms), Timer::Schedule { id: schedule.id }));
        }
        for queue in &self.queues {
            timers.extend(self.idle_at_ms(queue).map(|at_ms| (at_ms, Timer::Idle { queue: queue.id })));
        }
        timers
    }

    fn lease_deadlines(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.messages.iter().filter_map(|(&sequence, message)| match message.place {
            Place::Leased { deadline_ms, .. } => Some((deadline_ms, message.queue, sequence)),
            Place::Scheduled | Place::Ready => None,
        })
    }

    fn session_deadlines(&self) -> impl Iterator<Item = (u64, u64)> {
        self.consumers.iter().filter_map(|(&key, consumer)| Some((consumer.session_deadline_ms?, key)))
    }
}
