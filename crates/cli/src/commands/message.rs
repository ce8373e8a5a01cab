//! What a command line says about a message to publish.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use dwell_client::PublishMessage;

use crate::times::parse_duration;

/// Where a message goes, and what it carries beside its body.
#[derive(Debug, Args)]
pub struct MessageArguments {
    /// The exchange that routes it, instead of naming a queue
    #[arg(long)]
    exchange: Option<String>,
    /// The key that the exchange routes by
    #[arg(long, requires = "exchange")]
    key: Option<String>,
    /// Refuse the message if it reaches no queue
    #[arg(long)]
    mandatory: bool,
    /// Ready after so long: 250ms, 5s, 1h 30m. At most ten years [default: the queue's]
    #[arg(long, value_parser = parse_duration)]
    delay: Option<Duration>,
    /// Expires when it has been ready for so long
    #[arg(long, value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// 0 to 255; higher is delivered first
    #[arg(long, default_value_t = 0)]
    priority: u8,
    /// Not stored again if a message with this id came within the queue's dedupe window
    #[arg(long, value_name = "ID")]
    dedupe_id: Option<String>,
    /// Messages of one group are delivered in order, one at a time
    #[arg(long)]
    group: Option<String>,
    /// An application header; may be given several times
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// The MIME type of the body
    #[arg(long)]
    content_type: Option<String>,
    /// The application's own id of the message, by which it can be recalled
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// Ties a reply to its request
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Where a reply should go
    #[arg(long)]
    reply_to: Option<String>,
}

/// Where the body comes from.
#[derive(Debug, Args)]
pub struct BodyArguments {
    /// The body
    #[arg(long, conflicts_with = "file")]
    body: Option<String>,
    /// A file with the body
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl BodyArguments {
    /// The body, if one is given.
    pub fn read(&self) -> anyhow::Result<Option<Bytes>> {
        Ok(match (&self.body, &self.file) {
            (Some(body), _) => Some(Bytes::from(body.clone())),
            (None, Some(file)) => {
                Some(std::fs::read(file).with_context(|| format!("reading {}", file.display()))?.into())
            }
            (None, None) => None,
        })
    }
}

impl MessageArguments {
    /// A message with this body, for `queue` unless it goes through an exchange.
    pub fn message(&self, queue: Option<&str>, body: Bytes) -> PublishMessage {
        let key = self.key.as_deref().or(queue).unwrap_or_default();
        let mut message = PublishMessage::new(key, body).priority(self.priority);
        if let Some(exchange) = &self.exchange {
            message = message.exchange(exchange);
        }
        if self.mandatory {
            message = message.mandatory();
        }
        for (key, value) in &self.headers {
            message = message.header(key, value);
        }
        if let Some(delay) = self.delay {
            message = message.delay(delay);
        }
        if let Some(ttl) = self.ttl {
            message = message.ttl(ttl);
        }
        message = with(message, &self.dedupe_id, PublishMessage::dedupe_id);
        message = with(message, &self.group, PublishMessage::group);
        message = with(message, &self.content_type, PublishMessage::content_type);
        message = with(message, &self.message_id, PublishMessage::message_id);
        message = with(message, &self.correlation_id, PublishMessage::correlation_id);
        with(message, &self.reply_to, PublishMessage::reply_to)
    }

    /// Where it goes, for people.
    pub fn destination(&self, queue: Option<&str>) -> String {
        match &self.exchange {
            Some(exchange) => format!("exchange {exchange}"),
            None => queue.unwrap_or_default().to_owned(),
        }
    }

    /// True if it waits before it is ready.
    pub fn is_delayed(&self) -> bool {
        self.delay.is_some_and(|delay| !delay.is_zero())
    }
}

/// Sets what is given.
fn with(
    message: PublishMessage,
    text: &Option<String>,
    set: fn(PublishMessage, String) -> PublishMessage,
) -> PublishMessage {
    match text {
        Some(text) => set(message, text.clone()),
        None => message,
    }
}

/// Parses `KEY=VALUE`.
pub fn parse_header(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write a header as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
