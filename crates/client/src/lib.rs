//! The Rust client of Dwell.
//!
//! A [`Client`] is given the addresses of one or more nodes. Any node serves any call; the client learns who
//! leads and goes there directly, and goes elsewhere when that node fails. Everything that can be repeated
//! safely is repeated, with backoff, until [`ClientOptions::retry_deadline`]:
//!
//! * A [`Publisher`] numbers its requests, so that a publish repeated after a failover is stored once.
//! * A [`Transaction`] acknowledges and publishes in one step, and is done once.
//! * A [`Consumer`] keeps its id, so that it keeps its leases when its stream breaks and it attaches again.
//! * A message that is published within an OpenTelemetry span carries its context, as W3C trace context in its headers,
//!   and the consumer goes on from [`Delivery::span_context`].
//! * Where an outcome cannot be known, the error says so: [`Error::Timeout`] and [`Error::Unknown`].
//!
//! ```no_run
//! # async fn example() -> Result<(), dwell_client::Error> {
//! use std::time::Duration;
//!
//! use dwell_client::{Client, ConsumeOptions, PublishMessage, QueueSettings};
//!
//! let client = Client::connect(["127.0.0.1:7600"])?;
//! client.declare_queue("reminders", QueueSettings::default()).await?;
//! let message = PublishMessage::new("reminders", "water the plants").delay(Duration::from_secs(5));
//! let published = client.publish_one(message).await?;
//! println!("stored as {:?}", published.handle);
//!
//! let mut consumer = client.consume("reminders", ConsumeOptions::default()).await?;
//! while let Some(delivery) = consumer.next().await {
//!     let delivery = delivery?;
//!     println!("{:?}", delivery.message.body);
//!     delivery.ack().await?;
//! }
//! # Ok(())
//! # }
//! ```

mod backoff;
mod backup;
mod call;
mod client;
mod cluster;
mod connections;
mod consumer;
mod delivery;
mod directory;
mod error;
mod exchanges;
mod inventory;
mod login;
mod message;
mod options;
mod published;
mod publisher;
mod schedules;
mod settings;
mod settle;
mod trace;
mod transaction;
mod users;

pub use backup::BackupStream;
pub use client::Client;
pub use cluster::{ClusterDigest, NodeDigest};
pub use consumer::Consumer;
pub use delivery::Delivery;
pub use dwell_proto::v1::{
    BackoffKind, BackupBegin, BackupChunk, BrowseMessagesResponse as BrowsePage, Death, DeathReason,
    DescribeScheduleResponse as ScheduleReport, Due, Exchange, ExchangeKind, Firing, ForecastResponse as Forecast,
    GetClusterStatusResponse as ClusterStatus, GetStateDigestResponse as StateDigest, Handle, Member, Message,
    MessageState, Misfire, Overflow, Permission, Queue, QueueCounts, QueueSettings as DeclaredQueueSettings,
    QueueTotals, ReviseProgress, Schedule, ScheduleDefinition as DeclaredScheduleDefinition, StoredMessage, User,
    schedule_definition::Recurrence,
};
pub use dwell_transport::TlsFiles;
pub use error::Error;
pub use exchanges::{Binding, Destination, ExchangeSettings};
pub use inventory::{BrowseOptions, NewTime, Revised, Revising, Revision, RevisionOutcome, Selection, Target};
pub use login::Login;
pub use message::PublishMessage;
/// The version whose current context is looked at: another one's is not seen.
pub use opentelemetry;
pub use options::{ClientOptions, Consistency, ConsumeOptions, PublisherOptions};
pub use published::{PublishOutcome, Published, StoredCopy};
pub use publisher::{Confirm, Publisher};
pub use schedules::ScheduleDefinition;
pub use settings::{Backoff, QueueSettings};
pub use transaction::Transaction;
