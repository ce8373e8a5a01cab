//! Runs the blocks of a transcript on a machine, and prints what comes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use dwell_machine::{
    Applied, CloseReason, Command, Death, Delivery, Effect, FiringRecord, Lease, Machine, MemoryStore, PublishResult,
    Reply, Table, read_message,
};

use crate::script::{Names, parse};

/// Lists longer than this are printed as a count and their ends.
const LISTED_MAX: usize = 9;

/// A machine in memory, and the names by which the transcript knows its consumers.
pub struct Session {
    machine: Machine,
    store: MemoryStore,
    clock_ms: u64,
    names: Names,
    /// Consumer key to id.
    ids: BTreeMap<u64, String>,
    /// Bodies as they were delivered: a message that the same entry deletes is not in the store any more.
    bodies: BTreeMap<u64, String>,
}

impl Session {
    pub fn new() -> Result<Self, String> {
        let store = MemoryStore::default();
        Ok(Self {
            machine: open(&store)?,
            store,
            clock_ms: 0,
            names: Names::default(),
            ids: BTreeMap::new(),
            bodies: BTreeMap::new(),
        })
    }

    /// Runs one block.
    pub fn run(&mut self, input: &[String]) -> Result<String, String> {
        let words: Vec<&str> = input[0].split_whitespace().collect();
        match (words.as_slice(), input.len()) {
            (["show", queue], 1) => self.show(queue),
            (["schedule", name], 1) => Ok(self.schedule(name)),
            (["next"], 1) => Ok(self.next()),
            (["rows"], 1) => Ok(self.rows()),
            (["restart"], 1) => {
                self.machine = open(&self.store)?;
                Ok("restarted\n".to_owned())
            }
            _ => self.entry(input),
        }
    }

    fn entry(&mut self, input: &[String]) -> Result<String, String> {
        let mut first = input[0].as_str();
        if let Some((time, rest)) = first.strip_prefix('@').and_then(|stamped| stamped.split_once(' ')) {
            self.clock_ms = time.parse().map_err(|_| format!("`{time}` is not a time"))?;
            first = rest;
        }
        let lines = std::iter::once(first).chain(input[1..].iter().map(String::as_str));
        let commands = lines.map(|line| parse(line, &mut self.names)).collect::<Result<Vec<Command>, _>>()?;
        let applied = self.machine.apply(&mut self.store, self.clock_ms, commands.clone());
        let applied = applied.map_err(|error| error.to_string())?;
        self.learn(&commands, &applied);
        self.print(&applied)
    }

    fn learn(&mut self, commands: &[Command], applied: &Applied) {
        for (command, reply) in commands.iter().zip(&applied.replies) {
            if let (Command::Attach(attach), Reply::Attached { consumer, .. }) = (command, reply) {
                self.names.consumers.insert(attach.consumer_id.clone(), (*consumer, attach.attachment));
                self.ids.insert(*consumer, attach.consumer_id.clone());
            }
        }
    }

    fn print(&mut self, applied: &Applied) -> Result<String, String> {
        let mut lines = Vec::new();
        for reply in &applied.replies {
            let line = self.reply(reply)?;
            lines.extend((!line.is_empty()).then_some(line));
        }
        if !applied.released_due_ms.is_empty() {
            lines.push(format!("released: due {}", list(&applied.released_due_ms)));
        }
        let effects: Result<Vec<String>, String> = applied.effects.iter().map(|effect| self.effect(effect)).collect();
        lines.extend(abridge(effects?));
        if lines.is_empty() {
            lines.push("nothing".to_owned());
        }
        Ok(lines.join("\n") + "\n")
    }

