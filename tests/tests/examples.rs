//! The examples do what they say, against a real cluster.
#![allow(clippy::unwrap_used, reason = "a test")]

use dwell_examples::{autoscaler, moved_reminder, nightly_job, order_timeout, retry_ladder, traced_reminder};
use dwell_tests::environment::TestCluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_runs_against_any_node_and_again_on_the_same_cluster() {
    let cluster = TestCluster::start(&[]).await.unwrap();
    for address in cluster.client_addresses().iter().take(2) {
        let server = format!("http://{address}");

        let orders = order_timeout::run(&server).await.unwrap();
        assert!(orders.shipped.contains("paid-in-time") && orders.cancelled.contains("paid-too-late"), "{orders:?}");
        assert_eq!(orders.shipped.len() + orders.cancelled.len(), 22, "{orders:?}");

        moved_reminder::run(&server).await.unwrap();

        let poison = retry_ladder::run(&server).await.unwrap();
        assert_eq!(poison.waits.len(), 3);
        assert_eq!(poison.dead.deaths.len(), 1);

        let history = nightly_job::run(&server).await.unwrap();
        assert_eq!((history.len(), history[0].due_ms), (1, 0));

        let traced = traced_reminder::run(&server).await.unwrap();
        assert!(traced.asked.is_valid());
        assert_eq!(traced.linked.span_id(), traced.asked.span_id());

        let workers: Vec<_> =
            autoscaler::run(&server).await.unwrap().into_iter().map(|decision| decision.workers).collect();
        assert_eq!(workers, [1, 12, 1]);
    }
}
