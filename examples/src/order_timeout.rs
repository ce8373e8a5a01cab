//! An order is cancelled unless it is paid in time.
//!
//! With each order goes a message that becomes due when the time to pay is over. Paying recalls it. Whether the customer
//! or the clock was first is decided in one place: recall's answer is the truth. `Done` means that nobody will ever see
//! the timeout, and the order can be shipped; anything else means that the timeout was or will be handled.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use dwell_client::{Client, ConsumeOptions, Consumer, PublishMessage, QueueSettings, RevisionOutcome, Target};
use futures::future::try_join_all;

const QUEUE: &str = "order-timeouts";
const TIME_TO_PAY: Duration = Duration::from_millis(1500);
/// Orders that are paid one after the other about when their time is over.
const RACING: usize = 20;
/// So long before.
const LAST_MOMENT: Duration = Duration::from_millis(40);

/// How orders ended.
#[derive(Debug, Default)]
pub struct Orders {
    /// Paid in time.
    pub shipped: BTreeSet<String>,
    /// Not paid in time.
    pub cancelled: BTreeSet<String>,
}

/// Takes orders: one is paid in time, one too late, and some in the last moment.
pub async fn run(server: &str) -> anyhow::Result<Orders> {
    let client = Client::connect([server])?;
    // What an earlier run left.
    let _ = client.delete_queue(QUEUE, false, false).await;
    client.declare_queue(QUEUE, QueueSettings::default()).await?;
    let mut timeouts = client.consume(QUEUE, ConsumeOptions::default()).await?;
    let mut orders = Orders::default();

    order(&client, "paid-in-time").await?;
    order(&client, "paid-too-late").await?;
    ensure!(pay(&client, "paid-in-time", &mut orders).await?, "there was plenty of time");

    cancel_next(&mut timeouts, &mut orders).await?;
    ensure!(!pay(&client, "paid-too-late", &mut orders).await?, "it was cancelled");

    let racing: Vec<String> = (0..RACING).map(|number| format!("racing-{number}")).collect();
    try_join_all(racing.iter().map(|name| order(&client, name))).await?;
    tokio::time::sleep(TIME_TO_PAY - LAST_MOMENT).await;
    for name in &racing {
        pay(&client, name, &mut orders).await?;
    }
    while orders.shipped.len() + orders.cancelled.len() < RACING + 2 {
        cancel_next(&mut timeouts, &mut orders).await?;
    }
    ensure!(orders.shipped.is_disjoint(&orders.cancelled), "no order ends both ways: {orders:?}");
    timeouts.close().await?;
    client.delete_queue(QUEUE, true, false).await.context("no timeout is left")?;
    Ok(orders)
}

/// Takes an order.
async fn order(client: &Client, name: &str) -> anyhow::Result<()> {
    let timeout = PublishMessage::new(QUEUE, name.to_owned()).message_id(name).delay(TIME_TO_PAY);
    let published = client.publish_one(timeout).await?;
    println!("{name}: ordered; to be paid within {TIME_TO_PAY:?} (timeout {})", published.handle.sequence);
    Ok(())
}

/// The customer pays: true if that was in time.
async fn pay(client: &Client, name: &str, orders: &mut Orders) -> anyhow::Result<bool> {
    let revision = client.recall(Target::message_id(QUEUE, name)).await?;
    let outcome = revision.revised.first().map_or(RevisionOutcome::Gone, |revised| revised.outcome);
    match outcome {
        RevisionOutcome::Done => {
            println!("{name}: paid in time, and shipped");
            orders.shipped.insert(name.to_owned());
            Ok(true)
        }
        RevisionOutcome::Leased | RevisionOutcome::Gone | RevisionOutcome::Unknown => {
            println!("{name}: paid too late ({outcome:?}); the money goes back");
            Ok(false)
        }
        // The connection broke at the wrong time. A shop would look into its own books, whether it cancelled the order.
        RevisionOutcome::DoneOrGone => bail!("{name}: paid, and nobody knows whether in time"),
    }
}

/// The time of an order is over.
async fn cancel_next(timeouts: &mut Consumer, orders: &mut Orders) -> anyhow::Result<()> {
    let next = tokio::time::timeout(Duration::from_secs(10), timeouts.next()).await.context("a timeout was due")?;
    let timeout = next.context("the consumer ended")??;
    let name = String::from_utf8_lossy(&timeout.message.body).into_owned();
    println!("{name}: not paid in time, and cancelled");
    timeout.ack().await?;
    orders.cancelled.insert(name);
    Ok(())
}
