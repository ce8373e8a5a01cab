//! What Dwell can do with messages that are pending: browse, forecast, reschedule, recall.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use dwell_client::{
    BrowseOptions, Client, ClientOptions, Due, Forecast, MessageState, NewTime, PublishMessage, Revision,
    RevisionOutcome, Selection, StoredMessage, Target,
};
use dwell_load::now_us;

use super::calls::Calls;
use super::{HOUR_MS, PENDING_FROM_MS, UNIFORM_SPAN_MS};
use crate::results::Outcome;

/// Messages of a page.
const PAGE: u32 = 1000;
/// Revisions of single messages at a time.
const AT_A_TIME: usize = 64;
/// Forecasts, one after the other.
const FORECASTS: usize = 200;
/// Between one horizon and the next. The last one is after all due times, those of rescheduled messages too.
const HORIZON_HOURS: u64 = 4;
const HORIZONS: u64 = 12;
/// When rescheduled messages are due: after all others.
const RESCHEDULED_AFTER: Duration = Duration::from_millis(PENDING_FROM_MS + UNIFORM_SPAN_MS + 10 * HOUR_MS);

/// A queue of Dwell whose messages are all pending.
pub struct Inventory {
    client: Client,
    queue: String,
    /// How many stand in it, as the answers so far have it.
    standing: u64,
}

/// A message that was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    sequence: u64,
    due_ms: i64,
}

impl Inventory {
    pub fn new(addresses: Vec<String>, queue: &str, standing: u64) -> anyhow::Result<Inventory> {
        Ok(Inventory { client: Client::connect(addresses)?, queue: queue.to_owned(), standing })
    }

    /// Pages through so many messages or a few more, the earliest first, without bodies, one page after the other.
    pub async fn browse(&self, outcome: &mut Outcome, messages: u64) -> anyhow::Result<Vec<Seen>> {
        let options = BrowseOptions::default().page_size(PAGE);
        let (mut seen, mut token) = (Vec::new(), Bytes::new());
        let mut calls = Calls::none()?;
        while (seen.len() as u64) < messages {
            let began = Instant::now();
            let page = self.client.browse_page(&self.queue, MessageState::Scheduled, &options, token).await?;
            calls.add(began.elapsed());
            anyhow::ensure!(page.messages.len() == PAGE as usize, "a page of {} messages", page.messages.len());
            seen.extend(page.messages.iter().map(Seen::of).collect::<anyhow::Result<Vec<Seen>>>()?);
            token = page.next_page_token;
        }
        anyhow::ensure!(seen.is_sorted_by_key(|seen| seen.due_ms), "browsed in another order than that of due times");
        outcome.set("browse_messages_per_second", calls.per_second() * f64::from(PAGE));
        calls.latency(outcome, "browse_page");
        Ok(seen)
    }

    /// Asks how many are due within horizons over all due times, and by `middle`, where many may be due.
    pub async fn forecast(&self, outcome: &mut Outcome, middle: Seen) -> anyhow::Result<()> {
        let horizons = horizons(middle.due_ms - (now_us() / 1000) as i64);
        let calls = Calls::make(0..FORECASTS, 1, async |_| self.check(&horizons).await).await?;
        calls.latency(outcome, "forecast");
        Ok(())
    }

    async fn check(&self, horizons: &[Duration]) -> anyhow::Result<()> {
        let forecast = self.client.forecast(&self.queue, horizons).await?;
        check_forecast(&forecast, self.standing).with_context(|| format!("{:?}, {:?}", forecast.counts, forecast.due))
    }

    /// Checks that all are there that should be.
    pub async fn count(&self) -> anyhow::Result<()> {
        self.check(&horizons(0)).await
    }

    /// Gives each message another due time, by itself.
    pub async fn reschedule(&self, outcome: &mut Outcome, messages: &[Seen]) -> anyhow::Result<()> {
        let time = NewTime::after(RESCHEDULED_AFTER);
        let reschedule = async |seen: &Seen| done(&self.client.reschedule(self.target(*seen), time).await?);
        let calls = Calls::make(messages, AT_A_TIME, reschedule).await?;
        outcome.set("reschedules_per_second", calls.per_second());
        calls.latency(outcome, "reschedule");
        Ok(())
    }

    /// Recalls each message by itself.
    pub async fn recall(&mut self, outcome: &mut Outcome, messages: &[Seen]) -> anyhow::Result<()> {
        let recall = async |seen: &Seen| done(&self.client.recall(self.target(*seen)).await?);
        let calls = Calls::make(messages, AT_A_TIME, recall).await?;
        self.standing -= messages.len() as u64;
        outcome.set("recalls_per_second", calls.per_second());
        calls.latency(outcome, "recall");
        Ok(())
    }

