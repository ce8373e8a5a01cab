//! Publishing in every way, and changing plans for what was published.

use std::collections::VecDeque;
use std::time::Duration;

use dwell_client::{PublisherOptions, Selection};
use rand::RngExt;
use tokio::time::{Instant, MissedTickBehavior, sleep};

use super::actor::{Actor, BATCH_HEADER};
use super::topology::{EXPIRING, FAN, GROUPS, INCOMING, RETRY, WORK};
use crate::history::{Answer, Call, Publication, Revision, Stored};

/// How many of its messages a process remembers, to revise them.
const REMEMBERED_MAX: usize = 64;
/// Longest delay of a message.
const DELAY_MS_MAX: u64 = 8000;
/// How many messages are recalled together, or more: then a new batch begins.
const BATCH_MESSAGES: u64 = 12;

/// A message that can be revised.
#[derive(Debug)]
struct Known {
    queue: String,
    sequence: u64,
    due: Instant,
}

struct Producing {
    actor: Actor,
    publisher: dwell_client::Publisher,
    known: VecDeque<Known>,
    /// Requests that were sent twice.
    repeated: u64,
    /// Messages with the header of a batch.
    batched: u64,
    end: Instant,
}

/// One call every `interval` until the end.
pub(super) async fn run(mut actor: Actor, interval: Duration, end: Instant) {
    // Processes do not all begin at once.
    sleep(interval.mul_f64(actor.random.random_range(0.0..1.0))).await;
    let publisher = actor.client.publisher(PublisherOptions::default());
    let mut producing = Producing { actor, publisher, known: VecDeque::new(), repeated: 0, batched: 0, end };
    let mut ticks = tokio::time::interval(interval);
    // A process that waited for an answer does not make up for it.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < end {
        ticks.tick().await;
        producing.step().await;
    }
}

impl Producing {
    async fn step(&mut self) {
        match self.actor.random.random_range(0..100) {
            0..36 => self.publish_one().await,
            36..44 => self.publish_batch().await,
            44..50 => self.publish_without_waiting().await,
            50..56 => self.publish_twice().await,
            56..59 => self.publish_deduplicated().await,
            59..66 => self.publish_fan().await,
            66..72 => self.publish_group().await,
            72..78 => self.publish_to(INCOMING).await,
            78..81 => self.publish_at_a_time().await,
            81..90 => self.revise(Revision::Recall).await,
            90..95 => {
                let delay_ms = self.actor.random.random_range(0..=3000);
                self.revise(Revision::Reschedule { delay_ms }).await;
            }
            95..99 => self.revise(Revision::Expire).await,
            _ => self.recall_batch().await,
        }
    }

    fn publication(&mut self, to: &str) -> Publication {
        let mut publication =
            Publication { message: self.actor.next_message(), to: to.into(), ..Publication::default() };
        match self.actor.random.random_range(0..10) {
            0..4 => {}
            // Mostly short, so that much falls due while something is broken.
            4..8 => publication.delay_ms = Some(self.actor.random.random_range(10..=1500)),
            _ => publication.delay_ms = Some(self.actor.random.random_range(10..=DELAY_MS_MAX)),
        }
        publication
    }

    async fn publish_one(&mut self) {
        let to = [WORK, WORK, WORK, RETRY, EXPIRING][self.actor.random.random_range(0..5)];
        let mut publication = self.publication(to);
        if self.actor.one_in(4) {
            publication.priority = self.actor.random.random_range(0..10);
        }
        if to == EXPIRING && self.actor.one_in(2) {
            publication.ttl_ms = Some(self.actor.random.random_range(20..=3000));
        }
        if to == WORK && self.actor.one_in(6) {
            publication.batch = Some(self.batch(0));
            self.batched += 1;
        }
        let patience = self.actor.patience();
        self.publish(None, vec![publication], patience).await;
    }

    async fn publish_to(&mut self, queue: &str) {
        let publication = self.publication(queue);
        let patience = self.actor.patience();
        self.publish(None, vec![publication], patience).await;
    }

    async fn publish_batch(&mut self) {
        let count = self.actor.random.random_range(2..=6);
        let publications = (0..count).map(|_| {
            let to = [WORK, RETRY, EXPIRING][self.actor.random.random_range(0..3)];
            self.publication(to)
        });
        let publications = publications.collect();
        let patience = self.actor.patience();
        self.publish(None, publications, patience).await;
    }

    /// Several requests of one stream under way at a time.
    async fn publish_without_waiting(&mut self) {
        let count = self.actor.random.random_range(3..=8);
        let requests: Vec<_> = (0..count).map(|_| vec![self.publication(WORK)]).collect();
        let patience = self.actor.patience();
        let (actor, publisher) = (&self.actor, &self.publisher);
        let publishing = requests.iter().map(|request| actor.publish(publisher, None, request.clone(), patience));
        let answers = futures::future::join_all(publishing).await;
        for (request, stored) in requests.iter().zip(answers) {
            self.remember(request, &stored);
        }
    }

