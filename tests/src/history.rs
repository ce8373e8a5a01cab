//! What producers and consumers saw of a cluster, and the promises that it must keep.
//!
//! A [`Recorder`] is written to by every client while a test runs. [`History::check`] then judges what was
//! written down, and knows nothing of how the servers work. All times are microseconds since the Unix epoch, read
//! from the one clock of the machine that clients and servers share.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::environment::now_us;
use crate::report::{Distribution, milliseconds};

/// A delivery that was sent before a server was killed may still wait in a socket's buffer: it is received a
/// moment after the kill although it was leased before it.
const RECEIVED_AFTER_KILL_US: u64 = 100_000;
/// An acknowledgement may be confirmed while a repeated delivery waits inside the client to be looked at. After
/// this long it does not, and the confirmed acknowledgement was undone.
const ACKNOWLEDGED_GRACE_US: u64 = 1_000_000;

/// When a message was asked to become visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// This many milliseconds after it is stored.
    AfterMs(u64),
    /// At this time, in milliseconds since the Unix epoch.
    AtMs(u64),
}

/// One message as its producer knows it.
#[derive(Debug, Clone)]
pub struct Published {
    /// When it was asked for.
    pub due: Due,
    /// Before the client was given it.
    pub sent_at_us: u64,
    /// When the confirm came; none if it did not come, and the message may or may not be stored.
    pub confirmed_at_us: Option<u64>,
}

/// One delivery as its consumer knows it.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// Of the message.
    pub id: u64,
    /// Who got it.
    pub consumer: usize,
    /// When.
    pub received_at_us: u64,
    /// When it was ready, by the server.
    pub ready_at_ms: u64,
    /// How often it came back before, by the server.
    pub delivery_count: u32,
    /// When its acknowledgement was confirmed; none if it was not.
    pub acknowledged_at_us: Option<u64>,
}

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// By the message's number.
    pub published: BTreeMap<u64, Published>,
    /// In the order of being received.
    pub delivered: Vec<Delivered>,
    /// When servers were killed.
    pub kills_us: Vec<u64>,
}

/// Writes a history down while it happens. Clones write to the same one.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    history: Arc<Mutex<History>>,
}

/// Names a delivery in its recorder.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryIndex(usize);

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, History> {
        // A panic elsewhere leaves what was written before it intact.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before the message is handed to the client.
    pub fn sent(&self, id: u64, due: Due) {
        let published = Published { due, sent_at_us: now_us(), confirmed_at_us: None };
        self.lock().published.insert(id, published);
    }

    /// The message's confirm came.
    pub fn confirmed(&self, id: u64) {
        let now = now_us();
        if let Some(published) = self.lock().published.get_mut(&id) {
            published.confirmed_at_us = Some(now);
        }
    }

    /// A message came; `received_at_us` is when.
    pub fn received(&self, delivered: Delivered) -> DeliveryIndex {
        let mut history = self.lock();
        history.delivered.push(delivered);
        DeliveryIndex(history.delivered.len() - 1)
    }

    /// The acknowledgement of a delivery was confirmed.
    pub fn acknowledged(&self, delivery: DeliveryIndex) {
        let now = now_us();
        if let Some(delivered) = self.lock().delivered.get_mut(delivery.0) {
            delivered.acknowledged_at_us = Some(now);
        }
    }

    /// A server is killed now. To be called just before it is.
    pub fn killed(&self) -> u64 {
        let now = now_us();
        self.lock().kills_us.push(now);
        now
    }

    /// How many messages are confirmed, how many deliveries were received.
    pub fn progress(&self) -> (usize, usize) {
        let history = self.lock();
        let confirmed = history.published.values().filter(|published| published.confirmed_at_us.is_some()).count();
        (confirmed, history.delivered.len())
    }

    /// Confirmed messages that have not been delivered yet.
    pub fn missing(&self) -> Vec<u64> {
        self.lock().missing()
    }

    /// What was seen so far.
    pub fn history(&self) -> History {
        self.lock().clone()
    }
}

