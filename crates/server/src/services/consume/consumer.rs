//! One consumer of a stream.

use dwell_consensus::proposer::Hurry;
use dwell_machine::Attach;
use dwell_proto::v1;

use super::attachment::Attachment;
use crate::hub::StreamEvent;

pub(super) struct StreamConsumer {
    pub(super) queue: String,
    pub(super) consumer_id: String,
    /// By which the machine knows it on this stream.
    pub(super) attachment_id: u64,
    pub(super) attachment: Attachment,
    pub(super) holding: Holding,
    pub(super) phase: Phase,
}

pub(super) enum Phase {
    /// With what came to it meanwhile: the entry that attaches it may deliver to it too.
    Attaching { early: Vec<StreamEvent> },
    /// As this consumer of the machine.
    Attached { consumer: u64 },
}

impl StreamConsumer {
    /// It is attached. Returns what came to it before.
    pub(super) fn attached(&mut self, consumer: u64) -> Vec<StreamEvent> {
        match std::mem::replace(&mut self.phase, Phase::Attached { consumer }) {
            Phase::Attaching { early } => early,
            Phase::Attached { .. } => Vec::new(),
        }
    }
}

/// What the client holds, as far as this stream has seen.
pub(super) struct Holding {
    pub(super) credit: u32,
    /// Some may have ended otherwise since: then what follows errs on the side of hurry.
    leases: usize,
    /// A message of an ordering group was among them.
    in_groups: bool,
}

impl Holding {
    pub(super) fn of(attach: &Attach) -> Holding {
        Holding { credit: attach.credit, leases: attach.holding.len(), in_groups: false }
    }

    pub(super) fn take(&mut self, delivery: &v1::Delivery) {
        self.leases += 1;
        self.in_groups |= !delivery.group.is_empty();
    }

    /// So many are acknowledged. That is in a hurry if another delivery may wait for it: that of the group's next
    /// message, or one for which the client's credit does not last. Otherwise it need not have a log entry of its own.
    pub(super) fn settle(&mut self, leases: usize) -> Hurry {
        let credit_is_short = self.leases.saturating_mul(2) >= self.credit as usize;
        self.leases = self.leases.saturating_sub(leases);
        if self.in_groups || credit_is_short { Hurry::Now } else { Hurry::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_is_in_a_hurry_if_a_delivery_may_wait_for_it() {
        let hurry = |credit, leases, in_groups| Holding { credit, leases, in_groups }.settle(1);
        assert_eq!(hurry(1, 1, false), Hurry::Now, "no credit is left");
        assert_eq!(hurry(10, 5, false), Hurry::Now);
        assert_eq!(hurry(1000, 1, false), Hurry::None);
        assert_eq!(hurry(1000, 1, true), Hurry::Now, "the group's next message waits");
    }
}
