//! One trace from the request that asks for a reminder, through its delay, to the work that it causes.
//!
//! The client puts the trace context of the current span on the message, and the consumer's span is linked to it. A link and
//! no child: what a message causes after hours is no part of the request that sent it. (Where waits are short, a child by
//! `Context::with_remote_span_context` shows both in one picture.) Spans are printed here; a program would export them by
//! `opentelemetry-otlp`. With `otlp_endpoint`, Dwell's nodes tell the same collector of what they did in between.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use dwell_client::opentelemetry::Context;
use dwell_client::opentelemetry::trace::{
    FutureExt, Link, Span, SpanContext, SpanKind, TraceContextExt, Tracer, TracerProvider,
};
use dwell_client::{Client, PublishMessage, QueueSettings};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};

const QUEUE: &str = "traced-reminders";
const DELAY: Duration = Duration::from_millis(500);

/// The two spans of a reminder.
#[derive(Debug)]
pub struct Traced {
    /// In which it was published.
    pub asked: SpanContext,
    /// What the span in which it was processed is linked to.
    pub linked: SpanContext,
}

/// Asks for a reminder in one span, and processes it in another.
pub async fn run(server: &str) -> anyhow::Result<Traced> {
    let provider = SdkTracerProvider::builder().with_simple_exporter(Printer).build();
    let tracer = provider.tracer("reminders");
    let client = Client::connect([server])?;
    client.declare_queue(QUEUE, QueueSettings::default()).await?;

    let asked = ask(&client, &tracer).await?;
    let linked = process(&client, &tracer).await?;
    ensure!(linked.trace_id() == asked.trace_id(), "the trace was lost on the way");
    provider.shutdown()?;
    Ok(Traced { asked, linked })
}

/// What is published within a span carries its context, without a word of it.
async fn ask(client: &Client, tracer: &SdkTracer) -> anyhow::Result<SpanContext> {
    let span = tracer.span_builder(format!("send {QUEUE}")).with_kind(SpanKind::Producer).start(tracer);
    let context = Context::current_with_span(span);
    let reminder = PublishMessage::new(QUEUE, "water the plants").delay(DELAY);
    client.publish_one(reminder).with_context(context.clone()).await?;
    context.span().end();
    Ok(context.span().span_context().clone())
}

async fn process(client: &Client, tracer: &SdkTracer) -> anyhow::Result<SpanContext> {
    let received = client.receive(QUEUE, 1, Duration::from_secs(10)).await?;
    let reminder = received.first().context("a reminder was due")?;
    let origin = reminder.span_context().context("it was published within a span")?;
    let links = vec![Link::with_context(origin.clone())];
    let building = tracer.span_builder(format!("process {QUEUE}")).with_kind(SpanKind::Consumer).with_links(links);
    let mut span = building.start(tracer);
    println!("{}", String::from_utf8_lossy(&reminder.message.body));
    reminder.ack().await?;
    span.end();
    Ok(origin)
}

/// Shows spans as they end.
#[derive(Debug)]
struct Printer;

impl SpanExporter for Printer {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        for span in batch {
            let links = span.links.iter().map(|link| link.span_context.span_id().to_string()).collect::<Vec<_>>();
            let context = &span.span_context;
            println!("{}: span {} of trace {}, links {links:?}", span.name, context.span_id(), context.trace_id());
        }
        Ok(())
    }
}
