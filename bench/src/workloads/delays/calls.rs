//! Calls of one kind, a limited number of them at a time.

use std::time::{Duration, Instant};

use dwell_load::Latencies;
use futures::StreamExt as _;

use super::super::measure::latency;
use crate::results::Outcome;

/// How calls went.
pub struct Calls {
    count: u64,
    seconds: f64,
    latencies: Latencies,
}

impl Calls {
    /// Makes one call for each item, so many at a time. Ends at the first that fails.
    pub async fn make<T, F>(
        items: impl IntoIterator<Item = T>,
        at_a_time: usize,
        mut call: impl FnMut(T) -> F,
    ) -> anyhow::Result<Calls>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let began = Instant::now();
        let mut made = Calls::none()?;
        let timed = |item| {
            let called = call(item);
            async move {
                let began = Instant::now();
                called.await.map(|()| began.elapsed())
            }
        };
        let mut calls = futures::stream::iter(items).map(timed).buffer_unordered(at_a_time);
        while let Some(took) = calls.next().await {
            made.add(took?);
        }
        // By the clock, and not what all calls took together.
        made.seconds = began.elapsed().as_secs_f64();
        Ok(made)
    }

    /// No call so far.
    pub fn none() -> anyhow::Result<Calls> {
        Ok(Calls { count: 0, seconds: 0.0, latencies: Latencies::new()? })
    }

    /// Takes in a call that was made after the ones before.
    pub fn add(&mut self, took: Duration) {
        self.latencies.record_us(took.as_micros() as i64);
        self.count += 1;
        self.seconds += took.as_secs_f64();
    }

    /// Adds the percentiles of their latency.
    pub fn latency(&self, outcome: &mut Outcome, name: &str) {
        latency(outcome, name, self.latencies.percentiles());
    }

    /// Calls a second.
    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.seconds
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn no_more_calls_are_made_at_a_time_than_may_be() {
        let (running, most) = (Cell::new(0), Cell::new(0));
        let call = async |_| {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            tokio::time::sleep(Duration::from_millis(1)).await;
            running.set(running.get() - 1);
            Ok(())
        };
        let calls = Calls::make(0..20, 4, call).await.unwrap();
        assert_eq!((calls.count, most.get()), (20, 4));
        assert!(calls.per_second() > 0.0);
    }

    #[tokio::test]
    async fn a_call_that_fails_ends_them() {
        let call = async |number| {
            anyhow::ensure!(number < 1, "no {number}");
            Ok(())
        };
        let outcome = Calls::make(0..3, 1, call).await;
        assert_eq!(outcome.err().map(|error| error.to_string()), Some("no 1".to_owned()));
    }
}
