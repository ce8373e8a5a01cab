//! What comes in: many handshakes at a time, so that nobody waits for one who is slow.

use std::io;
use std::time::Duration;

use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::Tls;
use super::files::common_name;
use crate::{Connection, Incoming, Remote, tcp};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one who was refused may take to hear it.
const FAREWELL: Duration = Duration::from_secs(1);
/// Handshakes under way at a time. Who comes then waits in the operating system's queue.
const HANDSHAKES_MAX: usize = 256;
/// The first byte of a TLS handshake (RFC 8446, section 5.1), and of none in HTTP.
const HANDSHAKE: u8 = 0x16;
/// In HTTP/2 (RFC 9113): empty SETTINGS, then GOAWAY with INADEQUATE_SECURITY.
const PLAIN_REFUSAL: [u8; 26] = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc];

/// The connections that were agreed on.
pub(super) fn incoming(listener: TcpListener, tls: Tls) -> Incoming {
    tcp::accepted(listener)
        .map(move |stream| handshake(stream, tls.clone()))
        .buffer_unordered(HANDSHAKES_MAX)
        .filter_map(|agreed| async { agreed.map(Ok) })
        .boxed()
}

async fn handshake(stream: TcpStream, tls: Tls) -> Option<Connection> {
    let peer = stream.peer_addr().ok();
    let outcome = tokio::time::timeout(HANDSHAKE_TIMEOUT, agree(stream, &tls)).await;
    let problem = match outcome {
        Ok(Ok(connection)) => return Some(connection),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no handshake within {HANDSHAKE_TIMEOUT:?}"),
    };
    if let Some(told) = &tls.handshake_failures {
        told();
    }
    tracing::warn!(?peer, problem, "a connection was refused");
    None
}

async fn agree(mut stream: TcpStream, tls: &Tls) -> io::Result<Connection> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
        // Every gRPC client can tell its user what this means.
        stream.write_all(&PLAIN_REFUSAL).await?;
        stream.shutdown().await?;
        // Closed before all of it is read, the connection would be reset, and the answer with it.
        let _ = tokio::time::timeout(FAREWELL, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak TLS"));
    }
    let Some(server) = tls.current().server.clone() else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "there is no certificate to listen with"));
    };
    let address = stream.peer_addr().ok();
    let stream = TlsAcceptor::from(server).accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let remote = Remote { address, certificate_name: certificate.and_then(|own| common_name(own)) };
    Ok(Connection::new(stream).with(remote))
}
