//! `dwell recall`, `dwell reschedule`, `dwell expire`: change plans for messages that no consumer has.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use dwell_client::{
    Client, Error, MessageState, NewTime, ReviseProgress, Revised, Revising, Revision, RevisionOutcome, Selection,
    Target,
};
use futures::StreamExt;
use serde_json::{Value, json};

use super::message::parse_header;
use super::target;
use crate::arguments::{GlobalArguments, Output};
use crate::output;
use crate::render::handle_text;
use crate::times::{parse_duration, parse_time_ms};

/// Which messages.
#[derive(Debug, Args)]
pub struct WhichArguments {
    /// The queue, or a handle as `dwell publish` prints it
    #[arg(value_name = "QUEUE|HANDLE")]
    queue: String,
    /// Sequences of messages in the queue, or more handles
    #[arg(value_name = "SEQUENCE", conflicts_with_all = ["message_id", "filter"])]
    sequences: Vec<String>,
    /// All messages with this id of the application's
    #[arg(long, value_name = "ID", conflicts_with = "filter")]
    message_id: Option<String>,
    #[command(flatten)]
    filter: FilterArguments,
    /// Also messages that a consumer has: its lease is cut
    #[arg(long)]
    revoke: bool,
}

/// All conditions must hold.
#[derive(Debug, Args)]
#[group(id = "filter", multiple = true)]
struct FilterArguments {
    /// All messages of the queue
    #[arg(long)]
    all: bool,
    /// Messages in this state; may be given several times
    #[arg(long = "state", value_enum)]
    states: Vec<StateArgument>,
    /// Messages with this header; may be given several times
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Messages due, or become ready, at this time or later
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms)]
    due_from: Option<i64>,
    /// Messages due, or become ready, before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms)]
    due_before: Option<i64>,
    /// Messages of this priority or a higher one
    #[arg(long, value_name = "PRIORITY")]
    priority_min: Option<u8>,
    /// Messages of this priority or a lower one
    #[arg(long, value_name = "PRIORITY")]
    priority_max: Option<u8>,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateArgument {
    /// It waits for its due time
    Scheduled,
    /// It waits for a consumer
    Ready,
    /// A consumer has it
    Leased,
}

impl From<StateArgument> for MessageState {
    fn from(state: StateArgument) -> MessageState {
        match state {
            StateArgument::Scheduled => MessageState::Scheduled,
            StateArgument::Ready => MessageState::Ready,
            StateArgument::Leased => MessageState::Leased,
        }
    }
}

#[derive(Debug, Args)]
pub struct RecallArguments {
    #[command(flatten)]
    which: WhichArguments,
}

#[derive(Debug, Args)]
pub struct ExpireArguments {
    #[command(flatten)]
    which: WhichArguments,
}

#[derive(Debug, Args)]
pub struct RescheduleArguments {
    #[command(flatten)]
    which: WhichArguments,
    #[command(flatten)]
    time: TimeArguments,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TimeArguments {
    /// Ready after so long, from now
    #[arg(long, value_parser = parse_duration)]
    delay: Option<Duration>,
    /// Ready at this time: 2030-01-01T12:00:00Z, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms, allow_hyphen_values = true)]
    deliver_at: Option<i64>,
}

impl TimeArguments {
    fn time(&self) -> NewTime {
        match self.deliver_at {
            Some(at_ms) => NewTime::at_ms(at_ms),
            None => NewTime::after(self.delay.unwrap_or_default()),
        }
    }
}

/// The messages that a command line names.
#[derive(Debug, PartialEq)]
enum Which {
    These(Target),
    Matching(Selection),
}

impl WhichArguments {
    fn which(&self) -> anyhow::Result<Which> {
        if let Some(message_id) = &self.message_id {
            return Ok(Which::These(self.revoking(Target::message_id(&self.queue, message_id), Target::revoke)));
        }
        if let Some(selection) = self.filter.selection(&self.queue) {
            return Ok(Which::Matching(self.revoking(selection, Selection::revoke)));
        }
        let (queue, sequences) = target::sequences(&self.queue, &self.sequences)?;
        Ok(Which::These(self.revoking(Target::sequences(queue, sequences), Target::revoke)))
    }

