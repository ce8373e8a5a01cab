//! The load generator over queues in memory, which do what no broker should.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dwell_load::{
    Consume, Consumer, Delivery, Driver, Due, LoadReport, LoadSpec, Produce, Producer, Until, now_us, prepare,
};
use futures::FutureExt as _;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const MESSAGES: u64 = 100;
const PRODUCERS: u32 = 3;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Nothing,
    /// Each producer's first message is confirmed, and never comes.
    LosesTheFirst,
    /// Each producer's first message comes twice.
    DoublesTheFirst,
    /// Delays are forgotten.
    IgnoresDelays,
    /// Each producer's first publish fails.
    FailsTheFirst,
    /// Every publish fails, and will.
    Refuses,
    /// Every acknowledgement comes too late.
    ForgetsLeases,
    /// No acknowledgement is answered.
    LosesAnswers,
}

type Ends = (UnboundedSender<Message>, Arc<Mutex<UnboundedReceiver<Message>>>);

#[derive(Clone)]
struct InMemory {
    queues: Arc<BTreeMap<String, Ends>>,
    fault: Fault,
}

impl InMemory {
    fn new(fault: Fault) -> InMemory {
        let ends = |name: String| {
            let (sender, receiver) = unbounded_channel();
            (name, (sender, Arc::new(Mutex::new(receiver))))
        };
        InMemory { queues: Arc::new(queues().into_iter().map(ends).collect()), fault }
    }
}

impl Driver for InMemory {
    type Producer = Publishing;
    type Consumer = Receiving;

    async fn declare(&self, _queues: &[String]) -> anyhow::Result<()> {
        Ok(())
    }

    async fn producer(&self) -> anyhow::Result<Publishing> {
        Ok(Publishing { broker: self.clone(), first: true })
    }

    async fn consumer(&self, queue: &str, _number: u32, _credit: u32) -> anyhow::Result<Receiving> {
        Ok(Receiving { queue: self.queues[queue].clone() })
    }
}

struct Publishing {
    broker: InMemory,
    first: bool,
}

impl Producer for Publishing {
    type Confirm = Ready<anyhow::Result<()>>;

    async fn send(&mut self, queue: &str, body: Bytes, due_ms: Option<u64>) -> anyhow::Result<Self::Confirm> {
        let (first, fault) = (std::mem::take(&mut self.first), self.broker.fault);
        let copies = match (fault, first) {
            (Fault::Refuses, _) | (Fault::FailsTheFirst, true) => return Ok(ready(Err(anyhow::anyhow!("{fault:?}")))),
            (Fault::LosesTheFirst, true) => 0,
            (Fault::DoublesTheFirst, true) => 2,
            _ => 1,
        };
        let sender = self.broker.queues[queue].0.clone();
        let deliver = move || {
            for copy in 0..copies {
                sender.send(Message { body: body.clone(), again: copy > 0, fault }).unwrap();
            }
        };
        match due_ms.filter(|_| fault != Fault::IgnoresDelays) {
            None => deliver(),
            Some(due_ms) => {
                let wait = Duration::from_micros((due_ms * 1000).saturating_sub(now_us()));
                tokio::spawn(tokio::time::sleep(wait).map(move |()| deliver()));
            }
        }
        Ok(ready(Ok(())))
    }

    fn may_pass(error: &anyhow::Error) -> bool {
        error.to_string() != "Refuses"
    }
}

struct Receiving {
    queue: Ends,
}

impl Consumer for Receiving {
    type Delivery = Message;

    async fn next(&mut self) -> Option<anyhow::Result<Message>> {
        self.queue.1.lock().await.recv().await.map(Ok)
    }

    async fn close(self) -> anyhow::Result<()> {
        Ok(())
    }
}

struct Message {
    body: Bytes,
    again: bool,
    fault: Fault,
}

impl Delivery for Message {
    fn body(&self) -> &[u8] {
        &self.body
    }

    fn is_again(&self) -> bool {
        self.again
    }

    async fn ack(self) -> anyhow::Result<()> {
        anyhow::ensure!(!matches!(self.fault, Fault::ForgetsLeases | Fault::LosesAnswers), "{:?}", self.fault);
        Ok(())
    }

    fn is_in_doubt(error: &anyhow::Error) -> bool {
        error.to_string() == "LosesAnswers"
    }
}

fn queues() -> Vec<String> {
    vec!["a".to_owned(), "b".to_owned()]
}

fn produce() -> Produce {
    let until = Until::Messages(MESSAGES);
    Produce { producers: PRODUCERS, in_flight: 10, body_bytes: 100, until, rate: None, due: None }
}

fn consume() -> Consume {
    Consume { consumers: 4, credit: 10, expect: Vec::new(), patience_seconds: 0.2 }
}

fn load(produce: Produce) -> LoadSpec {
    LoadSpec { run: 1, queues: queues(), produce: Some(produce), consume: Some(consume()) }
}

