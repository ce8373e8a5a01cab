//! turmoil's network as a transport.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dwell_transport::{Connection, Incoming, Transport};
use futures::StreamExt;
use futures::future::BoxFuture;
use turmoil::net::{TcpListener, TcpStream};

/// Streams over the simulated network. Hosts are known by name.
#[derive(Debug, Clone, Copy)]
pub struct SimulatedNetwork;

impl Transport for SimulatedNetwork {
    fn connect(&self, authority: String) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(async move { TcpStream::connect(authority).await.map(Connection::new) })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Incoming>> {
        Box::pin(async move {
            // turmoil's hosts have one address each, and listen on all there are.
            let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port())).await?;
            let incoming = futures::stream::unfold(listener, |listener| async {
                let accepted = listener.accept().await.map(|(stream, _)| Connection::new(stream));
                Some((accepted, listener))
            });
            Ok(incoming.boxed())
        })
    }
}