impl History {
    /// Confirmed messages that nobody received.
    pub fn missing(&self) -> Vec<u64> {
        let received: std::collections::BTreeSet<u64> = self.delivered.iter().map(|delivered| delivered.id).collect();
        let confirmed = self.published.iter().filter(|(_, published)| published.confirmed_at_us.is_some());
        confirmed.map(|(id, _)| *id).filter(|id| !received.contains(id)).collect()
    }

    /// Judges the history. `unmeasured` are spans of time: lateness of what fell due in them is left out of
    /// [`Verdict::lateness`], and nothing else is.
    pub fn check(&self, unmeasured: &[Range<u64>]) -> Verdict {
        let mut verdict = Verdict {
            sent: self.published.len(),
            confirmed: self.published.values().filter(|published| published.confirmed_at_us.is_some()).count(),
            confirm_latency: self.confirm_latency(),
            deliveries: self.delivered.len(),
            longest_confirm_gap_us: self.longest_confirm_gap_us(),
            ..Verdict::default()
        };
        verdict.violations.extend(self.missing().into_iter().map(Violation::Lost));
        let mut lateness = Vec::with_capacity(self.delivered.len());
        let began_us = self.published.values().map(|published| published.sent_at_us).min().unwrap_or(0);
        for (id, deliveries) in self.deliveries_by_message() {
            let Some(published) = self.published.get(&id) else {
                verdict.violations.push(Violation::NeverSent(id));
                continue;
            };
            verdict.violations.extend(deliveries.iter().filter_map(|delivered| early(published, delivered)));
            let first = deliveries[0];
            verdict.violations.extend(wrong_due(published, first));
            let due_us = first.ready_at_ms * 1000;
            if !unmeasured.iter().any(|span| span.contains(&due_us)) {
                let late_us = first.received_at_us.saturating_sub(due_us);
                lateness.push(late_us);
                let second = due_us.saturating_sub(began_us) / 1_000_000;
                let worst = verdict.worst_lateness_by_second.entry(second).or_default();
                *worst = late_us.max(*worst);
            }
            self.judge_duplicates(&deliveries, &mut verdict);
        }
        verdict.lateness = Distribution::new(lateness);
        verdict
    }

    /// Each message's deliveries, by the time of being received; none is empty.
    fn deliveries_by_message(&self) -> BTreeMap<u64, Vec<&Delivered>> {
        let mut by_message: BTreeMap<u64, Vec<&Delivered>> = BTreeMap::new();
        for delivered in &self.delivered {
            by_message.entry(delivered.id).or_default().push(delivered);
        }
        for deliveries in by_message.values_mut() {
            deliveries.sort_by_key(|delivered| delivered.received_at_us);
        }
        by_message
    }

    fn judge_duplicates(&self, deliveries: &[&Delivered], verdict: &mut Verdict) {
        for pair in deliveries.windows(2) {
            if self.may_repeat(pair[0], pair[1]) {
                verdict.allowed_duplicates += 1;
            } else {
                let id = pair[1].id;
                verdict.violations.push(Violation::Duplicate { id, at_us: pair[1].received_at_us });
            }
        }
    }

    /// True if a kill between the two deliveries explains the second: the first was out at that moment, and its
    /// consumer had not acknowledged it.
    fn may_repeat(&self, first: &Delivered, second: &Delivered) -> bool {
        let acknowledged = first.acknowledged_at_us.unwrap_or(u64::MAX);
        let undone = second.received_at_us > acknowledged.saturating_add(ACKNOWLEDGED_GRACE_US);
        let explained = self.kills_us.iter().any(|kill| {
            let leased = first.received_at_us <= kill + RECEIVED_AFTER_KILL_US;
            leased && acknowledged > *kill && second.received_at_us > *kill
        });
        explained && !undone
    }

    fn confirm_latency(&self) -> Distribution {
        let latency = |published: &Published| Some(published.confirmed_at_us?.saturating_sub(published.sent_at_us));
        Distribution::new(self.published.values().filter_map(latency).collect())
    }

    /// The longest time between one confirm and the next.
    fn longest_confirm_gap_us(&self) -> u64 {
        let mut confirms: Vec<u64> =
            self.published.values().filter_map(|published| published.confirmed_at_us).collect();
        confirms.sort_unstable();
        confirms.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }
}

