//! One producer of a load.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

use super::identity::Identity;
use super::measurements::Latencies;
use super::run::Run;
use super::schedule::{due_ms, now_us};
use super::spec::Produce;
use crate::drivers::Producer;

/// So many publishes of one producer may fail: when a leader dies, some do.
const FAILURES_MAX: u64 = 100_000;
/// Between a publish that failed and the next.
const FAILURE_PAUSE: Duration = Duration::from_millis(5);

/// A message that was confirmed, or not.
struct Outcome {
    number: u64,
    sent: Instant,
    result: anyhow::Result<()>,
}

/// Publishes its share, with so many in flight, and answers the confirm latencies.
pub async fn run<P: Producer>(run: Arc<Run>, producer: u32, mut channel: P) -> anyhow::Result<Latencies> {
    let produce = run.spec.produce.as_ref().context("a producer needs to know what to produce")?;
    let mut latencies = Latencies::new()?;
    let mut confirming = FuturesUnordered::new();
    let mut pace = Pace::new(produce);
    let (mut number, share, mut failures) = (0, produce.share(producer), 0);
    loop {
        let more = number < share && !run.stopping.is_cancelled();
        if !more && confirming.is_empty() {
            return Ok(latencies);
        }
        let room = more && confirming.len() < produce.in_flight;
        pace.note_room(room);
        tokio::select! {
            biased;
            Some(outcome) = confirming.next(), if !confirming.is_empty() => {
                let Outcome { number, sent, result } = outcome;
                match result {
                    Ok(()) => {
                        run.silence.end();
                        latencies.record_us(sent.elapsed().as_micros() as i64);
                        run.ledger.confirm(producer, number);
                    }
                    Err(error) => fail(&run, &mut failures, error).await?,
                }
            }
            sent = pace.next(number), if room => {
                let (body, due_ms) = message(&run, produce, producer, number, sent.elapsed());
                let queue = &run.spec.queues[((number + u64::from(producer)) % run.spec.queues.len() as u64) as usize];
                match channel.send(queue, body, due_ms).await {
                    Ok(confirm) => {
                        confirming.push(confirm.map(move |result| Outcome { number, sent, result }));
                        number += 1;
                    }
                    Err(error) => fail(&run, &mut failures, error).await?,
                }
            }
            () = run.stopping.cancelled(), if more => {}
        }
    }
}

/// Some publishes may fail, and the report says how many.
async fn fail(run: &Run, failures: &mut u64, error: anyhow::Error) -> anyhow::Result<()> {
    run.ledger.fail();
    *failures += 1;
    if *failures >= FAILURES_MAX {
        return Err(error.context("too many publishes failed"));
    }
    tracing::debug!(%error, "a message is not confirmed");
    tokio::time::sleep(FAILURE_PAUSE).await;
    Ok(())
}

/// The body of a message that should have been sent `late` ago, and when it is due.
fn message(run: &Run, produce: &Produce, producer: u32, number: u64, late: Duration) -> (bytes::Bytes, Option<u64>) {
    let due_ms = due_ms(produce, producer, number, run.began_us.get().copied().unwrap_or_default());
    let at_us = match due_ms {
        Some(due_ms) => due_ms * 1000,
        None => now_us() - late.as_micros() as u64,
    };
    if due_ms.is_some() {
        run.last_due_us.fetch_max(at_us, Ordering::Relaxed);
    }
    let identity = Identity { run: run.spec.run, producer, number, at_us };
    (identity.body(produce.body_bytes), due_ms)
}

/// When to send the next message.
struct Pace {
    began: Instant,
    /// Between one message and the next of this producer; none: as soon as there is room.
    interval: Option<Duration>,
    /// Since when there has been room for another message.
    room_since: Option<Instant>,
}

impl Pace {
    fn new(produce: &Produce) -> Pace {
        let interval = produce.rate.map(|rate| Duration::from_secs_f64(f64::from(produce.producers) / rate));
        Pace { began: Instant::now(), interval, room_since: None }
    }

    fn note_room(&mut self, room: bool) {
        match (room, self.room_since) {
            (true, None) => self.room_since = Some(Instant::now()),
            (false, Some(_)) => self.room_since = None,
            _ => {}
        }
    }

    /// Waits for the time of a message, and answers from when on its latency counts: its planned time, if it was held
    /// up because too many were unconfirmed. Otherwise a slow system would be asked less often, and look better.
    async fn next(&self, number: u64) -> Instant {
        let Some(interval) = self.interval else { return Instant::now() };
        // By the plan, not after the last one: what was late is caught up with.
        let planned = self.began + interval.mul_f64(number as f64);
        tokio::time::sleep_until(planned).await;
        let held_up = self.room_since.is_some_and(|since| since > planned);
        if held_up { planned } else { Instant::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::spec::Until;

    #[tokio::test(start_paused = true)]
    async fn a_message_that_was_held_up_counts_from_its_planned_time() {
        let until = Until::Messages(10);
        let produce = Produce { producers: 1, in_flight: 1, body_bytes: 100, until, rate: Some(100.0), due: None };
        let mut pace = Pace::new(&produce);
        pace.note_room(true);
        let second = pace.next(1).await;
        assert_eq!(second - pace.began, Duration::from_millis(10));
        pace.note_room(false);
        tokio::time::sleep(Duration::from_millis(30)).await;
        pace.note_room(true);
        let third = pace.next(2).await;
        assert_eq!(third - pace.began, Duration::from_millis(20));
        assert_eq!(third.elapsed(), Duration::from_millis(20));
    }
}
