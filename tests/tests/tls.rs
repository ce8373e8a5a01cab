//! TLS between clients, nodes and their peers, whose certificates are exchanged while work goes on.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use dwell_client::{Client, ClientOptions, ConsumeOptions, PublishMessage, QueueSettings, TlsFiles};
use dwell_tests::certificates::{Authority, environment};
use dwell_tests::environment::TestCluster;
use dwell_transport::{Tls, Transport};
use tokio::io::AsyncReadExt as _;

/// Nothing that works takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

async fn start(files: &TlsFiles) -> TestCluster {
    let environment = environment(files, &["CLIENT", "PEER"]);
    let environment: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    TestCluster::start(&environment).await.unwrap()
}

fn client(cluster: &TestCluster, files: &TlsFiles) -> Client {
    let options = ClientOptions::default().retry_deadline(Duration::from_secs(20)).tls(files.clone()).unwrap();
    Client::connect_with(cluster.client_addresses(), options).unwrap()
}

async fn metric(cluster: &TestCluster, node: u64, line: &str) -> Option<f64> {
    let (_, text) = cluster.node(node).unwrap().http_get("/metrics").await.unwrap();
    text.lines().find_map(|found| found.strip_prefix(line)).and_then(|value| value.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_exchanged_under_load_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new().unwrap(), Authority::new().unwrap());
    let files = old.sign(&[&old], 2090, directory.path()).unwrap();
    let cluster = start(&files).await;
    let client_files = old.sign(&[&old, &new], 2090, &directory.path().join("client")).unwrap();
    let working = client(&cluster, &client_files);
    working.declare_queue("q", QueueSettings::default()).await.unwrap();

    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let publisher = working.publisher(Default::default());
    let publishing = tokio::spawn(async move {
        let (mut confirmed, mut gap, mut last) = (0_u64, Duration::ZERO, Instant::now());
        while !*stopped.borrow_and_update() {
            publisher.publish_one(PublishMessage::new("q", confirmed.to_string())).await.unwrap();
            confirmed += 1;
            gap = gap.max(last.elapsed());
            last = Instant::now();
        }
        (confirmed, gap)
    });
    let mut consumer = working.consume("q", ConsumeOptions::default()).await.unwrap();

    // First everybody trusts the new authority, then its certificates are taken.
    old.sign(&[&old, &new], 2091, directory.path()).unwrap();
    taken(&cluster, 2091).await;
    new.sign(&[&old, &new], 2092, directory.path()).unwrap();
    taken(&cluster, 2092).await;
    let only_new = new.sign(&[&new], 2092, &directory.path().join("later")).unwrap();
    assert_eq!(client(&cluster, &only_new).list_queues("").await.unwrap().len(), 1, "it trusts the new authority only");

    // Connections between nodes are made anew, with the new certificates.
    cluster.node(2).unwrap().kill().await.unwrap();
    cluster.node(2).unwrap().start().unwrap();
    cluster.wait_ready(DEADLINE).await.unwrap();
    stop.send(true).unwrap();
    let (confirmed, gap) = publishing.await.unwrap();
    let mut received = std::collections::BTreeSet::new();
    while (received.len() as u64) < confirmed {
        let delivery =
            tokio::time::timeout(DEADLINE, consumer.next()).await.expect("nothing is lost").unwrap().unwrap();
        received.insert(String::from_utf8(delivery.message.body.to_vec()).unwrap());
        delivery.ack().await.unwrap();
    }
    println!("{confirmed} confirmed and received, longest confirm gap {gap:?}");
    assert!(confirmed > 100);
}

/// Waits until every node shows a certificate for both ports that ends with this year.
async fn taken(cluster: &TestCluster, last_year: i32) {
    const YEAR_SECONDS: f64 = 31_557_600.0;
    let deadline = Instant::now() + DEADLINE;
    for node in 1..=3 {
        for port in ["clients", "peers"] {
            let line = format!("dwell_tls_certificate_expiry_timestamp_seconds{{port=\"{port}\"}}");
            while 1970 + (metric(cluster, node, &line).await.unwrap() / YEAR_SECONDS) as i32 != last_year {
                assert!(Instant::now() < deadline, "node {node} has not taken the files for {port}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_certificate_of_the_authority_is_refused_and_told_why() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, others) = (Authority::new().unwrap(), Authority::new().unwrap());
    let files = ours.sign(&[&ours], 2090, directory.path()).unwrap();
    let cluster = start(&files).await;
    assert!(client(&cluster, &files).list_queues("").await.unwrap().is_empty());

    let options = || ClientOptions::default().retry_deadline(Duration::from_secs(2));
    let plain = Client::connect_with(cluster.client_addresses(), options()).unwrap();
    let error = plain.list_queues("").await.unwrap_err().to_string();
    println!("without TLS: {error}");
    assert!(error.contains("security"), "{error}");

    let stranger = others.sign(&[&ours], 2090, &directory.path().join("stranger")).unwrap();
    let client = Client::connect_with(cluster.client_addresses(), options().tls(stranger.clone()).unwrap()).unwrap();
    let error = client.list_queues("").await.unwrap_err().to_string();
    println!("with a certificate of another authority: {error}");

    let peer_address = cluster.node(1).unwrap().peer_address();
    let mut byte = [0];
    let mut peer = Tls::open(files).unwrap().connect(peer_address.clone()).await.unwrap();
    assert_eq!(peer.read(&mut byte).await.unwrap(), 1, "a server speaks first, in HTTP/2");
    let refused = async {
        let mut stranger = Tls::open(stranger).unwrap().connect(peer_address).await?;
        match stranger.read(&mut byte).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    };
    let refused: std::io::Result<()> = refused.await;
    println!("as a peer: {}", refused.unwrap_err());
    let failures = metric(&cluster, 1, "dwell_tls_handshake_failures_total{port=\"peers\"}").await.unwrap();
    assert!(failures >= 1.0);
}
