//! A reminder is moved to another time, with everything it carries, as often as the user likes.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use dwell_client::{Client, MessageState, NewTime, PublishMessage, QueueSettings, RevisionOutcome, Target};

const QUEUE: &str = "reminders";
const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(1200);

/// Sets a reminder in an hour, moves it to tomorrow, then to now. Answers how long after the last move it came.
pub async fn run(server: &str) -> anyhow::Result<Duration> {
    let client = Client::connect([server])?;
    // What an earlier run left.
    let _ = client.delete_queue(QUEUE, false, false).await;
    client.declare_queue(QUEUE, QueueSettings::default()).await?;

    let reminder = PublishMessage::new(QUEUE, "water the plants").delay(HOUR).header("user", "ada");
    let handle = client.publish_one(reminder).await?.handle;
    println!("a reminder in an hour, number {}", handle.sequence);

    let tomorrow = NewTime::at(SystemTime::now() + 24 * HOUR);
    let moved = client.reschedule(Target::handle(&handle), tomorrow).await?;
    ensure!(moved.revised[0].outcome == RevisionOutcome::Done, "it waits, and can be moved");
    let stored = client.get_message(&handle).await?;
    ensure!(stored.state() == MessageState::Scheduled, "it still waits");
    println!("moved to tomorrow: due at {}", stored.ready_at_ms);

    client.reschedule(Target::handle(&handle), NewTime::after(SOON)).await?;
    let moved_at = Instant::now();
    println!("moved to {SOON:?} from now");

    let deliveries = client.receive(QUEUE, 10, Duration::from_secs(10)).await?;
    let waited = moved_at.elapsed();
    let delivery = deliveries.first().context("the reminder came")?;
    println!("after {waited:.1?}: {}", String::from_utf8_lossy(&delivery.message.body));
    ensure!(deliveries.len() == 1 && delivery.handle == handle, "it came once, under the handle that it always had");
    ensure!(delivery.message.headers["user"] == "ada", "it carries what it was given");
    // The answers to the move and to the receive take time as well, so that the wait may look a little shorter here.
    ensure!(waited > SOON / 2, "it came after {waited:?}, too early");

    let too_late = client.reschedule(Target::handle(&handle), NewTime::after(HOUR)).await?;
    ensure!(too_late.revised[0].outcome == RevisionOutcome::Leased, "who has it cannot be made to forget it");
    println!("moving it again: too late, it is being shown");
    delivery.ack().await?;
    client.delete_queue(QUEUE, true, false).await?;
    Ok(waited)
}
