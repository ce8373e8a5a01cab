//! What gives way when a queue is full.

use std::cmp::Reverse;

use crate::command::Overflow;
use crate::limits::OVERFLOW_STEP_MAX;
use crate::machine::Step;
use crate::record::{Counts, DeathReason};
use crate::state::Queue;
use crate::store::{Store, StoreError};

/// So many messages, with so many bytes of bodies together.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Load {
    pub messages: u64,
    pub bytes: u64,
}

impl Queue {
    fn has_no_limit(&self) -> bool {
        self.settings.messages_max == 0 && self.settings.bytes_max == 0
    }

    /// True if a body fits in once everything else is out.
    fn can_ever_fit(&self, bytes: u64) -> bool {
        self.settings.bytes_max == 0 || bytes <= self.settings.bytes_max
    }

    /// True if the load fits in when the other one has left.
    pub fn fits(&self, coming: Load, leaving: Load) -> bool {
        let Counts { scheduled, ready, leased, bytes } = self.counts;
        let (messages_max, bytes_max) = (self.settings.messages_max, self.settings.bytes_max);
        (messages_max == 0 || scheduled + ready + leased - leaving.messages + coming.messages <= messages_max)
            && (bytes_max == 0 || (bytes - leaving.bytes).saturating_add(coming.bytes) <= bytes_max)
    }
}

impl<S: Store> Step<'_, S> {
    /// Makes room for one message, as the queue's policy says. False: there is none, and it is not to be stored.
    pub fn make_room(&mut self, queue_id: u64, bytes: u64, priority: u32) -> Result<bool, StoreError> {
        // Looked at first without noting a change: most queues have no limit.
        if self.machine.queues.get(&queue_id).is_some_and(Queue::has_no_limit) {
            return Ok(true);
        }
        let (newcomer_load, nothing) = (Load { messages: 1, bytes }, Load::default());
        for _ in 0..OVERFLOW_STEP_MAX {
            let queue = self.queue(queue_id);
            if queue.fits(newcomer_load, nothing) {
                return Ok(true);
            }
            let overflow = queue.settings.overflow();
            let newcomer = Reverse(queue.clamped(priority));
            // Lanes are ordered from the highest priority to the lowest.
            let has_victim = queue.lowest_lane().is_some_and(|lowest| lowest >= newcomer);
            if overflow == Overflow::Reject || !has_victim || !queue.can_ever_fit(bytes) {
                break;
            }
            self.push_out(queue_id, overflow)?;
        }
        // A transaction has been promised that its messages are stored.
        if self.in_transaction || self.queue(queue_id).fits(newcomer_load, nothing) {
            return Ok(true);
        }
        self.queue(queue_id).totals.refused += 1;
        Ok(false)
    }

    /// Ends the first ready message of the lowest priority.
    fn push_out(&mut self, queue_id: u64, overflow: Overflow) -> Result<(), StoreError> {
        let Some(queue) = self.machine.queues.get_mut(&queue_id) else { return Ok(()) };
        let Some((position, ticket)) = queue.take_lowest(self.store)? else { return Ok(()) };
        queue.totals.overflowed += 1;
        let death = (overflow == Overflow::DeadLetterHead).then_some(DeathReason::Overflow);
        self.end(queue_id, position.sequence, &ticket, death)
    }
}