    /// Recalls by filter all that are due before `end`, of which there are at most `expected`.
    pub async fn recall_before(&mut self, outcome: &mut Outcome, end: Seen, expected: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        let selection = Selection::all(&self.queue).due_before_ms(end.due_ms);
        let progress = self.client.recall_matching(selection).await?.finish().await?;
        anyhow::ensure!(
            progress.done && progress.leased == 0 && (1..=expected).contains(&progress.revised),
            "recalled by filter: {progress:?}, and not {expected}"
        );
        self.standing -= progress.revised;
        outcome.set("recall_by_filter_messages_per_second", progress.revised as f64 / began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Schedules one more, by a client that knows nothing yet, and tries for so long.
    pub async fn schedule_within(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let options = ClientOptions::default().retry_deadline(deadline);
        let client = Client::connect_with(self.client.addresses(), options)?;
        client.publish_one(PublishMessage::new(&self.queue, "one more").delay(RESCHEDULED_AFTER)).await?;
        self.standing += 1;
        Ok(())
    }

    fn target(&self, seen: Seen) -> Target {
        Target::sequences(&self.queue, [seen.sequence])
    }
}

impl Seen {
    fn of(message: &StoredMessage) -> anyhow::Result<Seen> {
        let handle = message.handle.as_ref().context("a message without a handle")?;
        Ok(Seen { sequence: handle.sequence, due_ms: message.ready_at_ms })
    }
}

fn horizons(further_ms: i64) -> Vec<Duration> {
    let hours = |number: u64| Duration::from_millis(number * HORIZON_HOURS * HOUR_MS);
    let further = Duration::from_millis(further_ms.max(0).unsigned_abs());
    (1..=HORIZONS).map(hours).chain([further]).collect()
}

/// A forecast of a queue in which so many are scheduled, and nothing else.
fn check_forecast(forecast: &Forecast, standing: u64) -> anyhow::Result<()> {
    let counts = forecast.counts.as_ref().context("no counts")?;
    let others = counts.ready + counts.leased;
    anyhow::ensure!(counts.scheduled == standing && others == 0, "counted, where {standing} are scheduled");
    let evenly: Vec<&Due> = forecast.due.iter().take(HORIZONS as usize).collect();
    anyhow::ensure!(evenly.is_sorted_by_key(|due| due.messages), "fewer are due by a later time");
    let first_and_last = (evenly.first().map(|due| due.messages), evenly.last().map(|due| due.messages));
    anyhow::ensure!(first_and_last == (Some(0), Some(standing)), "due, where {standing} are within the horizons");
    Ok(())
}

/// The one message that was named was there.
fn done(revision: &Revision) -> anyhow::Result<()> {
    let outcomes: Vec<RevisionOutcome> = revision.revised.iter().map(|revised| revised.outcome).collect();
    anyhow::ensure!(outcomes == [RevisionOutcome::Done], "a message that is scheduled was not revised: {outcomes:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use dwell_client::QueueCounts;

    use super::*;

    fn forecast(scheduled: u64, due: impl Fn(usize) -> u64) -> Forecast {
        let counts = QueueCounts { scheduled, ..Default::default() };
        let due = (0..HORIZONS as usize).map(|number| Due { messages: due(number), exact: true, ..Default::default() });
        Forecast { counts: Some(counts), due: due.collect(), now_ms: 0 }
    }

    #[test]
    fn a_forecast_that_cannot_be_true_is_refused() {
        let last = HORIZONS as usize - 1;
        assert!(check_forecast(&forecast(10, |number| if number == last { 10 } else { 0 }), 10).is_ok());
        assert!(check_forecast(&forecast(9, |number| if number == last { 9 } else { 0 }), 10).is_err());
        assert!(check_forecast(&forecast(10, |number| if number == 0 { 1 } else { 10 }), 10).is_err());
        assert!(check_forecast(&forecast(10, |number| (number % 2 * 10) as u64), 10).is_err());
        assert!(check_forecast(&forecast(10, |_| 0), 10).is_err());
    }

    #[test]
    fn the_last_horizon_is_after_everything_and_the_first_before() {
        let horizons = horizons(5);
        assert!(horizons[0] < Duration::from_millis(PENDING_FROM_MS));
        assert!(horizons[HORIZONS as usize - 1] > RESCHEDULED_AFTER);
        assert_eq!(horizons.last(), Some(&Duration::from_millis(5)));
    }
}