    fn revoking<T>(&self, which: T, revoke: fn(T) -> T) -> T {
        if self.revoke { revoke(which) } else { which }
    }
}

impl FilterArguments {
    /// None if there is no condition, nor `--all`.
    fn selection(&self, queue: &str) -> Option<Selection> {
        let all = Selection::all(queue);
        let mut selection = all.clone();
        for state in &self.states {
            selection = selection.state((*state).into());
        }
        for (key, value) in &self.headers {
            selection = selection.header(key, value);
        }
        if let Some(at_ms) = self.due_from {
            selection = selection.due_from_ms(at_ms);
        }
        if let Some(at_ms) = self.due_before {
            selection = selection.due_before_ms(at_ms);
        }
        if let Some(priority) = self.priority_min {
            selection = selection.priority_min(priority);
        }
        if let Some(priority) = self.priority_max {
            selection = selection.priority_max(priority);
        }
        (self.all || self.priority_min.is_some() || selection != all).then_some(selection)
    }
}

/// What is done to the messages.
#[derive(Debug, Clone, Copy)]
enum Change {
    Recall,
    Reschedule(NewTime),
    Expire,
}

impl Change {
    async fn these(self, client: &Client, target: Target) -> Result<Revision, Error> {
        match self {
            Change::Recall => client.recall(target).await,
            Change::Reschedule(time) => client.reschedule(target, time).await,
            Change::Expire => client.expire_now(target).await,
        }
    }

    async fn matching(self, client: &Client, selection: Selection) -> Result<Revising, Error> {
        match self {
            Change::Recall => client.recall_matching(selection).await,
            Change::Reschedule(time) => client.reschedule_matching(selection, time).await,
            Change::Expire => client.expire_matching(selection).await,
        }
    }

    fn done(self) -> &'static str {
        match self {
            Change::Recall => "recalled",
            Change::Reschedule(_) => "rescheduled",
            Change::Expire => "expired",
        }
    }
}

pub async fn recall(global: &GlobalArguments, arguments: RecallArguments) -> anyhow::Result<()> {
    run(global, &arguments.which, Change::Recall).await
}

pub async fn expire(global: &GlobalArguments, arguments: ExpireArguments) -> anyhow::Result<()> {
    run(global, &arguments.which, Change::Expire).await
}

pub async fn reschedule(global: &GlobalArguments, arguments: RescheduleArguments) -> anyhow::Result<()> {
    run(global, &arguments.which, Change::Reschedule(arguments.time.time())).await
}

async fn run(global: &GlobalArguments, which: &WhichArguments, change: Change) -> anyhow::Result<()> {
    let which = which.which()?;
    let client = global.client()?;
    match which {
        Which::These(target) => these(global.output, &client, target, change).await,
        Which::Matching(selection) => matching(global.output, &client, selection, change).await,
    }
}

async fn these(format: Output, client: &Client, mut target: Target, change: Change) -> anyhow::Result<()> {
    let (mut named, mut done) = (0, 0);
    loop {
        let revision = change.these(client, target.clone()).await?;
        revision.revised.iter().try_for_each(|revised| print(format, revised, change))?;
        named += revision.revised.len();
        done += revision.revised.iter().filter(|revised| revised.outcome == RevisionOutcome::Done).count();
        // By message id there may be more.
        match revision.revised.last() {
            Some(last) if revision.has_more => target = target.after(last.handle.sequence),
            _ => break,
        }
    }
    if named == 0 {
        bail!("there is no such message; `dwell browse QUEUE` shows what stands in the queue");
    }
    if done < named {
        // The lines above say why.
        bail!("{} of {named} messages are not {}", named - done, change.done());
    }
    Ok(())
}

async fn matching(format: Output, client: &Client, selection: Selection, change: Change) -> anyhow::Result<()> {
    let mut steps = change.matching(client, selection).await?;
    while let Some(progress) = steps.next().await {
        let progress = progress?;
        output::say(format, progress_text(&progress, change), progress_json(&progress))?;
    }
    Ok(())
}

