//! Questions to a running node: HTTP for health and metrics, gRPC for its view of the cluster.

use std::time::Duration;

use dwell_proto::v1::cluster_client::ClusterClient;
use dwell_proto::v1::{GetClusterStatusRequest, GetClusterStatusResponse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

/// Local processes answer in a millisecond; one that does not in this time is hung, stopped or overloaded.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Far more than the metrics of a node.
const RESPONSE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Asks a node's HTTP port for `path`; answers the HTTP status code and the body, or says why there is none after a second.
pub async fn http_get(address: &str, path: &str) -> Result<(u16, String), String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        // HTTP/1.0: the answer ends with the connection, and comes in one piece rather than in chunks.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut response).await?;
        std::io::Result::Ok(response)
    };
    let response = tokio::time::timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| format!("no answer from http://{address}{path} within {TIMEOUT:?}"))?
        .map_err(|error| format!("http://{address}{path}: {error}"))?;
    parse_response(&response).ok_or_else(|| format!("http://{address}{path}: not an HTTP response"))
}

fn parse_response(response: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(response);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()?;
    Some((code, body.to_owned()))
}

/// The addressed node's own view of the cluster.
pub(crate) async fn status(address: &str) -> Result<GetClusterStatusResponse, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT);
    let exchange = async {
        let channel = endpoint.connect().await.map_err(|error| format!("{address}: {error}"))?;
        let response = ClusterClient::new(channel).get_cluster_status(GetClusterStatusRequest {}).await;
        response.map(tonic::Response::into_inner).map_err(|status| format!("{address}: {status}"))
    };
    // The endpoint's own timeouts do not cover the HTTP/2 handshake with a process that is stopped.
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no answer from {address} within {TIMEOUT:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_and_body_of_a_response() {
        let response = b"HTTP/1.0 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nno leader";
        assert_eq!(parse_response(response), Some((503, "no leader".to_owned())));
        assert_eq!(parse_response(b"SSH-2.0-OpenSSH"), None);
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_says_nothing_is_an_error_and_no_hang() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert!(http_get(&address, "/readyz").await.is_err());
        assert!(status(&address).await.is_err());
    }
}
