//! `dwell publish`: publishes messages.

use std::collections::VecDeque;
use std::io::IsTerminal;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use dwell_client::{Confirm, Error, PublishMessage, PublishOutcome, Published, Publisher, PublisherOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::message::{BodyArguments, MessageArguments};
use crate::arguments::{GlobalArguments, Output};
use crate::output;
use crate::render::handle_text;
use crate::times::parse_time_ms;

/// Confirms that may be outstanding: enough to keep the stream full.
const UNCONFIRMED: usize = 2000;

#[derive(Debug, Args)]
pub struct PublishArguments {
    /// The queue to publish to
    #[arg(required_unless_present = "exchange", conflicts_with_all = ["exchange", "key"])]
    queue: Option<String>,
    /// Without --body and --file: one message for each line of standard input
    #[command(flatten)]
    body: BodyArguments,
    /// Publish the body so many times
    #[arg(long, default_value_t = 1)]
    count: u64,
    #[command(flatten)]
    message: MessageArguments,
    /// Ready at this time: 2030-01-01T12:00:00Z, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms, allow_hyphen_values = true)]
    #[arg(conflicts_with = "delay")]
    deliver_at: Option<i64>,
    /// Expires at this time
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms, allow_hyphen_values = true)]
    expire_at: Option<i64>,
}

impl PublishArguments {
    fn message(&self, body: Bytes) -> PublishMessage {
        let mut message = self.message.message(self.queue.as_deref(), body);
        if let Some(at_ms) = self.deliver_at {
            message = message.deliver_at_ms(at_ms);
        }
        if let Some(at_ms) = self.expire_at {
            message = message.expire_at_ms(at_ms);
        }
        message
    }

    fn when(&self) -> &'static str {
        if self.message.is_delayed() || self.deliver_at.is_some() { ", scheduled" } else { "" }
    }
}

pub async fn run(global: &GlobalArguments, arguments: PublishArguments) -> anyhow::Result<()> {
    let publisher = global.streaming_client()?.publisher(PublisherOptions::default());
    let mut run = Run {
        publisher,
        output: global.output,
        unconfirmed: VecDeque::new(),
        stored: 0,
        last: None,
        not_stored: 0,
        reason: None,
    };
    let body = arguments.body.read()?;
    // What was confirmed is told also when something after it fails.
    let result = match body {
        Some(body) => run.repeat(&arguments, body).await,
        None => run.lines(&arguments).await,
    };
    run.summarize(&arguments)?;
    result?;
    match run.reason {
        Some(reason) if run.not_stored > 1 => {
            Err(reason).with_context(|| format!("{} messages are not stored; the last one", run.not_stored))
        }
        Some(reason) => Err(reason.into()),
        None => Ok(()),
    }
}

struct Run {
    publisher: Publisher,
    output: Output,
    unconfirmed: VecDeque<Confirm>,
    stored: u64,
    last: Option<Published>,
    not_stored: u64,
    /// Why the last one of those is not.
    reason: Option<Error>,
}

impl Run {
    async fn repeat(&mut self, arguments: &PublishArguments, body: Bytes) -> anyhow::Result<()> {
        for _ in 0..arguments.count {
            self.publish(arguments.message(body.clone())).await?;
        }
        self.confirm_down_to(0).await
    }

    async fn lines(&mut self, arguments: &PublishArguments) -> anyhow::Result<()> {
        if std::io::stdin().is_terminal() {
            eprintln!("each line is a message; Ctrl-D ends");
        }
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        loop {
            // Confirms are told while the next line is still being typed.
            tokio::select! {
                line = lines.next_line() => match line.context("reading standard input")? {
                    Some(line) => self.publish(arguments.message(line.into())).await?,
                    None => break,
                },
                confirmed = next_confirmed(&mut self.unconfirmed), if !self.unconfirmed.is_empty() => {
                    self.tell(confirmed?)?;
                }
            }
        }
        self.confirm_down_to(0).await
    }

    async fn publish(&mut self, message: PublishMessage) -> anyhow::Result<()> {
        let confirm = self.publisher.submit_one(message).await?;
        self.unconfirmed.push_back(confirm);
        self.confirm_down_to(UNCONFIRMED).await
    }

    async fn confirm_down_to(&mut self, unconfirmed: usize) -> anyhow::Result<()> {
        while self.unconfirmed.len() > unconfirmed {
            let confirmed = next_confirmed(&mut self.unconfirmed).await?;
            self.tell(confirmed)?;
        }
        Ok(())
    }

    fn tell(&mut self, outcomes: Vec<PublishOutcome>) -> anyhow::Result<()> {
        for outcome in outcomes {
            if self.output == Output::Json {
                output::line(to_json(&outcome))?;
            }
            match outcome.stored() {
                Ok(published) => {
                    self.stored += 1;
                    self.last = Some(published);
                }
                Err(reason) => {
                    self.not_stored += 1;
                    self.reason = Some(reason);
                }
            }
        }
        Ok(())
    }

    fn summarize(&self, arguments: &PublishArguments) -> anyhow::Result<()> {
        if self.output == Output::Json {
            return Ok(());
        }
        match (&self.last, self.stored) {
            (_, 0) => Ok(()),
            (Some(published), 1) => output::line(describe(published, arguments.when())),
            (_, count) => {
                let destination = arguments.message.destination(arguments.queue.as_deref());
                output::line(format!("published {count} messages to {destination}"))
            }
        }
    }
}

fn describe(published: &Published, when: &str) -> String {
    let handles: Vec<_> = std::iter::once(&published.handle)
        .chain(published.further.iter().map(|copy| &copy.handle))
        .map(handle_text)
        .collect();
    let known = if published.duplicate { ", which was published before" } else { when };
    format!("published {}{known}", handles.join(" and "))
}

fn to_json(outcome: &PublishOutcome) -> Value {
    let published = match outcome {
        PublishOutcome::Stored(published) => published,
        PublishOutcome::Unroutable => return json!({ "outcome": "unroutable" }),
        PublishOutcome::Rejected { queue } => return json!({ "outcome": "rejected", "rejected_by": queue }),
    };
    let further = published.further.iter().map(
        |copy| json!({ "queue": copy.handle.queue, "sequence": copy.handle.sequence, "duplicate": copy.duplicate }),
    );
    json!({
        "outcome": "stored",
        "namespace": published.handle.namespace,
        "queue": published.handle.queue,
        "sequence": published.handle.sequence,
        "duplicate": published.duplicate,
        "further": further.collect::<Vec<_>>(),
    })
}

/// Waits for the oldest confirm, and takes it out. Nothing is lost when it is not waited for to the end.
async fn next_confirmed(unconfirmed: &mut VecDeque<Confirm>) -> Result<Vec<PublishOutcome>, Error> {
    let Some(oldest) = unconfirmed.front_mut() else { return Ok(Vec::new()) };
    let result = oldest.outcomes().await;
    unconfirmed.pop_front();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_says_what_it_is() {
        assert_eq!(to_json(&PublishOutcome::Unroutable), json!({ "outcome": "unroutable" }));
        let rejected = to_json(&PublishOutcome::Rejected { queue: "full".into() });
        assert_eq!(rejected["rejected_by"], "full");
    }
}
