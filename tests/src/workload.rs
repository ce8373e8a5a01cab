//! Producers and consumers that write down what they see.

mod consumer;
mod producer;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use dwell_client::Client;

pub use consumer::{ConsumerTask, Consumption};
pub use producer::Production;

/// Shorter bodies have no room for the message's number.
pub const BODY_BYTES_MIN: usize = 8;

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A body of `bytes` bytes, at least [`BODY_BYTES_MIN`], that carries the message's number.
pub fn body(id: u64, bytes: usize) -> Bytes {
    let mut body = BytesMut::with_capacity(bytes.max(BODY_BYTES_MIN));
    body.put_u64(id);
    body.resize(bytes.max(BODY_BYTES_MIN), b'.');
    body.freeze()
}

/// The number that a body carries.
pub fn id_of(mut body: &[u8]) -> anyhow::Result<u64> {
    body.try_get_u64().context("a body without a number")
}

/// Waits until the queue holds no message in any state: then every delivery is acknowledged, and nothing can be
/// delivered again.
pub async fn wait_until_drained(client: &Client, queue: &str, timeout: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let counts = client.queue_counts(queue).await?;
        if counts.scheduled == 0 && counts.ready == 0 && counts.leased == 0 {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "queue {queue} still holds {counts:?} after {timeout:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_carries_its_number_and_has_its_size() {
        let body = body(0x0102_0304_0506_0708, 100);
        assert_eq!(body.len(), 100);
        assert_eq!(id_of(&body).unwrap(), 0x0102_0304_0506_0708);
        assert!(id_of(b"short").is_err());
    }
}
