//! What becomes of the leases of a consumer that dies, and of one that comes back in time.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dwell_proto::v1::{AckRequest, Attach, Lease, QueueSettings};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, hold_in_time, now_us};
use dwell_tests::raw::{RawClient, lease_of, message};

const QUEUE: &str = "work";
const SESSION_TIMEOUT_MS: i64 = 2_000;
/// How much later than the session timeout the messages may reach another consumer.
const TAKEOVER_SLACK_MS: u64 = 1_000;

fn attach(consumer_id: &str, credit: u32, holding: Vec<Lease>) -> Attach {
    Attach {
        queue: QUEUE.to_owned(),
        consumer_id: consumer_id.to_owned(),
        credit,
        session_timeout_ms: SESSION_TIMEOUT_MS,
        holding,
        ..Default::default()
    }
}

/// A cluster with `messages` messages in the queue, and a client of its leader. Leases last a minute, so that it is
/// the session that ends them.
async fn cluster_with(messages: usize) -> (TestCluster, RawClient) {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    let mut client = RawClient::connect(&cluster.node(leader).unwrap().client_address()).await.unwrap();
    client.declare(QUEUE, QueueSettings { lease_timeout_ms: 60_000, ..Default::default() }).await.unwrap();
    let batch = (0..messages).map(|number| message(QUEUE, number.to_string(), None)).collect();
    client.publish(batch).await.unwrap();
    (cluster, client)
}

/// A consumer in a process of its own, and the leases that it holds. It is killed with this.
struct Victim(Child);

impl Victim {
    fn start(address: &str, consumer_id: &str, credit: usize) -> (Victim, Vec<Lease>) {
        let child = Command::new(env!("CARGO_BIN_EXE_holding-consumer"))
            .args([address, QUEUE, consumer_id, &credit.to_string(), &SESSION_TIMEOUT_MS.to_string()])
            .stdout(Stdio::piped())
            .spawn();
        let mut victim = Victim(child.unwrap());
        let mut lines = BufReader::new(victim.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().as_deref(), Some("attached"));
        let leases = lines.take(credit).map(|line| {
            let (sequence, token) = line.split_once(' ').unwrap();
            Lease { sequence: sequence.parse().unwrap(), token: token.parse().unwrap() }
        });
        (victim, leases.collect())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_messages_of_a_killed_consumer_reach_another_after_the_session_timeout_with_the_count_raised() {
    hold_in_time(kill_a_consumer).await;
}

async fn kill_a_consumer() -> Result<(), String> {
    let (cluster, mut client) = cluster_with(20).await;
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    let address = cluster.node(leader).unwrap().client_address();
    let (mut victim, held) = Victim::start(&address, "victim", 20);
    assert_eq!(held.len(), 20);
    let mut heir = client.attach(attach("heir", 100, vec![])).await.unwrap();
    assert!(heir.is_silent(Duration::from_millis(500)).await, "what is leased goes to nobody else");

    let killed_at_us = now_us();
    victim.kill();
    let inherited = heir.take(20).await.unwrap();
    let waited_ms = (now_us() - killed_at_us) / 1000;
    println!("took over 20 messages {waited_ms} ms after the kill; the session timeout is {SESSION_TIMEOUT_MS} ms");
    assert!(waited_ms >= SESSION_TIMEOUT_MS as u64, "not before the session timeout");
    assert!(inherited.iter().all(|delivery| delivery.delivery_count == 1), "{inherited:?}");
    let sequences = |leases: &[Lease]| leases.iter().map(|lease| lease.sequence).collect::<Vec<_>>();
    let leases: Vec<Lease> = inherited.iter().map(lease_of).collect();
    assert_eq!(sequences(&leases), sequences(&held), "the same messages, in their old order");

    let stale = AckRequest { queue: QUEUE.to_owned(), leases: held.clone(), ..Default::default() };
    assert_eq!(client.messages.ack(stale).await.unwrap().into_inner().lost, held, "the old leases are lost");
    assert_eq!(client.counts(QUEUE).await.unwrap().leased, 20, "and settling them changed nothing");
    assert_eq!(heir.ack(leases).await.unwrap().lost, []);
    assert_eq!(client.counts(QUEUE).await.unwrap(), Default::default());
    if waited_ms > SESSION_TIMEOUT_MS as u64 + TAKEOVER_SLACK_MS {
        return Err(format!("the messages went to another consumer {waited_ms} ms after the kill"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_reconnects_in_time_keeps_its_leases() {
    let (cluster, mut client) = cluster_with(10).await;
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    let address = cluster.node(leader).unwrap().client_address();
    let (mut victim, held) = Victim::start(&address, "phoenix", 10);
    let mut bystander = client.attach(attach("bystander", 100, vec![])).await.unwrap();
    victim.kill();

    // Half a session later it is back, and remembers six of its ten messages.
    tokio::time::sleep(Duration::from_millis(SESSION_TIMEOUT_MS as u64 / 2)).await;
    let mut returned = RawClient::connect(&address).await.unwrap();
    let mut phoenix = returned.attach(attach("phoenix", 10, held[..6].to_vec())).await.unwrap();
    assert!(phoenix.attached.resumed, "{:?}", phoenix.attached);
    assert_eq!(phoenix.attached.lost, [], "it keeps what it says it holds");
    let again = phoenix.take(4).await.unwrap();
    let forgotten: Vec<u64> = again.iter().map(|delivery| lease_of(delivery).sequence).collect();
    assert_eq!(forgotten, held[6..].iter().map(|lease| lease.sequence).collect::<Vec<_>>());
    assert!(again.iter().all(|delivery| delivery.delivery_count == 0), "none came back to the queue: {again:?}");

    // Well past the first session's end, nothing has gone to the other consumer, and the old leases still count.
    assert!(bystander.is_silent(Duration::from_millis(2 * SESSION_TIMEOUT_MS as u64)).await);
    assert_eq!(phoenix.ack(held[..6].to_vec()).await.unwrap().lost, []);
    assert_eq!(phoenix.ack(again.iter().map(lease_of).collect()).await.unwrap().lost, []);
    assert_eq!(client.counts(QUEUE).await.unwrap(), Default::default());
    phoenix.close().await.unwrap();
    bystander.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_reconnects_too_late_has_lost_its_leases() {
    let (cluster, mut client) = cluster_with(5).await;
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    let address = cluster.node(leader).unwrap().client_address();
    let (mut victim, held) = Victim::start(&address, "late", 5);
    let mut heir = client.attach(attach("heir", 5, vec![])).await.unwrap();
    victim.kill();
    let inherited = heir.take(5).await.unwrap();

    let mut returned = RawClient::connect(&address).await.unwrap();
    let late = returned.attach(attach("late", 5, held.clone())).await.unwrap();
    assert!(!late.attached.resumed, "{:?}", late.attached);
    assert_eq!(late.attached.lost, held);
    assert_eq!(heir.ack(inherited.iter().map(lease_of).collect()).await.unwrap().lost, []);
    assert_eq!(client.counts(QUEUE).await.unwrap(), Default::default());
}
