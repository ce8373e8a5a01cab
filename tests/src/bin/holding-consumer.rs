//! A consumer that takes what it gets and settles nothing, until it is killed: the tests' victim.
//!
//! `holding-consumer ADDRESS QUEUE CONSUMER_ID CREDIT SESSION_TIMEOUT_MS` prints `attached`, and then the sequence
//! and token of each delivery, a line each.

use std::io::Write as _;

use anyhow::Context as _;
use dwell_proto::v1::Attach;
use dwell_proto::v1::consume_response::Response;
use dwell_tests::raw::{RawClient, lease_of};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |name: &'static str| arguments.next().with_context(|| format!("{name} is missing"));
    let mut client = RawClient::connect(&argument("ADDRESS")?).await?;
    let attach = Attach {
        queue: argument("QUEUE")?,
        consumer_id: argument("CONSUMER_ID")?,
        credit: argument("CREDIT")?.parse()?,
        session_timeout_ms: argument("SESSION_TIMEOUT_MS")?.parse()?,
        ..Default::default()
    };
    let mut consumer = client.attach(attach).await?;
    println!("attached");
    loop {
        match consumer.next_unbounded().await? {
            Response::Deliveries(deliveries) => {
                for delivery in deliveries.deliveries {
                    let lease = lease_of(&delivery);
                    println!("{} {}", lease.sequence, lease.token);
                }
            }
            other => anyhow::bail!("unexpected {other:?}"),
        }
        std::io::stdout().flush()?;
    }
}
