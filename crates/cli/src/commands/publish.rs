//! `dwell publish`: publishes messages.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use dwell_client::{Confirm, Error, PublishMessage, PublishResult, Publisher, PublisherOptions};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::arguments::{GlobalArguments, Output};
use crate::output;
use crate::times::{parse_duration, parse_time_ms};

/// Confirms that may be outstanding: enough to keep the stream full.
const UNCONFIRMED: usize = 2000;

#[derive(Debug, Args)]
pub struct PublishArguments {
    /// The queue to publish to
    queue: String,
    /// The body. Without this and --file: one message for each line of standard input
    #[arg(long, conflicts_with = "file")]
    body: Option<String>,
    /// A file with the body
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Publish the body so many times
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Ready after so long: 250ms, 5s, 1h 30m. At most ten years
    #[arg(long, value_parser = parse_duration, conflicts_with = "deliver_at")]
    delay: Option<Duration>,
    /// Ready at this time: 2030-01-01T12:00:00Z, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms, allow_hyphen_values = true)]
    deliver_at: Option<i64>,
    /// Dropped when it has been ready for so long
    #[arg(long, value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Dropped at this time
    #[arg(long, value_name = "TIME", value_parser = parse_time_ms, allow_hyphen_values = true)]
    expire_at: Option<i64>,
    /// 0 to 255; higher is delivered first
    #[arg(long, default_value_t = 0)]
    priority: u8,
    /// An application header; may be given several times
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// The MIME type of the body
    #[arg(long)]
    content_type: Option<String>,
    /// The application's own id of the message
    #[arg(long)]
    message_id: Option<String>,
    /// Ties a reply to its request
    #[arg(long)]
    correlation_id: Option<String>,
    /// Where a reply should go
    #[arg(long)]
    reply_to: Option<String>,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write a header as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl PublishArguments {
    fn message(&self, body: Bytes) -> PublishMessage {
        let mut message = PublishMessage::new(&self.queue, body).priority(self.priority);
        for (key, value) in &self.headers {
            message = message.header(key, value);
        }
        if let Some(delay) = self.delay {
            message = message.delay(delay);
        }
        if let Some(at_ms) = self.deliver_at {
            message = message.deliver_at_ms(at_ms);
        }
        if let Some(ttl) = self.ttl {
            message = message.ttl(ttl);
        }
        if let Some(at_ms) = self.expire_at {
            message = message.expire_at_ms(at_ms);
        }
        if let Some(content_type) = &self.content_type {
            message = message.content_type(content_type);
        }
        if let Some(message_id) = &self.message_id {
            message = message.message_id(message_id);
        }
        if let Some(correlation_id) = &self.correlation_id {
            message = message.correlation_id(correlation_id);
        }
        if let Some(reply_to) = &self.reply_to {
            message = message.reply_to(reply_to);
        }
        message
    }

    fn when(&self) -> &'static str {
        if self.delay.is_some() || self.deliver_at.is_some() { "scheduled" } else { "ready" }
    }
}

pub async fn run(global: &GlobalArguments, arguments: PublishArguments) -> anyhow::Result<()> {
    let publisher = global.streaming_client()?.publisher(PublisherOptions::default());
    let mut run = Run { publisher, output: global.output, unconfirmed: VecDeque::new(), confirmed: 0, last: None };
    let body = match (&arguments.body, &arguments.file) {
        (Some(body), _) => Some(Bytes::from(body.clone())),
        (None, Some(file)) => Some(std::fs::read(file).with_context(|| format!("reading {}", file.display()))?.into()),
        (None, None) => None,
    };
    // What was confirmed is told also when something after it fails.
    let result = match body {
        Some(body) => run.repeat(&arguments, body).await,
        None => run.lines(&arguments).await,
    };
    if result.is_ok() || run.confirmed > 0 {
        run.summarize(&arguments)?;
    }
    result
}

struct Run {
    publisher: Publisher,
    output: Output,
    unconfirmed: VecDeque<Confirm>,
    confirmed: u64,
    last: Option<PublishResult>,
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

    fn tell(&mut self, results: Vec<PublishResult>) -> anyhow::Result<()> {
        for result in results {
            self.confirmed += 1;
            if self.output == Output::Json {
                let handle = &result.handle;
                output::line(json!({
                    "namespace": handle.namespace,
                    "queue": handle.queue,
                    "sequence": handle.sequence,
                    "duplicate": result.duplicate,
                }))?;
            }
            self.last = Some(result);
        }
        Ok(())
    }

    fn summarize(&self, arguments: &PublishArguments) -> anyhow::Result<()> {
        if self.output == Output::Json {
            return Ok(());
        }
        match (&self.last, self.confirmed) {
            (Some(result), 1) => {
                let handle = &result.handle;
                let name = format!("{}/{}/{}", handle.namespace, handle.queue, handle.sequence);
                output::line(format!("published {name}, {}", arguments.when()))
            }
            (_, count) => output::line(format!("published {count} messages to {}", arguments.queue)),
        }
    }
}

/// Waits for the oldest confirm, and takes it out. Nothing is lost when it is not waited for to the end.
async fn next_confirmed(unconfirmed: &mut VecDeque<Confirm>) -> Result<Vec<PublishResult>, Error> {
    let Some(oldest) = unconfirmed.front_mut() else { return Ok(Vec::new()) };
    let result = oldest.await;
    unconfirmed.pop_front();
    result
}
