//! How bytes get from client to node and from node to node: TCP, or what a simulation puts in its place.

mod tcp;

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

/// A way to reach others, and to be reached.
pub trait Transport: Debug + Send + Sync + 'static {
    /// Connects to `authority`, which is host:port.
    fn connect(&self, authority: String) -> BoxFuture<'static, io::Result<Connection>>;

    /// Listens on an address. The connections that come in never end.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Incoming>>;
}

/// The connections that others make.
pub type Incoming = BoxStream<'static, io::Result<Connection>>;

/// Both ends of a stream of bytes.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection of any transport.
pub struct Connection(Box<dyn Duplex>);

impl Connection {
    /// Hides which transport it is of.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Connection {
        Connection(Box::new(stream))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
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
