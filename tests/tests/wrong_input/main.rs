//! Wrong input of every kind for each call gets the documented status, and disturbs nothing else.
#![allow(clippy::unwrap_used, reason = "a test")]

mod checks;
mod consuming;
mod membership;
mod plans;
mod publishing;
mod queues;
mod settling;

use std::time::Duration;

use dwell_client::Client;
use dwell_proto::v1::QueueSettings;
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, hold_in_time};
use dwell_tests::history::Recorder;
use dwell_tests::raw::{RawClient, message};
use dwell_tests::workload::{Consumption, Production, wait_until_drained};

use checks::Checks;

/// Holds three ready messages and a scheduled one, and is only ever named in requests that are wrong.
const UNTOUCHED: &str = "untouched";
const BYSTANDER: &str = "bystander";
const UNKNOWN: &str = "unknown";
/// How long correct clients may be kept waiting by those that are wrong.
const GAP_MAX: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_input_gets_the_documented_status_and_disturbs_nothing() {
    hold_in_time(send_wrong_input).await;
}

async fn send_wrong_input() -> Result<(), String> {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    let follower = leader % 3 + 1;
    let address = |node| cluster.node(node).unwrap().client_address();
    let mut client = RawClient::connect(&address(leader)).await.unwrap();
    client.declare(UNTOUCHED, QueueSettings::default()).await.unwrap();
    let mut messages: Vec<_> = (0..3).map(|number| message(UNTOUCHED, number.to_string(), None)).collect();
    messages.push(message(UNTOUCHED, "later", Some(3_600_000)));
    client.publish(messages).await.unwrap();
    let counts = client.counts(UNTOUCHED).await.unwrap();
    let term = cluster.node(leader).unwrap().status().await.unwrap().term;
    let processes: Vec<_> = cluster.nodes().iter().map(|node| node.process_id()).collect();
    let load = tokio::spawn(bystander_load(cluster.client_addresses()));

    let mut checks = Checks::default();
    for (target, name) in [(leader, "leader"), (follower, "follower")] {
        checks.target = name;
        let mut client = RawClient::connect(&address(target)).await.unwrap();
        queues::check(&mut checks, &mut client).await;
        publishing::check(&mut checks, &mut client).await;
        consuming::check(&mut checks, &mut client).await;
        settling::check(&mut checks, &mut client).await;
        plans::check(&mut checks, &mut client).await;
        membership::check(&mut checks, &mut client).await;
    }
    checks.report();

    assert_eq!(client.counts(UNTOUCHED).await.unwrap(), counts, "nothing was stored, taken or removed");
    let verdict = load.await.unwrap();
    println!("others meanwhile:\n{verdict}");
    assert_eq!((verdict.violations.as_slice(), verdict.confirmed), (&[][..], verdict.sent));
    assert_eq!(cluster.leader(READY_TIMEOUT).await.unwrap(), leader, "no node lost its place");
    assert_eq!(cluster.node(leader).unwrap().status().await.unwrap().term, term, "there was no election");
    assert_eq!(cluster.nodes().iter().map(|node| node.process_id()).collect::<Vec<_>>(), processes);
    let gap = Duration::from_micros(verdict.longest_confirm_gap_us);
    if gap > GAP_MAX {
        return Err(format!("others were stalled: no confirm came for {gap:?}"));
    }
    Ok(())
}

/// Correct clients that work while the wrong ones do not.
async fn bystander_load(addresses: Vec<String>) -> dwell_tests::history::Verdict {
    let client = Client::connect(addresses).unwrap();
    client.declare_queue(BYSTANDER, dwell_client::QueueSettings::default()).await.unwrap();
    let recorder = Recorder::default();
    let consumption = Consumption { queue: BYSTANDER.to_owned(), number: 0, credit: 100 };
    let consumer = consumption.start(&client, recorder.clone()).await.unwrap();
    let production = Production {
        queue: BYSTANDER.to_owned(),
        first_id: 0,
        messages: 2_000,
        interval: Duration::from_millis(5),
        delay_ms_max: 500,
        body_bytes: 128,
    };
    production.run(client.clone(), recorder.clone()).await.unwrap();
    wait_until_drained(&client, BYSTANDER, Duration::from_secs(40)).await.unwrap();
    consumer.stop().await.unwrap();
    recorder.history().check(&[])
}
