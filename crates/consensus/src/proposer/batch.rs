//! Which commands share a log entry.

use std::time::Duration;

use dwell_machine::limits::{REVISE_HANDLES_MAX, REVISE_STEP_MAX};
use dwell_machine::{Ack, Command, Extend, Nack, PublishMessage, Receive, Revise};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Hurry, Pending};

/// Most commands of one log entry.
const BATCH_COMMANDS_MAX: usize = 1024;
/// A batch takes no further command once its commands weigh this much: see [`weight`].
const BATCH_WEIGHT_MAX: usize = 1024 * 1024;
/// What a message or a lease weighs besides its body, so that a batch holds no more than some thousand: applying
/// them takes ten milliseconds or so, for which the commands of others wait.
const ITEM_WEIGHT: usize = 512;

/// How long a command that is in no hurry waits for another to share a log entry with. Long enough for a client that was
/// sent a message to publish the next one as well; too short for anybody to notice.
const PATIENCE: Duration = Duration::from_millis(2);
/// So much is worth an entry of its own: then nothing waits.
const PATIENT_WEIGHT_MAX: usize = 64 * ITEM_WEIGHT;

/// Takes commands from the queue, in its order, and makes batches of them.
pub(super) struct Batches {
    commands: mpsc::Receiver<Pending>,
    growing: Vec<Pending>,
    /// Of those in `growing`.
    weight: usize,
    /// One in `growing` is in a hurry.
    hurried: bool,
    /// When those in `growing` have waited long enough. Of no meaning while there are none.
    patient_until: Instant,
    /// Taken from the queue, and over the limit of `growing`.
    carried: Option<Pending>,
}

impl Batches {
    pub(super) fn new(commands: mpsc::Receiver<Pending>) -> Batches {
        let patient_until = Instant::now();
        Batches { commands, growing: Vec::new(), weight: 0, hurried: false, patient_until, carried: None }
    }

    /// Commands that are still in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.commands.len()
    }

    /// All that waits, up to the limits of one entry; waits if there is nothing, or nothing that is in a hurry. None when
    /// there will be no more. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Vec<Pending>> {
        loop {
            self.take_what_waits();
            if self.hurried || self.weight >= PATIENT_WEIGHT_MAX {
                return Some(self.finish());
            }
            if self.growing.is_empty() {
                let first = self.commands.recv().await?;
                self.add(first);
                continue;
            }
            match tokio::time::timeout_at(self.patient_until, self.commands.recv()).await {
                Ok(Some(next)) => self.add(next),
                Ok(None) | Err(_) => return Some(self.finish()),
            }
        }
    }

    fn take_what_waits(&mut self) {
        while self.carried.is_none() && self.growing.len() < BATCH_COMMANDS_MAX && self.weight < BATCH_WEIGHT_MAX {
            let Ok(next) = self.commands.try_recv() else { return };
            self.add(next);
        }
    }

    fn add(&mut self, pending: Pending) {
        let weight = weight(&pending.command);
        if self.growing.is_empty() {
            self.patient_until = Instant::now() + PATIENCE;
        } else if self.weight + weight > BATCH_WEIGHT_MAX {
            self.carried = Some(pending);
            // What does not fit any more fills the batch.
            self.hurried = true;
            return;
        }
        self.weight += weight;
        self.hurried |= pending.hurry == Hurry::Now;
        self.growing.push(pending);
    }

    fn finish(&mut self) -> Vec<Pending> {
        let batch = std::mem::take(&mut self.growing);
        (self.weight, self.hurried) = (0, false);
        if let Some(carried) = self.carried.take() {
            self.add(carried);
        }
        batch
    }
}

/// How much a command adds to a batch: its bodies, and the work of its messages and leases.
fn weight(command: &Command) -> usize {
    match command {
        Command::Publish(publish) => weight_of_messages(&publish.messages),
        Command::Transact(transact) => {
            let leases: usize = transact.acks.iter().map(|ack| ack.leases.len()).sum();
            leases * ITEM_WEIGHT + weight_of_messages(&transact.publish.messages)
        }
        Command::Ack(Ack { leases, .. })
        | Command::Nack(Nack { leases, .. })
        | Command::Extend(Extend { leases, .. }) => leases.len() * ITEM_WEIGHT,
        Command::Receive(Receive { messages_max, .. }) => *messages_max as usize * ITEM_WEIGHT,
        Command::Revise(Revise { sequences, .. }) => sequences.len() * ITEM_WEIGHT,
        // How many messages these find is known when they are applied: they count as if they found the most.
        Command::ReviseById(_) => REVISE_HANDLES_MAX * ITEM_WEIGHT,
        Command::ReviseMatching(_) => REVISE_STEP_MAX * ITEM_WEIGHT,
        Command::DeclareSchedule(declare) => weight_of_messages(std::slice::from_ref(&declare.definition.message)),
        _ => ITEM_WEIGHT,
    }
}

fn weight_of_messages(messages: &[PublishMessage]) -> usize {
    messages.iter().map(|message| message.content.body.len() + ITEM_WEIGHT).sum()
}

#[cfg(test)]
mod tests {
    use dwell_machine::Release;
    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    fn pending(command: Command, hurry: Hurry) -> Pending {
        Pending { command, hurry, reply: oneshot::channel().0 }
    }

    fn release() -> Pending {
        pending(Command::Release(Release::default()), Hurry::Now)
    }

    fn ack(leases: usize) -> Pending {
        pending(Command::Ack(Ack { leases: vec![Default::default(); leases], ..Ack::default() }), Hurry::None)
    }

    fn batches() -> (mpsc::Sender<Pending>, Batches) {
        let (queue, commands) = mpsc::channel(2 * BATCH_COMMANDS_MAX);
        (queue, Batches::new(commands))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_no_hurry_goes_with_the_next_that_is() {
        let (queue, mut batches) = batches();
        queue.try_send(ack(1)).ok().unwrap();
        assert!(batches.next().now_or_never().is_none());
        queue.try_send(release()).ok().unwrap();
        let batch = batches.next().now_or_never().unwrap().unwrap();
        assert!(matches!(batch[..], [Pending { command: Command::Ack(_), .. }, _]), "the order is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_no_hurry_waits_for_a_moment_only() {
        let (queue, mut batches) = batches();
        queue.try_send(ack(1)).ok().unwrap();
        let began = Instant::now();
        assert_eq!(batches.next().await.unwrap().len(), 1);
        assert!(began.elapsed() >= PATIENCE && began.elapsed() <= 2 * PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_are_in_no_hurry_do_not_wait() {
        let (queue, mut batches) = batches();
        queue.try_send(ack(64)).ok().unwrap();
        assert_eq!(batches.next().now_or_never().unwrap().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_lost_at_the_limit_of_a_batch_nor_at_the_end() {
        let (queue, mut batches) = batches();
        for _ in 0..3 {
            queue.try_send(ack(1500)).ok().unwrap();
        }
        drop(queue);
        let mut sizes = Vec::new();
        while let Some(batch) = batches.next().await {
            sizes.push(batch.len());
        }
        assert_eq!(sizes, [1, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_has_no_more_commands_than_one_entry_may() {
        let (queue, mut batches) = batches();
        for _ in 0..=BATCH_COMMANDS_MAX {
            queue.try_send(release()).ok().unwrap();
        }
        assert_eq!(batches.next().await.unwrap().len(), BATCH_COMMANDS_MAX);
        assert_eq!(batches.next().await.unwrap().len(), 1);
    }
}
