//! What comes in: many handshakes at a time, so that nobody waits for one who is slow.

use std::io;
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
/// How an HTTP/2 server begins (RFC 9113, section 3.4): SETTINGS without any.
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// How it ends for want of TLS: GOAWAY with INADEQUATE_SECURITY, and no stream served.
const INADEQUATE_SECURITY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc];
/// What an HTTP/2 client begins with.
const PREFACE_BYTES: u64 = 24;
/// What each of its frames begins with (section 4.1): three bytes of length, one of type, and what is of no concern here.
const FRAME_HEADER_BYTES: usize = 9;
/// The type of the frame that a call begins with.
const HEADERS: u8 = 1;

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
        refuse_plain(&mut stream).await?;
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

/// Says it in HTTP/2, so that every gRPC client can tell its user what this means.
async fn refuse_plain(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&EMPTY_SETTINGS).await?;
    // A client that has not called yet sees its connection end, and not why. One that does not call is told all the same.
    let _ = tokio::time::timeout(FAREWELL, called(stream)).await;
    stream.write_all(&INADEQUATE_SECURITY).await?;
    stream.shutdown().await?;
    // Closed before all of it is read, the connection would be reset, and the answer with it.
    let _ = tokio::time::timeout(FAREWELL, tokio::io::copy(stream, &mut tokio::io::sink())).await;
    Ok(())
}

/// Reads up to the first call.
async fn called(stream: &mut TcpStream) -> io::Result<()> {
    let mut skipped = PREFACE_BYTES;
    loop {
        tokio::io::copy(&mut (&mut *stream).take(skipped), &mut tokio::io::sink()).await?;
        let mut header = [0; FRAME_HEADER_BYTES];
        stream.read_exact(&mut header).await?;
        let [high, middle, low, kind, ..] = header;
        if kind == HEADERS {
            return Ok(());
        }
        skipped = u32::from_be_bytes([0, high, middle, low]).into();
    }
}
