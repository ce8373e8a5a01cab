//! TCP, of the operating system.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Connection, Incoming, Remote, Transport};

/// Pause after a failure to accept, which may be for want of file descriptors and then lasts.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// TCP without Nagle's algorithm: everything is written in whole frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Tcp {
    /// What comes in on a listener that is bound already.
    pub fn incoming(listener: TcpListener) -> Incoming {
        let connection = |stream: TcpStream| {
            let remote = Remote { address: stream.peer_addr().ok(), certificate_name: None };
            Ok(Connection::new(stream).with(remote))
        };
        accepted(listener).map(connection).boxed()
    }
}

impl Transport for Tcp {
    fn connect(&self, authority: String) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async move { connect(&authority).await.map(Connection::new) })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Incoming>> {
        Box::pin(async move { Ok(Tcp::incoming(TcpListener::bind(address).await?)) })
    }
}

/// Connects to host:port.
pub(crate) async fn connect(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The connections that come in.
pub(crate) fn accepted(listener: TcpListener) -> impl Stream<Item = TcpStream> + Send {
    futures::stream::unfold(listener, |listener| async { Some((accept(&listener).await, listener)) })
}

/// The next connection that stands.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if stream.set_nodelay(true).is_ok() => return stream,
            // Gone before it was looked at.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
