//! Acknowledging, returning and extending by single calls.

use dwell_proto::v1::{AckRequest, ExtendRequest, Lease, NackRequest, QueueSettings, ReceiveRequest};
use dwell_tests::raw::{RawClient, lease_of, message};
use tonic::{Code, Status};

use crate::UNKNOWN;
use crate::checks::{Checks, wrong_names};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 60 * 60 * 1000;
const QUEUE: &str = "settled";

/// The three calls, alike in their queue and leases.
#[derive(Debug, Clone, Copy)]
enum Call {
    Ack,
    Nack { delay_ms: i64 },
    Extend { lease_timeout_ms: i64 },
}

const CALLS: [Call; 3] = [Call::Ack, Call::Nack { delay_ms: 0 }, Call::Extend { lease_timeout_ms: 0 }];

impl Call {
    /// Answers the lost leases.
    async fn make(self, client: &mut RawClient, queue: &str, leases: Vec<Lease>) -> Result<Vec<Lease>, Status> {
        let (namespace, queue) = (String::new(), queue.to_owned());
        let messages = &mut client.messages;
        Ok(match self {
            Call::Ack => messages.ack(AckRequest { namespace, queue, leases }).await?.into_inner().lost,
            Call::Nack { delay_ms } => {
                messages
                    .nack(NackRequest { namespace, queue, leases, delay_ms: Some(delay_ms), reject: false })
                    .await?
                    .into_inner()
                    .lost
            }
            Call::Extend { lease_timeout_ms } => {
                let request = ExtendRequest { namespace, queue, leases, lease_timeout_ms };
                messages.extend(request).await?.into_inner().lost
            }
        })
    }
}

pub async fn check(checks: &mut Checks, client: &mut RawClient) {
    client.declare(QUEUE, QueueSettings::default()).await.unwrap();
    client.publish(vec![message(QUEUE, "one", None)]).await.unwrap();
    let lease = receive_one(client).await;
    wrong_requests(checks, client, lease).await;
    stale_tokens(checks, client, lease).await;
}

async fn receive_one(client: &mut RawClient) -> Lease {
    let request = ReceiveRequest { queue: QUEUE.to_owned(), messages_max: 1, wait_ms: 5_000, ..Default::default() };
    lease_of(&client.messages.receive(request).await.unwrap().into_inner().deliveries[0])
}

async fn wrong_requests(checks: &mut Checks, client: &mut RawClient, lease: Lease) {
    let code = Code::InvalidArgument;
    for call in CALLS {
        for (what, queue) in wrong_names() {
            let result = call.make(client, &queue, vec![lease]).await;
            checks.refused(&format!("{call:?}, queue name: {what}"), result, code, "queue");
        }
        let result = call.make(client, UNKNOWN, vec![lease]).await;
        checks.refused(&format!("{call:?}, unknown queue"), result, Code::NotFound, UNKNOWN);
        let result = call.make(client, QUEUE, vec![]).await;
        checks.refused(&format!("{call:?}, no leases"), result, code, "leases");
        let result = call.make(client, QUEUE, vec![lease; 10_001]).await;
        checks.refused(&format!("{call:?}, 10001 leases"), result, code, "leases");
    }
    for delay_ms in [-1, TEN_YEARS_MS + 1, i64::MIN, i64::MAX] {
        let call = Call::Nack { delay_ms };
        checks.refused(&format!("{call:?}"), call.make(client, QUEUE, vec![lease]).await, code, "delay_ms");
    }
    for lease_timeout_ms in [-1, DAY_MS + 1, i64::MIN, i64::MAX] {
        let call = Call::Extend { lease_timeout_ms };
        checks.refused(&format!("{call:?}"), call.make(client, QUEUE, vec![lease]).await, code, "lease_timeout_ms");
    }
    let counts = client.counts(QUEUE).await.unwrap();
    checks.equal("the lease is untouched", (counts.leased, counts.ready), (1, 0));
}

/// A token is good until its delivery ends, and never again.
async fn stale_tokens(checks: &mut Checks, client: &mut RawClient, first: Lease) {
    let forged = Lease { token: first.token.wrapping_add(1), ..first };
    for call in CALLS {
        let lost = call.make(client, QUEUE, vec![forged]).await.unwrap();
        checks.equal(&format!("{call:?} with a forged token"), lost, vec![forged]);
    }
    checks.equal("returned", CALLS[1].make(client, QUEUE, vec![first]).await.unwrap(), vec![]);
    let second = receive_one(client).await;
    checks.equal("the same message", second.sequence, first.sequence);
    for call in CALLS {
        let lost = call.make(client, QUEUE, vec![first]).await.unwrap();
        checks.equal(&format!("{call:?} with the token of an earlier delivery"), lost, vec![first]);
    }
    let counts = client.counts(QUEUE).await.unwrap();
    checks.equal("the second lease is untouched", (counts.leased, counts.ready), (1, 0));
    checks.equal("acknowledged", Call::Ack.make(client, QUEUE, vec![second]).await.unwrap(), vec![]);
    let lost = Call::Ack.make(client, QUEUE, vec![second]).await.unwrap();
    checks.equal("acknowledged again", lost, vec![second]);
    checks.equal("the queue is empty", client.counts(QUEUE).await.unwrap(), Default::default());
}