    /// A request whose producer forgets, or never learns, that it was sent, and sends it again under the same number.
    async fn publish_twice(&mut self) {
        self.repeated += 1;
        let producer = format!("repeating-{:x}-{}-{}", self.actor.seed, self.actor.process, self.repeated);
        let publications = vec![self.publication(WORK)];
        let options = PublisherOptions::default().producer_id(&producer);
        let patience = if self.actor.one_in(3) { Duration::from_secs(40) } else { self.actor.milliseconds(1, 60) };
        // Each new publisher of this id gives its first request the number 1.
        let first = self.actor.client.publisher(options.clone());
        self.actor.publish(&first, Some((producer.clone(), 1)), publications.clone(), patience).await;
        let second = self.actor.client.publisher(options);
        let patience = self.actor.patience();
        let stored = self.actor.publish(&second, Some((producer, 1)), publications.clone(), patience).await;
        self.remember(&publications, &stored);
    }

    /// Two messages of which only one is to be stored.
    async fn publish_deduplicated(&mut self) {
        let mut first = self.publication(WORK);
        first.dedupe_id = Some(format!("once-{}", first.message));
        let second = Publication { message: self.actor.next_message(), ..first.clone() };
        let patience = self.actor.patience();
        self.publish(None, vec![first], patience).await;
        let patience = self.actor.patience();
        self.publish(None, vec![second], patience).await;
    }

    async fn publish_fan(&mut self) {
        let publication = Publication { through_exchange: true, ..self.publication(FAN) };
        let patience = self.actor.patience();
        self.publish(None, vec![publication], patience).await;
    }

    async fn publish_group(&mut self) {
        let group = format!("group-{}", self.actor.random.random_range(0..8));
        let mut publications = Vec::new();
        for _ in 0..self.actor.random.random_range(1..=4) {
            let mut publication = self.publication(GROUPS);
            publication.delay_ms = publication.delay_ms.map(|delay_ms| delay_ms.min(1500));
            publication.group = Some(group.clone());
            publications.push(publication);
        }
        let patience = self.actor.patience();
        self.publish(None, publications, patience).await;
    }

    /// By the time of the cluster, which these clients have no other way to know.
    async fn publish_at_a_time(&mut self) {
        let Ok(forecast) = self.actor.client.forecast(EXPIRING, &[]).await else { return };
        let mut publication = self.publication(EXPIRING);
        let delay_ms = publication.delay_ms.take().unwrap_or(0);
        publication.deliver_at_ms = forecast.now_ms.checked_add_unsigned(delay_ms);
        if self.actor.one_in(2) {
            let life_ms = self.actor.random.random_range(200..=4000);
            publication.expire_at_ms = forecast.now_ms.checked_add_unsigned(life_ms);
        }
        let patience = self.actor.patience();
        self.publish(None, vec![publication], patience).await;
    }

    async fn publish(&mut self, producer: Option<(String, u64)>, messages: Vec<Publication>, patience: Duration) {
        let stored = self.actor.publish(&self.publisher, producer, messages.clone(), patience).await;
        self.remember(&messages, &stored);
    }

    fn remember(&mut self, messages: &[Publication], stored: &[Stored]) {
        for (message, stored) in messages.iter().zip(stored) {
            // A batch is recalled as such; what is to expire, or goes in turn, mostly left alone.
            if message.batch.is_some() || (message.group.is_some() && !self.actor.one_in(8)) {
                continue;
            }
            for copy in &stored.copies {
                let due = Instant::now() + Duration::from_millis(message.delay_ms.unwrap_or(0));
                if self.known.len() == REMEMBERED_MAX {
                    self.known.pop_front();
                }
                self.known.push_back(Known { queue: copy.queue.clone(), sequence: copy.sequence, due });
            }
        }
    }

    /// Of some message: half of the time just when it falls due, if that is soon.
    async fn revise(&mut self, revision: Revision) {
        if self.known.is_empty() {
            return;
        }
        let position = self.actor.random.random_range(0..self.known.len());
        let Some(known) = self.known.remove(position) else { return };
        let until_due = known.due.saturating_duration_since(Instant::now());
        if until_due < Duration::from_millis(500) && self.actor.one_in(2) && known.due < self.end {
            let early = self.actor.milliseconds(0, 4);
            sleep(until_due.saturating_sub(early)).await;
        }
        let patience = self.actor.patience();
        let revoke = revision == Revision::Recall && self.actor.one_in(6);
        self.actor.revise(&known.queue, known.sequence, revision, revoke, patience).await;
        // It may be revised again.
        if !matches!(revision, Revision::Recall) || self.actor.one_in(4) {
            self.known.push_back(known);
        }
    }

    /// The batch that messages go into now, or one before it.
    fn batch(&self, before: u64) -> u64 {
        u64::from(self.actor.process) << 32 | (self.batched / BATCH_MESSAGES).saturating_sub(before)
    }

    async fn recall_batch(&mut self) {
        let before = u64::from(self.actor.one_in(2));
        let batch = self.batch(before);
        let selection = Selection::all(WORK).header(BATCH_HEADER, batch.to_string());
        let call = Call::ReviseMatching { queue: WORK.into(), batch };
        let client = self.actor.client.clone();
        let patience = self.actor.patience();
        let recalling = async {
            // What is done of it when it breaks off is not known.
            let unknown = |error: dwell_client::Error| dwell_client::Error::Unknown(error.to_string());
            client.recall_matching(selection).await.map_err(unknown)?.finish().await.map_err(unknown)
        };
        self.actor.perform(call, patience, recalling, |progress| Answer::Recalled { messages: progress.revised }).await;
    }
}
