//! The reference machine's rules for recall, reschedule and expire now.

use std::cmp::Reverse;

use dwell_machine::{
    Filter, Refusal, Reply, Reschedule, Revise, ReviseById, ReviseMatching, Revision, RevisionOutcome,
    limits::REVISE_HANDLES_MAX,
};

use crate::publish::expiry;
use crate::queues::lane_position;
use crate::reference::{Message, Place, Reference};

impl Reference {
    pub fn revise(&mut self, revise: &Revise) -> Result<Reply, Refusal> {
        let queue = self.find(&revise.queue)?;
        let revision = revise.revision.ok_or(Refusal::NothingToDo)?;
        let mut outcomes = Vec::new();
        for &sequence in &revise.sequences {
            let outcome = if sequence == 0 || sequence > self.last_sequence {
                RevisionOutcome::Unknown
            } else if self.messages.get(&sequence).is_some_and(|message| message.queue == queue) {
                self.revise_one(sequence, revision, revise.revoke)
            } else {
                RevisionOutcome::Gone
            };
            outcomes.push((sequence, outcome));
        }
        self.allow_wake(queue);
        Ok(Reply::Revised { outcomes, has_more: false })
    }

    pub fn revise_by_id(&mut self, revise: &ReviseById) -> Result<Reply, Refusal> {
        let queue = self.find(&revise.queue)?;
        let revision = revise.revision.ok_or(Refusal::NothingToDo)?;
        let named = |message: &Message| message.record.content.message_id == revise.message_id;
        let with_id = self.messages.iter().filter(|(_, message)| message.queue == queue && named(message));
        let sequences: Vec<u64> = with_id.map(|(sequence, _)| *sequence).filter(|at| *at > revise.after).collect();
        let revised = sequences.iter().take(REVISE_HANDLES_MAX);
        let outcomes = revised.map(|&sequence| (sequence, self.revise_one(sequence, revision, revise.revoke)));
        let outcomes = outcomes.collect();
        self.allow_wake(queue);
        Ok(Reply::Revised { outcomes, has_more: sequences.len() > REVISE_HANDLES_MAX })
    }

    /// All steps at once: how many messages were looked at is the machine's affair.
    pub fn revise_matching(&mut self, revise: &ReviseMatching) -> Result<Reply, Refusal> {
        let queue = self.find(&revise.queue)?;
        let revision = revise.revision.ok_or(Refusal::NothingToDo)?;
        let of_queue = self.messages.iter().filter(|(_, message)| message.queue == queue);
        let matching = of_queue.filter(|(_, message)| matches(&revise.filter, message));
        let mut sequences: Vec<u64> = matching.map(|(sequence, _)| *sequence).collect();
        sequences.sort_by_key(|sequence| self.walk_position(*sequence));
        let (mut revised, mut leased) = (0, 0);
        for sequence in sequences {
            if self.is_there_already(sequence, revision) {
                continue;
            }
            match self.revise_one(sequence, revision, revise.revoke) {
                RevisionOutcome::Leased => leased += 1,
                _ => revised += 1,
            }
        }
        self.allow_wake(queue);
        Ok(Reply::RevisedMatching { examined: 0, revised, leased, next: None })
    }

    /// Scheduled ones by due time, then ready ones that wait, then the others as they stand, then leased ones.
    fn walk_position(&self, sequence: u64) -> (u8, Reverse<u32>, u64, u64) {
        let message = &self.messages[&sequence];
        let (priority, ready_at_ms, sequence) = lane_position(sequence, message);
        match message.place {
            Place::Scheduled => (0, Reverse(0), ready_at_ms, sequence),
            Place::Ready if self.eligible(message.queue).contains(&sequence) => (2, priority, ready_at_ms, sequence),
            Place::Ready => (1, priority, ready_at_ms, sequence),
            Place::Leased { .. } => (3, Reverse(0), 0, sequence),
        }
    }

    /// True if a rescheduling by filter has nothing to do with a message.
    fn is_there_already(&self, sequence: u64, revision: Revision) -> bool {
        let Revision::Reschedule(new) = revision else { return false };
        let due_ms = if new.deliver_at_ms == 0 { self.now_ms + new.delay_ms } else { new.deliver_at_ms };
        let message = &self.messages[&sequence];
        match message.place {
            Place::Scheduled => message.ready_at_ms == due_ms,
            Place::Ready => due_ms <= self.now_ms,
            Place::Leased { .. } => false,
        }
    }

    fn revise_one(&mut self, sequence: u64, revision: Revision, revoke: bool) -> RevisionOutcome {
        if matches!(self.messages[&sequence].place, Place::Leased { .. }) && !revoke {
            return RevisionOutcome::Leased;
        }
        match revision {
            Revision::Recall(_) => {
                let queue = self.take_away(sequence).queue;
                self.totals(queue).recalled += 1;
            }
            Revision::ExpireNow(_) => self.expire(sequence),
            Revision::Reschedule(new) => self.reschedule(sequence, new),
        }
        RevisionOutcome::Done
    }

    fn reschedule(&mut self, sequence: u64, new: Reschedule) {
        let now_ms = self.now_ms;
        self.give_up_turn(sequence);
        let message = self.message(sequence);
        message.ready_at_ms = match new.deliver_at_ms {
            0 => now_ms + new.delay_ms,
            deliver_at_ms => deliver_at_ms.max(now_ms),
        };
        message.expires_at_ms = expiry(message.ready_at_ms, message.record.ttl_ms, message.record.expire_at_ms);
        message.place = Place::Scheduled;
        if self.is_over(sequence) {
            self.expire(sequence);
        } else if self.messages[&sequence].ready_at_ms <= now_ms {
            self.become_ready(sequence);
        }
    }
}

/// True if a filter chooses the message.
fn matches(filter: &Filter, message: &Message) -> bool {
    let any_state = !filter.scheduled && !filter.ready && !filter.leased;
    let state = match message.place {
        Place::Scheduled => filter.scheduled,
        Place::Ready => filter.ready,
        Place::Leased { .. } => filter.leased,
    };
    let headers = &message.record.content.headers;
    (any_state || state)
        && filter.headers.iter().all(|(name, value)| headers.get(name) == Some(value))
        && (filter.due_from_ms == 0 || message.ready_at_ms >= filter.due_from_ms)
        && (filter.due_before_ms == 0 || message.ready_at_ms < filter.due_before_ms)
        && (filter.priority_min..=filter.priority_max.unwrap_or(255)).contains(&message.record.priority)
}
