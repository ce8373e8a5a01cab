//! What `deploy/` asks of Prometheus is what real servers export, and its alerts have runbooks and tests. That the rules are
//! rules and do what they say is for `promtool` to find out: see `make deploy-check`.
#![allow(clippy::unwrap_used, reason = "a test")]

mod exported;
mod files;
mod promql;

use std::collections::BTreeSet;
use std::time::Duration;

use dwell_client::{Client, QueueSettings};
use dwell_tests::certificates::{Authority, environment};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster};
use dwell_tests::raw::{RawClient, message};

use exported::Exported;
use files::{Query, alerts, dashboard, datasources, operations, queries, recorded, rules, rules_tests};

const QUEUE: &str = "seen";

/// What the nodes of a cluster export, all together.
///
/// A family of metrics without any series is not in a scrape, not even by its `# TYPE`. Those with labels therefore need
/// something to have happened. That is: a queue, for what is told of queues; and peers, of which a node that is alone has
/// none, so that there are three nodes. All others are there from the start: labels whose values are known beforehand, as
/// the outcomes of publishing and the places of damage, have a series for each of them at zero.
async fn scrape() -> Exported {
    // What is told of TLS is told only with it.
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let files = authority.sign(&[&authority], 2090, directory.path()).unwrap();
    let environment = environment(&files, &["PEER"]);
    let environment: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let cluster = TestCluster::start(&environment).await.unwrap();
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let mut raw = RawClient::connect(&cluster.node(leader).unwrap().client_address()).await.unwrap();
    raw.publish(vec![message(QUEUE, "now", None), message(QUEUE, "later", Some(50))]).await.unwrap();
    for _ in 0..2 {
        for delivery in client.receive(QUEUE, 1, Duration::from_secs(10)).await.unwrap() {
            delivery.ack().await.unwrap();
        }
    }
    let mut exported = Exported::default();
    for node in cluster.nodes() {
        let (code, text) = node.http_get("/metrics").await.unwrap();
        assert_eq!(code, 200, "{text}");
        exported.add(&text);
    }
    exported
}

/// What nodes export has one of these prefixes; nothing else in the documentation has.
fn is_metric(name: &str) -> bool {
    name.starts_with("dwell_") || name.starts_with("process_")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_and_labels_of_rules_dashboard_and_documentation_are_those_that_nodes_export() {
    let mut exported = scrape().await;
    let documented = operations();
    let named: BTreeSet<&str> = promql::names(&documented).filter(|name| is_metric(name)).collect();
    let names: BTreeSet<&str> = exported.names().collect();
    let differing: Vec<&&str> = named.symmetric_difference(&names).collect();
    assert!(differing.is_empty(), "exported and not in docs/operations.md, or there and not exported: {differing:?}");

    exported.add_recorded(&recorded(&rules()));
    let queries: Vec<Query> = queries(&rules(), &dashboard());
    assert!(queries.len() > 100, "only {} queries were found", queries.len());
    let wrong: Vec<String> = queries.iter().filter_map(|query| exported.check(query).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_alert_has_a_runbook_and_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let (documented, tests) = (operations(), rules_tests());
    let anchors: BTreeSet<String> = documented.lines().filter_map(files::anchor).collect();
    for alert in alerts(&rules()) {
        let runbook = &alert.runbook;
        let anchor = runbook.strip_prefix("docs/operations.md#").unwrap_or_default();
        assert!(anchors.contains(anchor), "{}: there is no runbook {runbook:?}", alert.name);
        assert_eq!(anchor, alert.name.to_lowercase(), "the runbook of another alert");
        let fires = format!("{{alertname=\"{}\", alertstate=\"firing\", ", alert.name);
        let holds = |test: &&String| test.contains("cluster=\"holds\"") || test.contains("exp_samples: []");
        assert!(tests.iter().filter(holds).any(|test| test.contains(&fires)), "{} has no test", alert.name);
    }
}

#[test]
fn the_dashboard_asks_the_data_source_that_is_chosen() {
    let asked = datasources(&dashboard());
    assert_eq!(asked, BTreeSet::from(["${datasource}".to_owned(), "-- Grafana --".to_owned()]));
}
