//! A cluster grows from three nodes to five and shrinks to three again, under load, while leaders die and leave.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::time::Duration;

use dwell_client::{Client, QueueSettings};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster};
use dwell_tests::history::Recorder;
use dwell_tests::workload::{Consumption, Production, wait_until_drained};
use tokio::time::Instant;

const QUEUE: &str = "members";
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
const MESSAGES: u64 = 3_000;

async fn add(cluster: &TestCluster, client: &Client, id: u64) -> bool {
    let node = cluster.node(id).unwrap();
    client.add_member(id, node.peer_address(), node.client_address(), CATCH_UP_TIMEOUT).await.unwrap()
}

/// Starts a node that waits, and makes it a member.
async fn grow(cluster: &mut TestCluster, client: &Client) -> u64 {
    let id = cluster.add_node().unwrap();
    cluster.node(id).unwrap().start().unwrap();
    assert!(add(cluster, client, id).await);
    println!("node {id} is a member");
    id
}

/// Waits until all members answer, and see these voters, no learners, and one leader, whom it answers.
async fn settled(client: &Client, voters: &[u64]) -> u64 {
    let deadline = Instant::now() + READY_TIMEOUT;
    let wanted: BTreeSet<u64> = voters.iter().copied().collect();
    loop {
        let mut views = Vec::new();
        if let Ok(status) = client.leader_status().await {
            for member in &status.members {
                views.push(client.cluster_status(&member.client_address).await.ok());
            }
        }
        let leaders: BTreeSet<Option<u64>> =
            views.iter().map(|view| view.as_ref().and_then(|view| view.leader_id)).collect();
        let are_settled = views.iter().flatten().all(|view| {
            view.members.iter().all(|member| member.voter)
                && view.members.iter().map(|member| member.node_id).collect::<BTreeSet<u64>>() == wanted
        });
        if let (1, Some(Some(leader)), true) =
            (leaders.len(), leaders.first(), are_settled && views.len() == voters.len())
        {
            return *leader;
        }
        assert!(Instant::now() < deadline, "the voters should be {wanted:?}: {views:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn assert_same_everywhere(client: &Client, voters: usize) {
    let digest = client.digest().await.unwrap();
    assert_eq!(digest.nodes.len(), voters);
    assert!(digest.is_equal(), "{digest:?}");
    println!("{voters} nodes hold the same as of index {}", digest.index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_and_shrinks_under_load_and_loses_nothing() {
    let mut cluster = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let recorder = Recorder::default();
    let consumption = Consumption { queue: QUEUE.to_owned(), number: 0, credit: 100 };
    let consumer = consumption.start(&client, recorder.clone()).await.unwrap();
    let production = Production {
        queue: QUEUE.to_owned(),
        first_id: 0,
        messages: MESSAGES,
        interval: Duration::from_millis(8),
        delay_ms_max: 3_000,
        body_bytes: 256,
    };
    let load = tokio::spawn(production.run(client.clone(), recorder.clone()));

    let fourth = grow(&mut cluster, &client).await;
    assert!(!add(&cluster, &client, fourth).await, "it is a member already");
    let leader = settled(&client, &[1, 2, 3, 4]).await;
    // The leader dies while the fifth node is added.
    let fifth = cluster.add_node().unwrap();
    cluster.node(fifth).unwrap().start().unwrap();
    let killed_at_us = recorder.killed();
    let (added, killed) = tokio::join!(add(&cluster, &client, fifth), async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        cluster.node(leader).unwrap().kill().await
    });
    killed.unwrap();
    println!("node {fifth} is a member, said by the successor or the dead leader {leader}: {added}");
    cluster.node(leader).unwrap().start().unwrap();
    settled(&client, &[1, 2, 3, 4, 5]).await;
    assert_same_everywhere(&client, 5).await;

    // The leader leaves, and goes on running.
    let leaving = settled(&client, &[1, 2, 3, 4, 5]).await;
    // Deliveries may be repeated, as after a kill.
    recorder.killed();
    assert!(client.remove_member(leaving).await.unwrap());
    assert!(!client.remove_member(leaving).await.unwrap(), "it is no member any more");
    let mut voters: Vec<u64> = (1..=5).filter(|id| *id != leaving).collect();
    let leader = settled(&client, &voters).await;
    assert_ne!(leader, leaving);
    println!("node {leaving} led and left, node {leader} leads");

    // A dead follower is removed, and comes back.
    let dead = *voters.iter().find(|id| **id != leader).unwrap();
    recorder.killed();
    cluster.node(dead).unwrap().kill().await.unwrap();
    assert!(client.remove_member(dead).await.unwrap());
    voters.retain(|id| *id != dead);
    let term = client.leader_status().await.unwrap().term;
    cluster.node(dead).unwrap().start().unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let address = cluster.node(voters[0]).unwrap().client_address();
    let status = client.cluster_status(&address).await.unwrap();
    assert_eq!((status.term, status.leader_id), (term, Some(leader)), "who was removed disturbs nobody");

    load.await.unwrap().unwrap();
    let drained = wait_until_drained(&client, QUEUE, Duration::from_secs(60)).await;
    let verdict = recorder.history().check(std::slice::from_ref(&(killed_at_us..u64::MAX)));
    println!("{verdict}");
    drained.unwrap();
    consumer.stop().await.unwrap();
    assert_eq!(verdict.violations, [], "lost, early or unexplained repeated messages");
    assert_eq!(verdict.confirmed as u64, MESSAGES);
    assert_same_everywhere(&client, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_and_a_change_that_cannot_be_is_refused() {
    let mut cluster = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    let leader = settled(&client, &[1, 2, 3]).await;
    let other = leader % 3 + 1;
    assert_eq!(client.transfer_leader(Some(other)).await.unwrap(), other);
    assert_eq!(settled(&client, &[1, 2, 3]).await, other);
    let next = client.transfer_leader(None).await.unwrap();
    assert_ne!(next, other);
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();

    // It does not run: it does not catch up, can be removed, or started and added.
    let absent = cluster.add_node().unwrap();
    let node = cluster.node(absent).unwrap();
    let added = client.add_member(absent, node.peer_address(), node.client_address(), Duration::from_millis(300)).await;
    assert!(added.unwrap_err().to_string().contains("has not caught up"));
    let error = client.transfer_leader(Some(absent)).await.unwrap_err();
    assert!(error.to_string().contains("has no vote"), "{error}");
    node.start().unwrap();
    assert!(add(&cluster, &client, absent).await, "to repeat the call completes it");
    settled(&client, &[1, 2, 3, 4]).await;
    assert_same_everywhere(&client, 4).await;

    // Two of four are dead: nothing can be changed, and nothing is begun.
    let leader = settled(&client, &[1, 2, 3, 4]).await;
    let dead: Vec<u64> = (1..=4).filter(|id| *id != leader).take(2).collect();
    cluster.node(dead[0]).unwrap().kill().await.unwrap();
    let digest = client.digest().await.unwrap();
    assert!(!digest.is_equal());
    assert_eq!(digest.nodes.iter().filter(|node| node.result.is_err()).count(), 1);
    assert!(client.remove_member(dead[0]).await.unwrap());
    cluster.node(dead[1]).unwrap().kill().await.unwrap();
    let last = (1..=4).find(|id| *id != leader && !dead.contains(id)).unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let error = client.remove_member(last).await.unwrap_err();
    assert!(error.to_string().contains("no majority"), "{error}");
    assert!(client.remove_member(dead[1]).await.unwrap());
    let leader = settled(&client, &[leader, last]).await;
    assert!(client.remove_member(leader).await.unwrap(), "the leader of two leaves");
    let alone = if leader == last { (1..=4).find(|id| *id != leader && !dead.contains(id)).unwrap() } else { last };
    assert_eq!(settled(&client, &[alone]).await, alone);
    let error = client.remove_member(alone).await.unwrap_err();
    assert!(error.to_string().contains("last voter"), "{error}");
    assert_same_everywhere(&client, 1).await;
}