async fn make(broker: &InMemory, spec: LoadSpec) -> anyhow::Result<LoadReport> {
    prepare(broker.clone(), spec).await?.make().await?.close().await
}

async fn with(fault: Fault, produce: Produce) -> LoadReport {
    make(&InMemory::new(fault), load(produce)).await.unwrap()
}

#[tokio::test]
async fn every_message_is_accounted_for() {
    let report = with(Fault::Nothing, produce()).await;
    assert_eq!((report.confirmed, report.received, report.failed, report.duplicates), (MESSAGES, MESSAGES, 0, 0));
    assert_eq!(report.confirm_latency.map(|latency| latency.count), Some(MESSAGES));
    assert_eq!(report.end_to_end_latency.map(|latency| latency.count), Some(MESSAGES));
    assert_eq!(report.release_lateness, None);
    report.check().unwrap();
}

#[tokio::test]
async fn a_confirmed_message_that_never_comes_is_lost() {
    let report = with(Fault::LosesTheFirst, produce()).await;
    assert_eq!((report.confirmed, report.lost), (MESSAGES, u64::from(PRODUCERS)));
    assert!(report.check().unwrap_err().to_string().contains("3 confirmed messages were lost"));
}

#[tokio::test]
async fn a_message_that_comes_twice_is_counted_once_and_told() {
    let report = with(Fault::DoublesTheFirst, produce()).await;
    assert_eq!((report.received, report.duplicates), (MESSAGES, u64::from(PRODUCERS)));
    assert_eq!(report.end_to_end_latency.map(|latency| latency.count), Some(MESSAGES));
    report.check().unwrap();
}

#[tokio::test]
async fn a_delayed_message_is_late_or_early() {
    let delayed = Produce { due: Some(Due::After { ms_min: 100, ms_max: 200 }), ..produce() };
    let report = with(Fault::Nothing, delayed.clone()).await;
    assert_eq!((report.early, report.release_lateness.map(|lateness| lateness.count)), (0, Some(MESSAGES)));
    assert_eq!(report.end_to_end_latency, None);
    let report = with(Fault::IgnoresDelays, delayed).await;
    assert_eq!(report.early, MESSAGES);
    assert!(report.check().unwrap_err().to_string().contains("100 came early"));
}

#[tokio::test]
async fn publishes_may_fail_but_not_for_good() {
    let report = with(Fault::FailsTheFirst, produce()).await;
    let failed = u64::from(PRODUCERS);
    assert_eq!((report.failed, report.confirmed, report.lost), (failed, MESSAGES - failed, 0));
    let refused = make(&InMemory::new(Fault::Refuses), load(produce())).await;
    assert_eq!(refused.unwrap_err().to_string(), "Refuses");
}

#[tokio::test]
async fn acknowledgements_fail_or_are_in_doubt() {
    let counts = |report: LoadReport| (report.acknowledgements_failed, report.acknowledgements_in_doubt);
    assert_eq!(counts(with(Fault::ForgetsLeases, produce()).await), (MESSAGES, 0));
    assert_eq!(counts(with(Fault::LosesAnswers, produce()).await), (0, MESSAGES));
}

#[tokio::test]
async fn what_one_load_leaves_the_next_one_finds() {
    let broker = InMemory::new(Fault::Nothing);
    let filled = make(&broker, LoadSpec { consume: None, ..load(produce()) }).await.unwrap();
    assert_eq!((filled.confirmed, filled.received, filled.lost), (MESSAGES, 0, 0));
    let consume = Some(Consume { expect: produce().shares(), ..consume() });
    let drained = make(&broker, LoadSpec { produce: None, consume, ..load(produce()) }).await.unwrap();
    assert_eq!((drained.confirmed, drained.received, drained.lost, drained.foreign), (0, MESSAGES, 0, 0));
}

#[tokio::test]
async fn messages_of_another_load_are_told_apart() {
    let broker = InMemory::new(Fault::Nothing);
    make(&broker, LoadSpec { consume: None, ..load(produce()) }).await.unwrap();
    let report = make(&broker, LoadSpec { run: 2, ..load(produce()) }).await.unwrap();
    assert_eq!((report.received, report.foreign), (MESSAGES, MESSAGES));
}

#[tokio::test]
async fn a_load_that_is_stopped_waits_for_what_is_confirmed() {
    let slowly = Produce { until: Until::Seconds(3600.0), rate: Some(1000.0), ..produce() };
    let prepared = prepare(InMemory::new(Fault::Nothing), load(slowly)).await.unwrap();
    let run = prepared.run();
    let made = tokio::spawn(prepared.make());
    while run.progress().confirmed < 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    run.stop();
    let report = made.await.unwrap().unwrap().close().await.unwrap();
    assert!(report.confirmed >= 10 && report.received == report.confirmed, "{report:?}");
}
