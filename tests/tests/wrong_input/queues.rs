//! Declaring, deleting, listing, describing, counting.

use dwell_proto::v1::{
    Attach, DeclareQueueRequest, DeleteQueueRequest, DescribeQueueRequest, GetQueueCountsRequest, ListQueuesRequest,
    QueueSettings,
};
use dwell_tests::raw::{RawClient, message};
use tonic::Code;

use crate::checks::{Checks, wrong_names};
use crate::{UNKNOWN, UNTOUCHED};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub async fn check(checks: &mut Checks, client: &mut RawClient) {
    names(checks, client).await;
    unknown_queue(checks, client).await;
    settings(checks, client).await;
    conditions(checks, client).await;
    let request = ListQueuesRequest { page_size: 1001, ..Default::default() };
    checks.refused("list, page of 1001", client.queues.list_queues(request).await, Code::InvalidArgument, "page_size");
}

async fn names(checks: &mut Checks, client: &mut RawClient) {
    let code = Code::InvalidArgument;
    for (wrong, queue) in wrong_names() {
        let namespace = String::new;
        let request = DeclareQueueRequest { queue: queue.clone(), ..Default::default() };
        checks.refused(&format!("declare, {wrong}"), client.queues.declare_queue(request).await, code, "queue");
        let request = DeleteQueueRequest { queue: queue.clone(), ..Default::default() };
        checks.refused(&format!("delete, {wrong}"), client.queues.delete_queue(request).await, code, "queue");
        let request = DescribeQueueRequest { queue: queue.clone(), namespace: namespace() };
        checks.refused(&format!("describe, {wrong}"), client.queues.describe_queue(request).await, code, "queue");
        let request = GetQueueCountsRequest { queue, namespace: namespace() };
        checks.refused(&format!("counts, {wrong}"), client.messages.get_queue_counts(request).await, code, "queue");
    }
}

async fn unknown_queue(checks: &mut Checks, client: &mut RawClient) {
    let (code, queue) = (Code::NotFound, UNKNOWN.to_owned());
    let request = DeleteQueueRequest { queue: queue.clone(), ..Default::default() };
    checks.refused("delete, unknown queue", client.queues.delete_queue(request).await, code, UNKNOWN);
    let request = DescribeQueueRequest { queue: queue.clone(), ..Default::default() };
    checks.refused("describe, unknown queue", client.queues.describe_queue(request).await, code, UNKNOWN);
    let request = GetQueueCountsRequest { queue, ..Default::default() };
    checks.refused("counts, unknown queue", client.messages.get_queue_counts(request).await, code, UNKNOWN);
}

async fn settings(checks: &mut Checks, client: &mut RawClient) {
    for lease_timeout_ms in [-1, 99, DAY_MS + 1, i64::MIN, i64::MAX] {
        let result = client.declare("never-made", QueueSettings { lease_timeout_ms, ..Default::default() }).await;
        let what = format!("declare, lease timeout of {lease_timeout_ms} ms");
        checks.refused(&what, result, Code::InvalidArgument, "lease_timeout_ms");
    }
    for delivery_limit in [1_000_001, u32::MAX] {
        let result = client.declare("never-made", QueueSettings { delivery_limit, ..Default::default() }).await;
        let what = format!("declare, delivery limit of {delivery_limit}");
        checks.refused(&what, result, Code::InvalidArgument, "delivery_limit");
    }
    let request = DescribeQueueRequest { queue: "never-made".to_owned(), ..Default::default() };
    let described = client.queues.describe_queue(request).await;
    checks.refused("describe what was refused", described, Code::NotFound, "never-made");
    for settings in [
        QueueSettings { lease_timeout_ms: 12_345, ..Default::default() },
        QueueSettings { delivery_limit: 7, ..Default::default() },
    ] {
        let result = client.declare(UNTOUCHED, settings).await;
        checks.refused("declare, other settings", result, Code::AlreadyExists, UNTOUCHED);
    }
}

async fn conditions(checks: &mut Checks, client: &mut RawClient) {
    let request = DeleteQueueRequest { queue: UNTOUCHED.to_owned(), if_empty: true, ..Default::default() };
    let result = client.queues.delete_queue(request).await;
    checks.refused("delete if empty, and it is not", result, Code::FailedPrecondition, "if_empty");

    client.declare("in-use", QueueSettings::default()).await.unwrap();
    client.publish(vec![message("in-use", "one", Some(3_600_000))]).await.unwrap();
    let attach = Attach { queue: "in-use".to_owned(), credit: 1, ..Default::default() };
    let mut consumer = client.attach(attach).await.unwrap();
    let delete = DeleteQueueRequest { queue: "in-use".to_owned(), if_unused: true, ..Default::default() };
    let result = client.queues.delete_queue(delete.clone()).await;
    checks.refused("delete if unused, and it is used", result, Code::FailedPrecondition, "if_unused");
    let delete = DeleteQueueRequest { if_unused: false, ..delete };
    let deleted = client.queues.delete_queue(delete).await.unwrap().into_inner();
    checks.equal("delete all the same", deleted.messages, 1);
    checks.refused("the stream of a deleted queue", consumer.next().await, Code::NotFound, "in-use");
}