/// The message came before the time that its producer asked for.
fn early(published: &Published, delivered: &Delivered) -> Option<Violation> {
    let due_us = match published.due {
        Due::AtMs(at_ms) => at_ms * 1000,
        // It was stored after it was sent, by a clock of whole milliseconds.
        Due::AfterMs(delay_ms) => (published.sent_at_us / 1000 + delay_ms) * 1000,
    };
    let early_us = due_us.checked_sub(delivered.received_at_us).filter(|early| *early > 0)?;
    Some(Violation::Early { id: delivered.id, by_us: early_us })
}

/// The server's own idea of the due time, from which lateness is counted, is not what the producer asked for.
fn wrong_due(published: &Published, delivered: &Delivered) -> Option<Violation> {
    let stored_from_ms = published.sent_at_us / 1000;
    let stored_to_ms = published.confirmed_at_us.map(|confirmed| confirmed.div_ceil(1000));
    let possible = match published.due {
        Due::AfterMs(delay_ms) => {
            stored_from_ms + delay_ms..=stored_to_ms.map_or(u64::MAX, |stored_ms| stored_ms + delay_ms)
        }
        Due::AtMs(at_ms) => at_ms.max(stored_from_ms)..=stored_to_ms.map_or(u64::MAX, |stored_ms| at_ms.max(stored_ms)),
    };
    let ready_at_ms = delivered.ready_at_ms;
    // A time that has passed may be kept as it was asked for, or taken as the time of being stored.
    let as_asked = matches!(published.due, Due::AtMs(at_ms) if at_ms == ready_at_ms);
    (!possible.contains(&ready_at_ms) && !as_asked).then_some(Violation::WrongDue { id: delivered.id, ready_at_ms })
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Confirmed, and never delivered.
    Lost(u64),
    /// Delivered, and never sent.
    NeverSent(u64),
    /// Delivered before its time.
    Early {
        /// The message.
        id: u64,
        /// By how much.
        by_us: u64,
    },
    /// The server says that it was due at a time that nobody asked for.
    WrongDue {
        /// The message.
        id: u64,
        /// What the server says.
        ready_at_ms: u64,
    },
    /// Delivered again, and no kill explains it.
    Duplicate {
        /// The message.
        id: u64,
        /// When it came again.
        at_us: u64,
    },
}

/// What a history comes to.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Messages that producers sent.
    pub sent: usize,
    /// Of these, confirmed.
    pub confirmed: usize,
    /// From sent to confirmed.
    pub confirm_latency: Distribution,
    /// Deliveries, repeated ones too.
    pub deliveries: usize,
    /// Repeated deliveries that a kill explains.
    pub allowed_duplicates: usize,
    /// From due to received, of each message's first delivery.
    pub lateness: Distribution,
    /// The largest lateness of what fell due in each second since the first message was sent.
    pub worst_lateness_by_second: BTreeMap<u64, u64>,
    /// The longest time between one confirm and the next.
    pub longest_confirm_gap_us: u64,
    /// Everything that must not be.
    pub violations: Vec<Violation>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "sent                 {}", self.sent)?;
        writeln!(formatter, "confirmed            {}", self.confirmed)?;
        writeln!(formatter, "confirm latency      {}", self.confirm_latency)?;
        writeln!(formatter, "deliveries           {}", self.deliveries)?;
        writeln!(formatter, "allowed duplicates   {}", self.allowed_duplicates)?;
        writeln!(formatter, "lateness             {}", self.lateness)?;
        let worst = self.worst_lateness_by_second.iter().map(|(second, us)| format!("{second}:{}", us / 1000));
        writeln!(formatter, "worst by second, ms  {}", worst.collect::<Vec<_>>().join(" "))?;
        writeln!(formatter, "longest confirm gap  {}", milliseconds(self.longest_confirm_gap_us))?;
        write!(formatter, "violations           {}", self.violations.len())?;
        for violation in self.violations.iter().take(20) {
            write!(formatter, "\n  {violation:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