    fn reply(&mut self, reply: &Reply) -> Result<String, String> {
        Ok(match reply {
            Reply::QueueDeclared { created: true } => "queue declared".into(),
            Reply::QueueDeclared { created: false } => "queue declared already".into(),
            Reply::QueueDeleted { messages } => format!("queue deleted with {messages} messages"),
            Reply::Published { results, duplicate } => published(results, *duplicate),
            Reply::ExchangeDeclared { created: true } => "exchange declared".into(),
            Reply::ExchangeDeclared { created: false } => "exchange declared already".into(),
            Reply::Bound { created: true } => "bound".into(),
            Reply::Bound { created: false } => "bound already".into(),
            Reply::Unbound { existed: true } => "unbound".into(),
            Reply::Unbound { existed: false } => "was not bound".into(),
            Reply::Revised { outcomes, has_more } => {
                let outcomes = outcomes.iter().map(|(sequence, outcome)| format!("{sequence} {outcome:?}"));
                let outcomes = outcomes.collect::<Vec<_>>().join(", ").to_lowercase();
                format!("revised: {outcomes}{}", if *has_more { ", and there are more" } else { "" })
            }
            Reply::RevisedMatching { examined, revised, leased, next } => {
                let more = if next.is_some() { ", and there are more" } else { "" };
                format!("revised {revised} of {examined}, {leased} are leased{more}")
            }
            Reply::ScheduleDeclared { created: true } => "schedule declared".into(),
            Reply::ScheduleDeclared { created: false } => "schedule declared already".into(),
            Reply::Triggered { firing } => format!("triggered: {}", fired(firing)),
            Reply::Attached { resumed, lost, .. } => {
                format!("{}{}", if *resumed { "resumed" } else { "attached" }, lost_leases(lost))
            }
            Reply::Received { deliveries, .. } if deliveries.is_empty() => "received nothing".into(),
            Reply::Received { deliveries, .. } => {
                let deliveries: Result<Vec<String>, String> =
                    deliveries.iter().map(|delivery| Ok(format!("received {}", self.delivery(delivery)?))).collect();
                abridge(deliveries?).join("\n")
            }
            Reply::Settled { lost } => format!("settled{}", lost_leases(lost)),
            Reply::Done => String::new(),
            Reply::Refused(refusal) => format!("refused: {refusal}"),
        })
    }

    fn effect(&mut self, effect: &Effect) -> Result<String, String> {
        Ok(match effect {
            Effect::Deliver { consumer, attachment, delivery } => {
                format!("to {}: {}", self.stream(*consumer, *attachment), self.delivery(delivery)?)
            }
            Effect::CloseConsumer { consumer, attachment, reason } => {
                let reason = match reason {
                    CloseReason::Displaced => "displaced",
                    CloseReason::QueueDeleted => "queue deleted",
                };
                format!("close {}: {reason}", self.stream(*consumer, *attachment))
            }
            Effect::UsersChanged => "users changed".to_owned(),
            Effect::Wake { queue } => format!("wake {}", self.machine.queue_name(*queue).unwrap_or("a deleted queue")),
        })
    }

    fn stream(&self, consumer: u64, attachment: u64) -> String {
        let id = self.ids.get(&consumer).map_or("an unknown consumer", String::as_str);
        format!("{id} on stream {attachment}")
    }

    fn delivery(&mut self, delivery: &Delivery) -> Result<String, String> {
        let Delivery { queue, sequence, token, delivery_count, ready_at_ms, deadline_ms, message } = delivery;
        let stored = match message {
            Some(message) => Some((**message).clone()),
            None => read_message(&self.store, *queue, *sequence).map_err(|error| error.to_string())?,
        };
        let deaths = stored.as_ref().map(|message| message.deaths.clone()).unwrap_or_default();
        let body = match stored {
            Some(message) => String::from_utf8_lossy(&message.content.body).into_owned(),
            None => self.bodies.get(sequence).cloned().ok_or("a delivered message is not in the store")?,
        };
        self.bodies.insert(*sequence, body.clone());
        let returned = match delivery_count {
            0 => String::new(),
            count => format!(", returned {count}x"),
        };
        let died: String = deaths.iter().map(death).collect();
        Ok(format!("{sequence}/{token} {body}, ready {ready_at_ms}, until {deadline_ms}{returned}{died}"))
    }

