//! One producer of a load.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

use crate::driver::Producer;
use crate::identity::Identity;
use crate::measurements::Latencies;
use crate::run::Run;
use crate::schedule::{due_ms, now_us};
use crate::spec::Produce;

/// So many publishes of one producer may fail.
const FAILURES_MAX: u64 = 100_000;
/// Between a publish that failed and the next.
const FAILURE_PAUSE: Duration = Duration::from_millis(5);

/// A message that was confirmed, or not.
struct Outcome {
    number: u64,
    sent: Instant,
    result: anyhow::Result<()>,
}

/// Publishes its share of a load that began then, with so many in flight, and answers the confirm latencies.
pub async fn run<P: Producer>(
    run: Arc<Run>,
    producer: u32,
    mut channel: P,
    began_us: u64,
) -> anyhow::Result<Latencies> {
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
                    Err(error) => fail::<P>(&run, &mut failures, error).await?,
                }
            }
            sent = pace.next(number), if room => {
                let due_ms = due_ms(produce, producer, number, began_us);
                let at_us = at_us(&run, due_ms, sent.elapsed());
                let body = Identity { run: run.spec.run, producer, number, at_us }.body(produce.body_bytes);
                let queue = &run.spec.queues[((number + u64::from(producer)) % run.spec.queues.len() as u64) as usize];
                match channel.send(queue, body, due_ms).await {
                    Ok(confirm) => {
                        confirming.push(confirm.map(move |result| Outcome { number, sent, result }));
                        number += 1;
                    }
                    Err(error) => fail::<P>(&run, &mut failures, error).await?,
                }
            }
            () = run.stopping.cancelled(), if more => {}
        }
    }
}

/// Some publishes may fail, and the report says how many.
async fn fail<P: Producer>(run: &Run, failures: &mut u64, error: anyhow::Error) -> anyhow::Result<()> {
    run.ledger.fail();
    *failures += 1;
    if !P::may_pass(&error) {
        return Err(error);
    }
    match *failures {
        FAILURES_MAX => return Err(error.context("too many publishes failed")),
        // Why, once: all that fail after it in the same moment have the same reason.
        1 => tracing::warn!(%error, "a message is not confirmed"),
        _ => tracing::debug!(%error, "a message is not confirmed"),
    }
    tokio::time::sleep(FAILURE_PAUSE).await;
    Ok(())
}

/// From when on the receipt of a message counts: its due time, or when it should have been sent, which was `late` ago.
fn at_us(run: &Run, due_ms: Option<u64>, late: Duration) -> u64 {
    let Some(due_ms) = due_ms else { return now_us() - late.as_micros() as u64 };
    run.last_due_us.fetch_max(due_ms * 1000, Ordering::Relaxed);
    due_ms * 1000
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
    use crate::spec::Until;

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
