//! TLS over TCP: who one is and whom one trusts come from PEM files, which are read again while it runs.

mod accept;
mod files;

use std::fmt::{self, Debug};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};

pub use files::{TlsError, TlsFiles};

use crate::{Connection, Incoming, Transport, tcp};

/// Told of each connection that came in and was not agreed on.
pub type HandshakeFailures = Arc<dyn Fn() + Send + Sync>;

/// TCP with TLS 1.2 or 1.3 over it, HTTP/2 inside. Cheap to clone; the clones share what was read.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    /// The name that servers' certificates must have, instead of the host that is dialled.
    server_name: Option<String>,
    current: Arc<RwLock<Arc<Material>>>,
    handshake_failures: Option<HandshakeFailures>,
}

/// What the files held when they were read.
struct Material {
    /// To see whether they have changed.
    contents: Vec<Vec<u8>>,
    /// None without a certificate: then it only dials.
    server: Option<Arc<ServerConfig>>,
    client: Arc<ClientConfig>,
    expires_at_unix: Option<i64>,
}

impl Tls {
    /// Reads the files. Errors: [`TlsError`] names the file, and what is wrong with it.
    pub fn open(files: TlsFiles) -> Result<Tls, TlsError> {
        let material = files.load()?;
        Ok(Tls {
            files: Arc::new(files),
            server_name: None,
            current: Arc::new(RwLock::new(Arc::new(material))),
            handshake_failures: None,
        })
    }

    /// Servers' certificates must have this name, and not the host that is dialled: for ways that do not lead to the
    /// servers by their own names, as through a tunnel.
    pub fn with_server_name(self, name: impl Into<String>) -> Tls {
        Tls { server_name: Some(name.into()), ..self }
    }

    /// Calls this for each connection that comes in and is not agreed on.
    pub fn on_handshake_failure(self, told: HandshakeFailures) -> Tls {
        Tls { handshake_failures: Some(told), ..self }
    }

    /// Reads the files again. True if they have changed: new connections use what they hold now, and those that stand go
    /// on. After an error everything stays as it was.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let contents = self.files.read()?;
        if contents == self.current.read().contents {
            return Ok(false);
        }
        let material = self.files.build(contents)?;
        *self.current.write() = Arc::new(material);
        Ok(true)
    }

    /// When the own certificate expires, in seconds since 1970. None without one.
    pub fn expires_at_unix(&self) -> Option<i64> {
        self.current().expires_at_unix
    }

    fn current(&self) -> Arc<Material> {
        self.current.read().clone()
    }
}

impl Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").field("files", &self.files).field("server_name", &self.server_name).finish()
    }
}

impl Transport for Tls {
    fn connect(&self, authority: String) -> BoxFuture<'static, io::Result<Connection>> {
        let connector = TlsConnector::from(self.current().client.clone());
        let name = self.server_name.clone().unwrap_or_else(|| host_of(&authority).to_owned());
        Box::pin(async move {
            let name = ServerName::try_from(name).map_err(|error| {
                io::Error::new(ErrorKind::InvalidInput, format!("the host of {authority}: {error}"))
            })?;
            let stream = tcp::connect(&authority).await?;
            connector.connect(name, stream).await.map(Connection::new).map_err(told_plainly)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Incoming>> {
        let tls = self.clone();
        Box::pin(async move { Ok(accept::incoming(TcpListener::bind(address).await?, tls)) })
    }

    fn is_secure(&self) -> bool {
        true
    }
}

/// Without the port, and without the brackets of an IPv6 address.
fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// An end in the middle of a handshake is that of the process behind it, and what is not TLS is most likely a port without
/// it.
fn told_plainly(error: io::Error) -> io::Error {
    use tokio_rustls::rustls::Error;
    if error.kind() == ErrorKind::UnexpectedEof {
        return io::Error::new(ErrorKind::ConnectionReset, error);
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(_)) => io::Error::new(
            ErrorKind::InvalidData,
            "the server does not speak TLS at this port: connect to it without TLS, or configure its certificate",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
