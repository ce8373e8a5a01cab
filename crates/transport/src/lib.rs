//! How bytes get from client to node and from node to node: TCP, with TLS or without, or what a simulation puts in its place.

mod tcp;
mod tls;

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Error};
use tower::service_fn;

pub use tcp::Tcp;
pub use tls::{HandshakeFailures, Tls, TlsError, TlsFiles};

/// A way to reach others, and to be reached.
pub trait Transport: Debug + Send + Sync + 'static {
    /// Connects to `authority`, which is host:port.
    fn connect(&self, authority: String) -> BoxFuture<'static, io::Result<Connection>>;

    /// Listens on an address. The connections that come in never end.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Incoming>>;

    /// True if nobody on the way can read or change what is sent.
    fn is_secure(&self) -> bool {
        false
    }
}

/// The connections that others make.
pub type Incoming = BoxStream<'static, io::Result<Connection>>;

/// Both ends of a stream of bytes.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Who is at the other end of a connection that came in, as far as the transport knows. gRPC services find it among the
/// extensions of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remote {
    /// Where it comes from.
    pub address: Option<SocketAddr>,
    /// The common name of the certificate that it showed, and proved to have the key of. Always that of a trusted authority.
    pub certificate_name: Option<String>,
}

/// A connection of any transport.
pub struct Connection {
    stream: Box<dyn Duplex>,
    remote: Remote,
}

impl Connection {
    /// Hides which transport it is of.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Connection {
        Connection { stream: Box::new(stream), remote: Remote::default() }
    }

    /// Says who is at the other end.
    pub fn with(self, remote: Remote) -> Connection {
        Connection { remote, ..self }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        self.remote.clone()
    }
}

/// Connects to an endpoint over a transport. The endpoint's own TCP settings do not count.
pub async fn connect(endpoint: &Endpoint, transport: &Arc<dyn Transport>) -> Result<Channel, Error> {
    let transport = transport.clone();
    endpoint.connect_with_connector(service_fn(move |uri| dial(transport.clone(), uri))).await
}

/// The same, when the channel is first used, and again whenever it broke.
pub fn connect_lazily(endpoint: &Endpoint, transport: &Arc<dyn Transport>) -> Channel {
    let transport = transport.clone();
    endpoint.connect_with_connector_lazy(service_fn(move |uri| dial(transport.clone(), uri)))
}

async fn dial(transport: Arc<dyn Transport>, uri: Uri) -> io::Result<TokioIo<Connection>> {
    let authority = uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    transport.connect(authority).await.map(TokioIo::new)
}
