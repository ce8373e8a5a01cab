//! What a caller may choose.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dwell_transport::{Tcp, Tls, TlsFiles, Transport};

use crate::error::Error;
use crate::login::Login;

/// Options of a [`Client`](crate::Client).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// For how long a call, a publish, or a reconnection of a consumer is tried. Default: 30 s.
    pub retry_deadline: Duration,
    /// For how long one connection attempt may take before another node is tried. Default: 500 ms.
    pub connect_timeout: Duration,
    /// For how long one attempt may stay without an answer before another node is tried. Default: 5 s.
    pub attempt_timeout: Duration,
    /// Go to the leader directly. Switch this off behind a load balancer, where the addresses that the nodes
    /// give for each other cannot be reached; the nodes then forward. Default: true.
    pub follow_leader: bool,
    /// How it proves whose the calls are. Default: not at all, which is enough where the nodes tell no users apart, or
    /// take the name in a certificate ([`ClientOptions::tls`]).
    pub login: Option<Login>,
    /// How the nodes are reached. Default: TCP.
    pub transport: Arc<dyn Transport>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            retry_deadline: Duration::from_secs(30),
            connect_timeout: Duration::from_millis(500),
            attempt_timeout: Duration::from_secs(5),
            follow_leader: true,
            login: None,
            transport: Arc::new(Tcp),
        }
    }
}

impl ClientOptions {
    /// See [`ClientOptions::retry_deadline`].
    pub fn retry_deadline(mut self, deadline: Duration) -> ClientOptions {
        self.retry_deadline = deadline;
        self
    }

    /// See [`ClientOptions::connect_timeout`].
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientOptions {
        self.connect_timeout = timeout;
        self
    }

    /// See [`ClientOptions::attempt_timeout`].
    pub fn attempt_timeout(mut self, timeout: Duration) -> ClientOptions {
        self.attempt_timeout = timeout;
        self
    }

    /// See [`ClientOptions::follow_leader`].
    pub fn follow_leader(mut self, follow: bool) -> ClientOptions {
        self.follow_leader = follow;
        self
    }

    /// Reaches the nodes by TLS: trusting the authorities in `files`, or those that the operating system trusts, and with
    /// a certificate of its own if the nodes want one. Errors: [`Error::Tls`] names the file.
    pub fn tls(self, files: TlsFiles) -> Result<ClientOptions, Error> {
        let tls = Tls::open(files).map_err(|error| Error::Tls(error.to_string()))?;
        Ok(self.transport(tls))
    }

    /// See [`ClientOptions::login`].
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> ClientOptions {
        self.login = Some(Login::Password { user: user.into(), password: password.into() });
        self
    }

    /// See [`ClientOptions::login`] and [`Login::TokenFile`].
    pub fn token_file(mut self, file: impl Into<PathBuf>) -> ClientOptions {
        self.login = Some(Login::TokenFile(file.into()));
        self
    }

    /// See [`ClientOptions::transport`].
    pub fn transport(mut self, transport: impl Transport) -> ClientOptions {
        self.transport = Arc::new(transport);
        self
    }
}

/// How recent the answer to a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Everything confirmed before the read is seen. Needs a leader.
    #[default]
    Linearizable,
    /// What the addressed node has applied so far. Works without a leader.
    Stale,
}

/// Options of a [`Publisher`](crate::Publisher).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PublisherOptions {
    /// The producer's id, 1 to 200 bytes. It must be this publisher's alone: two publishers with one id, at
    /// once or one after the other, lose messages. Default: 128 random bits.
    pub producer_id: Option<String>,
}

impl PublisherOptions {
    /// See [`PublisherOptions::producer_id`].
    pub fn producer_id(mut self, producer_id: impl Into<String>) -> PublisherOptions {
        self.producer_id = Some(producer_id.into());
        self
    }
}

/// Options of a [`Consumer`](crate::Consumer).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsumeOptions {
    /// The consumer's id, 1 to 255 bytes, by which another process may resume it. Default: 128 random bits.
    pub consumer_id: Option<String>,
    /// How many messages it may hold unacknowledged, 1 to 10000. Default: 100.
    pub credit: u32,
    /// How long its leases outlive a broken stream, 100 ms to 24 h; zero is the server's default, 30 s.
    /// Default: zero.
    pub session_timeout: Duration,
}

impl Default for ConsumeOptions {
    fn default() -> ConsumeOptions {
        ConsumeOptions { consumer_id: None, credit: 100, session_timeout: Duration::ZERO }
    }
}

impl ConsumeOptions {
    /// See [`ConsumeOptions::consumer_id`].
    pub fn consumer_id(mut self, consumer_id: impl Into<String>) -> ConsumeOptions {
        self.consumer_id = Some(consumer_id.into());
        self
    }

    /// See [`ConsumeOptions::credit`].
    pub fn credit(mut self, credit: u32) -> ConsumeOptions {
        self.credit = credit;
        self
    }

    /// See [`ConsumeOptions::session_timeout`].
    pub fn session_timeout(mut self, timeout: Duration) -> ConsumeOptions {
        self.session_timeout = timeout;
        self
    }
}

/// 128 random bits as 32 hexadecimal digits: an id that no other client will choose.
pub(crate) fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
