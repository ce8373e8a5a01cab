//! Which messages to revise, and how.

use std::time::{Duration, SystemTime};

use dwell_proto::v1;
use dwell_proto::v1::new_time::Visible;
use dwell_proto::v1::target::By;

use crate::message::{milliseconds, since_epoch_ms};

/// Certain messages of a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Target(v1::Target);

impl Target {
    /// The message that this handle names.
    pub fn handle(handle: &v1::Handle) -> Target {
        Target::sequences(handle.queue.clone(), [handle.sequence])
    }

    /// The messages of a queue whose handles have these sequences. 1 to 1000.
    pub fn sequences(queue: impl Into<String>, sequences: impl IntoIterator<Item = u64>) -> Target {
        let sequences = v1::Sequences { sequences: sequences.into_iter().collect() };
        Target(v1::Target { queue: queue.into(), by: Some(By::Sequences(sequences)), revoke: false, after: 0 })
    }

    /// All messages of a queue with this [`PublishMessage::message_id`](crate::PublishMessage::message_id); at most
    /// 1000 at a time.
    pub fn message_id(queue: impl Into<String>, message_id: impl Into<String>) -> Target {
        Target(v1::Target { queue: queue.into(), by: Some(By::MessageId(message_id.into())), revoke: false, after: 0 })
    }

    /// Leased messages too: their leases are cut, and their consumers' acknowledgements answer that they are lost.
    pub fn revoke(mut self) -> Target {
        self.0.revoke = true;
        self
    }

    /// By message id: only messages with greater sequences than this. To go on after an answer that says
    /// [`has_more`](super::Revision::has_more), the sequence of its last message.
    pub fn after(mut self, sequence: u64) -> Target {
        self.0.after = sequence;
        self
    }

    pub(super) fn into_proto(self) -> v1::Target {
        self.0
    }
}

/// The messages of a queue that match: all of them, unless conditions are added, which must all hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    queue: String,
    filter: v1::Filter,
    revoke: bool,
}

impl Selection {
    /// All messages of a queue.
    pub fn all(queue: impl Into<String>) -> Selection {
        Selection { queue: queue.into(), filter: v1::Filter::default(), revoke: false }
    }

    /// Those in this state, or another one that is named so.
    pub fn state(mut self, state: v1::MessageState) -> Selection {
        self.filter.states.push(state.into());
        self
    }

    /// Those with this header, with exactly this value.
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Selection {
        self.filter.headers.insert(key.into(), value.into());
        self
    }

    /// Those due, or become ready, at this time or later, in milliseconds since the Unix epoch.
    pub fn due_from_ms(mut self, at_ms: i64) -> Selection {
        self.filter.due_from_ms = Some(at_ms);
        self
    }

    /// Those due, or become ready, before this time, in milliseconds since the Unix epoch.
    pub fn due_before_ms(mut self, at_ms: i64) -> Selection {
        self.filter.due_before_ms = Some(at_ms);
        self
    }

    /// Those of this priority or a higher one.
    pub fn priority_min(mut self, priority: u8) -> Selection {
        self.filter.priority_min = priority.into();
        self
    }

    /// Those of this priority or a lower one.
    pub fn priority_max(mut self, priority: u8) -> Selection {
        self.filter.priority_max = Some(priority.into());
        self
    }

    /// Leased messages too: their leases are cut.
    pub fn revoke(mut self) -> Selection {
        self.revoke = true;
        self
    }

    pub(super) fn into_proto(self) -> v1::Selection {
        v1::Selection { queue: self.queue, filter: Some(self.filter), revoke: self.revoke }
    }
}

/// Another due time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewTime(Visible);

impl NewTime {
    /// Ready this long after the change is committed. At most ten years, in whole milliseconds.
    pub fn after(delay: Duration) -> NewTime {
        NewTime(Visible::DelayMs(milliseconds(delay)))
    }

    /// Ready at this time; at once if it has passed. Within ten years of now.
    pub fn at(at: SystemTime) -> NewTime {
        NewTime::at_ms(since_epoch_ms(at))
    }

    /// The same in milliseconds since the Unix epoch.
    pub fn at_ms(at_ms: i64) -> NewTime {
        NewTime(Visible::DeliverAtMs(at_ms))
    }

    pub(super) fn into_proto(self) -> v1::NewTime {
        v1::NewTime { visible: Some(self.0) }
    }
}
