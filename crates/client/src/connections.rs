//! Connections to the nodes: one for each address, opened on first use, shared by all calls and streams.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dwell_transport::Transport;
use parking_lot::Mutex;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

use crate::error::Error;
use crate::login::{Authorization, Login};

/// Largest request or response. The server's limit on a request is 32 MiB unless configured otherwise.
pub(crate) const MESSAGE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// How much of one stream may be under way before its reader has taken it: enough to fill a fast network.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// The same for all streams of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// A node that hangs, or a cut network, breaks no connection: pings find it.
const PING_INTERVAL: Duration = Duration::from_millis(300);
/// A node that answers no ping for this long is given up. A busy machine may well need some hundred ms. The others find
/// that their leader is silent, and have another one, in about the same time.
const PING_TIMEOUT: Duration = Duration::from_millis(700);

/// What calls go through: each says whose it is.
pub(crate) type Channel = InterceptedService<tonic::transport::Channel, Authorization>;

/// An open connection to one node.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) address: String,
    pub(crate) channel: Channel,
    /// Tells it from earlier and later connections to the same address.
    id: u64,
}

impl Connection {
    /// Not only to the same address.
    pub(crate) fn is_same(&self, other: &Connection) -> bool {
        self.id == other.id
    }
}

/// The open connections of a client.
#[derive(Debug)]
pub(crate) struct Connections {
    transport: Arc<dyn Transport>,
    connect_timeout: Duration,
    authorization: Authorization,
    open: Mutex<HashMap<String, Connection>>,
    next_id: AtomicU64,
}

impl Connections {
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        connect_timeout: Duration,
        login: Option<&Login>,
    ) -> Result<Connections, Error> {
        let authorization = Authorization::new(login)?;
        let (open, next_id) = (Mutex::default(), AtomicU64::new(1));
        Ok(Connections { transport, connect_timeout, authorization, open, next_id })
    }

    /// The connection to `address`, made if there is none. After an error nothing was sent.
    pub(crate) async fn get(&self, address: &str) -> Result<Connection, String> {
        if let Some(connection) = self.open.lock().get(address) {
            return Ok(connection.clone());
        }
        let endpoint = endpoint(address, self.connect_timeout).map_err(|error| error.to_string())?;
        let channel = tokio::time::timeout(self.connect_timeout, dwell_transport::connect(&endpoint, &self.transport))
            .await
            .map_err(|_| format!("{address}: no connection within {:?}", self.connect_timeout))?
            .map_err(|error| format!("{address}: {}", innermost(&error)))?;
        let channel = InterceptedService::new(channel, self.authorization.clone());
        let connection =
            Connection { address: address.to_owned(), channel, id: self.next_id.fetch_add(1, Ordering::Relaxed) };
        self.open.lock().insert(address.to_owned(), connection.clone());
        Ok(connection)
    }

    /// The connection is of no use any more; a later one to the same address is kept.
    pub(crate) fn forget(&self, connection: &Connection) {
        let mut open = self.open.lock();
        if open.get(&connection.address).is_some_and(|current| current.id == connection.id) {
            open.remove(&connection.address);
        }
    }
}

/// How to reach `address`, which is `host:port`, with or without `http://` or `https://` before it. Whether it is by TLS
/// the transport says.
pub(crate) fn endpoint(address: &str, connect_timeout: Duration) -> Result<Endpoint, Error> {
    let refuse = |reason: String| Error::Address { address: address.to_owned(), reason };
    let authority = ["http://", "https://"].iter().find_map(|scheme| address.strip_prefix(scheme)).unwrap_or(address);
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| refuse(innermost(&error)))?;
    if endpoint.uri().port().is_none() {
        return Err(refuse("the port is missing".into()));
    }
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// The cause at the bottom of an error, which is the one that tells a person something.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_is_refused() {
        let refused = |address: &str| endpoint(address, Duration::from_secs(1)).is_err();
        assert!(refused("localhost"));
        assert!(refused("not an address"));
        assert!(!refused("localhost:7600"));
        assert!(!refused("http://[::1]:7600"));
        assert!(!refused("https://dwell.example:7600"));
    }
}
