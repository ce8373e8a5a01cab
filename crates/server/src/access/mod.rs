//! Who may do what: users prove who they are, and each request is looked at before its service sees it.
//!
//! - [`Authenticate`] stands at the client port. It finds out whose call it is, and says so in the call's metadata; what
//!   clients say there themselves is taken away. It ends the responses to users that are not what they were.
//! - [`Gated`] stands around each service, at the client port and at the peer port, where nodes pass on the calls of
//!   their clients. It checks every request, those that come later in a stream too, against the table of [`needs`].
//! - [`Directory`] holds the users as this node has applied them, with their patterns compiled.

mod authenticate;
mod directory;
mod first;
mod gate;
mod metrics;
mod needs;
mod password;
mod token;

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use dwell_consensus::group::Group;
use dwell_transport::Remote;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::sync::Notify;
use tonic::Status;

pub use self::authenticate::Authenticate;
pub use self::directory::compile;
pub use self::first::FirstUser;
pub use self::gate::{Caller, Gated};
pub use self::metrics::AccessMetrics;
pub use self::password::{PasswordError, hash};
pub use self::token::{KeysError, TokenSettings, Tokens};

use self::directory::{Directory, User};
use self::password::{Passwords, Proof};

/// How often the file with the keys for tokens is looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Whether users are told apart, and how; cheap to clone.
#[derive(Clone)]
pub struct Access(Option<Arc<Guard>>);

/// What it takes to tell users apart.
struct Guard {
    directory: Directory,
    passwords: Passwords,
    /// `None`: no tokens are taken.
    tokens: Option<Tokens>,
    metrics: AccessMetrics,
    group: Group,
}

/// Who called, as far as it is proved.
struct Identified {
    user: Arc<User>,
    /// A token proves for a while only.
    until: Option<SystemTime>,
}

impl Access {
    /// Everybody may do everything.
    pub fn off() -> Access {
        Access(None)
    }

    /// Users must prove who they are. `changed` is notified when there may be other users than before.
    pub async fn on(tokens: Option<Tokens>, metrics: AccessMetrics, group: Group, changed: Arc<Notify>) -> Access {
        let (directory, passwords) = (Directory::default(), Passwords::new(metrics.verified.clone()));
        let guard = Arc::new(Guard { directory, passwords, tokens, metrics, group });
        guard.directory.refresh(&guard.group).await;
        tokio::spawn(follow(Arc::downgrade(&guard), changed));
        if guard.tokens.is_some() {
            tokio::spawn(reload_keys(Arc::downgrade(&guard)));
        }
        Access(Some(guard))
    }

    /// Takes in at once what has just been applied here, so that who changed it sees it.
    pub async fn refresh(&self) {
        if let Some(guard) = &self.0 {
            guard.directory.refresh(&guard.group).await;
        }
    }
}

/// Takes in the users whenever there may be others.
async fn follow(guard: Weak<Guard>, changed: Arc<Notify>) {
    loop {
        changed.notified().await;
        let Some(guard) = guard.upgrade() else { return };
        guard.directory.refresh(&guard.group).await;
    }
}

/// Looks at the file with the issuer's keys. What is wrong with it is told once.
async fn reload_keys(guard: Weak<Guard>) {
    let mut last_problem = None;
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        let Some(guard) = guard.upgrade() else { return };
        let Some(tokens) = &guard.tokens else { return };
        let problem = match tokens.reload() {
            Ok(false) => None,
            Ok(true) => {
                tracing::info!("new keys for tokens are in use");
                guard.metrics.key_reloads.with_label_values(&["done"]).inc();
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = problem.as_ref().filter(|_| problem != last_problem) {
            tracing::error!(error, "the keys for tokens are not reloaded: the old ones stay in use");
            guard.metrics.key_reloads.with_label_values(&["failed"]).inc();
        }
        last_problem = problem;
    }
}

impl Guard {
    /// The user that a call comes from, if it is proved.
    async fn authenticate(&self, headers: &HeaderMap, remote: &Remote) -> Result<Identified, Status> {
        let outcome = self.identify(headers, remote).await;
        let label = match &outcome {
            Ok(_) => "accepted",
            Err(status) if status.code() == tonic::Code::Unauthenticated => "refused",
            Err(_) => "not_decided",
        };
        self.metrics.authentications.with_label_values(&[label]).inc();
        outcome
    }

    /// What a call says itself counts before the certificate of its connection, which may be that of a proxy.
    async fn identify(&self, headers: &HeaderMap, remote: &Remote) -> Result<Identified, Status> {
        if self.directory.is_empty() {
            return Err(crate::status::unavailable("this node does not know of any users yet"));
        }
        let by_name = |name: &str| self.directory.find(name);
        match (headers.get(AUTHORIZATION).map(Proof::of), &remote.certificate_name) {
            (Some(Some(Proof::Password { user, password })), _) => self.by_password(&user, password).await,
            (Some(Some(Proof::Token(token))), _) => self.by_token(&token),
            (Some(None), _) => Err(unproved("the metadata `authorization` is neither `Basic` nor `Bearer`")),
            (None, Some(name)) => match by_name(name) {
                Some(user) => Ok(Identified { user, until: None }),
                None => Err(unproved(format!("there is no user `{name}`, the common name of the certificate"))),
            },
            (None, None) => Err(unproved(
                "this node takes calls from users only: name one by password, by token, or by a certificate",
            )),
        }
    }

    async fn by_password(&self, name: &str, password: String) -> Result<Identified, Status> {
        let user = self.directory.find(name);
        let verified = self.passwords.verify(user.as_deref(), password).await;
        let user = user.filter(|_| matches!(verified, Ok(true)));
        verified.map_err(crate::status::RequestError::from)?;
        let user = user.ok_or_else(|| unproved("there is no such user, or its password is another one"))?;
        Ok(Identified { user, until: None })
    }

    fn by_token(&self, token: &str) -> Result<Identified, Status> {
        let tokens = self.tokens.as_ref().ok_or_else(|| unproved("this node takes no tokens"))?;
        let proven = tokens.verify(token).map_err(|error| unproved(error.to_string()))?;
        let user = self.directory.find(&proven.user);
        let user = user.ok_or_else(|| unproved(format!("there is no user `{}`, whom the token names", proven.user)))?;
        Ok(Identified { user, until: Some(proven.expires_at) })
    }
}

fn unproved(problem: impl Into<String>) -> Status {
    Status::unauthenticated(problem)
}