    fn show(&self, name: &str) -> Result<String, String> {
        let Some(queue) = self.machine.queue(name) else { return Ok("no such queue\n".to_owned()) };
        let (counts, totals) = (queue.counts, queue.totals);
        let mut text = format!("scheduled {}, ready {}, leased {}", counts.scheduled, counts.ready, counts.leased);
        let _ = writeln!(text, ", bytes {}, consumers {}", counts.bytes, queue.consumers);
        let totals = [
            ("published", totals.published),
            ("delivered", totals.delivered),
            ("acknowledged", totals.acknowledged),
            ("returned", totals.returned),
            ("expired", totals.expired),
            ("exhausted", totals.exhausted),
        ];
        // What came with later versions is told only where it happened.
        let rarer = [
            ("rejected", queue.totals.rejected),
            ("overflowed", queue.totals.overflowed),
            ("recalled", queue.totals.recalled),
            ("dead-lettered", queue.totals.dead_lettered),
            ("refused", queue.totals.refused),
            ("deduplicated", queue.totals.deduplicated),
        ];
        let totals = totals.into_iter().chain(rarer.into_iter().filter(|(_, count)| *count > 0));
        let totals: Vec<String> = totals.map(|(what, count)| format!("{what} {count}")).collect();
        Ok(format!("{text}in total {}\n", totals.join(", ")))
    }

    fn schedule(&self, name: &str) -> String {
        let Some(view) = self.machine.schedule(name, 1) else { return "no such schedule\n".to_owned() };
        let history: String = view.history.iter().map(|firing| format!("{}\n", fired(firing))).collect();
        let paused = if view.paused { ", paused" } else { "" };
        format!("next {}, fired {}, skipped {}{paused}\n{history}", view.next_due_ms, view.fired, view.skipped)
    }

    fn next(&self) -> String {
        match self.machine.next_wake_ms() {
            Some(wake_ms) => format!("{wake_ms}\n"),
            None => "never\n".to_owned(),
        }
    }

    fn rows(&self) -> String {
        let tables: BTreeSet<Table> = self.store.rows().map(|(table, ..)| table).collect();
        let count = |table: Table| self.store.rows().filter(|row| row.0 == table).count();
        tables.into_iter().map(|table| format!("{table:?} {}\n", count(table))).collect()
    }
}

fn open(store: &MemoryStore) -> Result<Machine, String> {
    Machine::open(store).map_err(|error| error.to_string())
}

fn list(numbers: &[u64]) -> String {
    match numbers {
        [first, .., last] if numbers.len() > LISTED_MAX => format!("{first} to {last} ({} of them)", numbers.len()),
        numbers => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" "),
    }
}

fn published(results: &[PublishResult], duplicate: bool) -> String {
    let before = if duplicate { " before" } else { "" };
    let stored = |result: &PublishResult| match result {
        PublishResult::Stored { sequence } => Some(*sequence),
        _ => None,
    };
    if let Some(sequences) = results.iter().map(stored).collect::<Option<Vec<u64>>>() {
        return format!("published {}{before}", list(&sequences));
    }
    let told = results.iter().map(|result| match result {
        PublishResult::Stored { sequence } => sequence.to_string(),
        PublishResult::Unroutable => "unroutable".into(),
        PublishResult::Rejected { queue } => format!("rejected by {queue}"),
        PublishResult::Routed(copies) => {
            let known = |duplicate: bool| if duplicate { " (known)" } else { "" };
            let copies =
                copies.iter().map(|copy| format!("{} in {}{}", copy.sequence, copy.queue, known(copy.duplicate)));
            copies.collect::<Vec<_>>().join(" and ")
        }
    });
    format!("published: {}{before}", told.collect::<Vec<_>>().join(", "))
}

fn fired(firing: &FiringRecord) -> String {
    let FiringRecord { due_ms, fired_ms, sequences, problem, skipped } = firing;
    match (skipped, problem.as_str()) {
        (true, _) => format!("due {due_ms}, at {fired_ms} skipped"),
        (false, "") => format!("due {due_ms}, at {fired_ms} stored {}", list(sequences)),
        (false, problem) => format!("due {due_ms}, at {fired_ms}: {problem}"),
    }
}

fn death(death: &Death) -> String {
    format!(", died in {} {}x: {:?}", death.queue, death.count, death.reason())
}

/// Leaves out the middle of a long list of lines.
fn abridge(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > LISTED_MAX {
        let left_out = format!("... {} more ...", lines.len() - 2);
        lines.splice(1..lines.len() - 1, [left_out]);
    }
    lines
}

fn lost_leases(lost: &[Lease]) -> String {
    let lost: Vec<String> = lost.iter().map(|lease| format!("{}/{}", lease.sequence, lease.token)).collect();
    if lost.is_empty() { String::new() } else { format!(", lost {}", lost.join(" ")) }
}