fn print(format: Output, revised: &Revised, change: Change) -> anyhow::Result<()> {
    let (name, text) = match revised.outcome {
        RevisionOutcome::Done => ("done", change.done()),
        RevisionOutcome::Leased => ("leased", "left alone: a consumer has it (--revoke takes it back)"),
        RevisionOutcome::Gone => ("gone", "gone: it was acknowledged, expired, dead-lettered or recalled before"),
        RevisionOutcome::Unknown => ("unknown", "unknown: there was no such message"),
        RevisionOutcome::DoneOrGone => {
            ("done_or_gone", "gone: by this command, whose first answer was lost, or before")
        }
    };
    let handle = &revised.handle;
    let value = json!({
        "namespace": handle.namespace,
        "queue": handle.queue,
        "sequence": handle.sequence,
        "outcome": name,
    });
    output::say(format, format!("{}  {text}", handle_text(handle)), value)
}

fn progress_text(progress: &ReviseProgress, change: Change) -> String {
    let leased = match progress.leased {
        0 => String::new(),
        leased => format!(", {leased} left alone because consumers have them (--revoke takes them back)"),
    };
    let end = if progress.done { "; that was all" } else { " ..." };
    format!("{} messages looked at, {} {}{leased}{end}", progress.examined, progress.revised, change.done())
}

fn progress_json(progress: &ReviseProgress) -> Value {
    json!({
        "examined": progress.examined,
        "revised": progress.revised,
        "leased": progress.leased,
        "done": progress.done,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        reschedule: RescheduleArguments,
    }

    fn parse(line: &str) -> anyhow::Result<Which> {
        let words = ["line", "--delay", "5s"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words)?.reschedule.which.which()
    }

    #[test]
    fn messages_are_named_by_sequence_by_id_or_by_filter() {
        assert_eq!(parse("q 7 8").unwrap(), Which::These(Target::sequences("q", [7, 8])));
        assert_eq!(parse("default/q/7 --revoke").unwrap(), Which::These(Target::sequences("q", [7]).revoke()));
        assert_eq!(parse("q --message-id m").unwrap(), Which::These(Target::message_id("q", "m")));
        let selection = Selection::all("q").state(MessageState::Ready).header("k", "v").due_before_ms(9);
        assert_eq!(parse("q --state ready --header k=v --due-before 9").unwrap(), Which::Matching(selection));
        assert_eq!(parse("q --all --revoke").unwrap(), Which::Matching(Selection::all("q").revoke()));
        assert_eq!(parse("q --priority-min 0").unwrap(), Which::Matching(Selection::all("q")));
    }

    #[test]
    fn a_whole_queue_is_not_chosen_by_saying_nothing_nor_two_ways_at_once() {
        assert!(parse("q").is_err());
        assert!(parse("q --revoke").is_err());
        assert!(parse("q 7 --all").is_err());
        assert!(parse("q --message-id m --state ready").is_err());
        assert!(parse("q 7 --message-id m").is_err());
    }

    #[test]
    fn a_new_time_is_needed_and_only_one() {
        let parse = |line: &str| Line::try_parse_from(["line", "q", "7"].into_iter().chain(line.split_whitespace()));
        assert!(parse("").is_err());
        assert!(parse("--delay 1s --deliver-at 5").is_err());
        assert_eq!(parse("--deliver-at 5").unwrap().reschedule.time.time(), NewTime::at_ms(5));
        let delay = Duration::from_secs(1);
        assert_eq!(parse("--delay 1s").unwrap().reschedule.time.time(), NewTime::after(delay));
    }

    #[test]
    fn progress_says_when_it_is_done() {
        let progress = ReviseProgress { examined: 4000, revised: 10, leased: 2, done: false };
        let text = progress_text(&progress, Change::Recall);
        assert!(text.starts_with("4000 messages looked at, 10 recalled, 2 left alone"), "{text}");
        assert!(text.ends_with("..."));
        assert!(progress_text(&ReviseProgress { done: true, ..progress }, Change::Expire).ends_with("that was all"));
        assert_eq!(progress_json(&progress)["revised"], 10);
    }
}
