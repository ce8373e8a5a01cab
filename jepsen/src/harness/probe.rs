//! Questions to a node that are no gRPC.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Twice the longest latency that a fault makes, for each packet of the exchange.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The `date` that a node's HTTP server says: its own clock, except that it stands still while the clock is behind
/// where it was.
pub(crate) async fn date_header(address: &str) -> Option<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /healthz HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.take(1 << 20).read_to_end(&mut response).await?;
        std::io::Result::Ok(response)
    };
    let response = tokio::time::timeout(TIMEOUT, exchange).await.ok()?.ok()?;
    let response = String::from_utf8_lossy(&response).into_owned();
    let line =
        response.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("date")));
    line.map(|(_, date)| date.trim().to_owned())
}

/// How long a TCP connection takes.
pub(crate) async fn connect_time(address: &str) -> Option<Duration> {
    let start = tokio::time::Instant::now();
    let connected = tokio::time::timeout(TIMEOUT, TcpStream::connect(address)).await;
    connected.ok()?.ok().map(|_| start.elapsed())
}
