//! The machine, over rows in memory.
//!
//! What a path needs is prepared for the largest number of rounds, however many are done, so that it does not count.
//! For the same reason what is left over is forgotten and not dropped.

use std::mem::forget;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dwell_machine::{
    Ack, Applied, Attach, Command, Content, DeclareQueue, Effect, Lease, Machine, MemoryStore, Publish, PublishMessage,
    QueueSettings, Release, Reply,
};

/// Messages of one command, as a client with many in flight sends them.
pub const BATCH: u64 = 64;
const BODY_BYTES: usize = 1024;
const QUEUE: &str = "orders";
const START_MS: u64 = 1_800_000_000_000;
/// The longest delay of a batch of delayed messages.
const DELAY_MS_MAX: u64 = 1000 + BATCH;

/// A machine with a queue, and its store.
struct Replica {
    machine: Machine,
    store: MemoryStore,
    now_ms: u64,
}

impl Replica {
    fn new() -> anyhow::Result<Replica> {
        let store = MemoryStore::default();
        let mut replica = Replica { machine: Machine::open(&store)?, store, now_ms: START_MS };
        let settings = QueueSettings { lease_timeout_ms: 30_000, ..QueueSettings::default() };
        replica.apply(Command::DeclareQueue(DeclareQueue { queue: QUEUE.into(), settings }))?;
        Ok(replica)
    }

    fn apply(&mut self, command: Command) -> anyhow::Result<Applied> {
        let applied = self.machine.apply(&mut self.store, self.now_ms, vec![command])?;
        match applied.replies.first() {
            Some(Reply::Refused(refusal)) => Err(refusal.clone().into()),
            _ => Ok(applied),
        }
    }
}

/// Commands that publish batches of messages, the one at place `n` of its batch with the delay `delay_ms(n)`.
pub fn batches(messages: u64, delay_ms: impl Fn(u64) -> u64) -> Vec<Command> {
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let message = |place| PublishMessage {
        routing_key: QUEUE.into(),
        content: Content { body: body.clone(), ..Content::default() },
        delay_ms: delay_ms(place),
        ..PublishMessage::default()
    };
    let publish = |_| Command::Publish(Publish { messages: (0..BATCH).map(message).collect(), producer: None });
    (0..messages / BATCH).map(publish).collect()
}

/// Applies commands that publish.
pub fn publish(prepared: u64, messages: u64) -> anyhow::Result<()> {
    let mut replica = Replica::new()?;
    let mut commands = batches(prepared, |_| 0).into_iter();
    for command in commands.by_ref().take((messages / BATCH) as usize) {
        replica.apply(command)?;
    }
    let stored = replica.machine.queue(QUEUE).context("the queue is gone")?.counts.ready;
    ensure!(stored == messages, "{stored} messages are ready, not {messages}");
    forget((replica, commands));
    Ok(())
}

/// Applies acknowledgements, each of which lets the consumer have as many more messages.
pub fn deliver_and_ack(prepared: u64, messages: u64) -> anyhow::Result<()> {
    let mut replica = Replica::new()?;
    // One batch more than is acknowledged, so that each acknowledgement finds as many to deliver.
    for command in batches(prepared + BATCH, |_| 0) {
        replica.apply(command)?;
    }
    let mut delivered = replica.apply(attach())?;
    for _ in 0..messages / BATCH {
        let leases: Vec<Lease> = leases(&delivered.effects).collect();
        ensure!(leases.len() as u64 == BATCH, "{} messages were delivered, not {BATCH}", leases.len());
        delivered = replica.apply(Command::Ack(Ack { queue: QUEUE.into(), leases }))?;
    }
    forget((replica, delivered));
    Ok(())
}

fn attach() -> Command {
    Command::Attach(Attach {
        queue: QUEUE.into(),
        consumer_id: "consumer".into(),
        credit: BATCH as u32,
        session_timeout_ms: 30_000,
        holding: Vec::new(),
        attachment: 1,
    })
}

fn leases(effects: &[Effect]) -> impl Iterator<Item = Lease> {
    effects.iter().filter_map(|effect| match effect {
        Effect::Deliver { delivery, .. } => Some(Lease { sequence: delivery.sequence, token: delivery.token }),
        _ => None,
    })
}

/// Applies commands that publish delayed messages, and after each the pulse at which all of them are due.
pub fn delay_and_release(prepared: u64, messages: u64) -> anyhow::Result<()> {
    let mut replica = Replica::new()?;
    let mut commands = batches(prepared, |place| DELAY_MS_MAX - place).into_iter();
    for command in commands.by_ref().take((messages / BATCH) as usize) {
        replica.apply(command)?;
        replica.now_ms += DELAY_MS_MAX;
        let released = replica.apply(Command::Release(Release {}))?.released_due_ms.len() as u64;
        ensure!(released == BATCH, "{released} messages were released, not {BATCH}");
    }
    forget((replica, commands));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_can_be_gone_in_part_and_to_the_end() {
        for messages in [BATCH, 3 * BATCH] {
            publish(3 * BATCH, messages).unwrap();
            deliver_and_ack(3 * BATCH, messages).unwrap();
            delay_and_release(3 * BATCH, messages).unwrap();
        }
    }
}
