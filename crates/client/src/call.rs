//! One call from beginning to end: which node, how often, until when.

use std::future::Future;
use std::time::Duration;

use dwell_proto::metadata;
use dwell_proto::v1;
use dwell_proto::v1::cluster_client::ClusterClient;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use crate::backoff::Backoff;
use crate::connections::{Channel, Connection, Connections, innermost};
use crate::consumer::SharedStreams;
use crate::directory::Directory;
use crate::error::{Error, is_broken_connection, is_transient};
use crate::options::ClientOptions;

/// What all handles and tasks of one client share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: ClientOptions,
    pub(crate) directory: Directory,
    pub(crate) connections: Connections,
    pub(crate) consumer_streams: SharedStreams,
}

/// How a call is to be repeated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// RESOURCE_EXHAUSTED passes by itself (too much in flight) and is not a lasting limit.
    pub(crate) wait_when_exhausted: bool,
    /// ABORTED passes by itself: another change is under way.
    pub(crate) wait_when_aborted: bool,
    /// It changes nothing, so that a lost answer leaves no doubt.
    pub(crate) only_reads: bool,
    /// An attempt that may have taken effect is not repeated: doing it twice would matter, and cannot be told.
    pub(crate) only_once: bool,
    /// How long the server may rightly stay silent beyond the usual.
    pub(crate) server_wait: Duration,
}

impl Policy {
    /// For calls that only look.
    pub(crate) const READ: Policy = Policy { only_reads: true, ..Policy::WRITE };
    /// For calls that change something.
    pub(crate) const WRITE: Policy = Policy {
        wait_when_exhausted: true,
        wait_when_aborted: false,
        only_reads: false,
        only_once: false,
        server_wait: Duration::ZERO,
    };
    /// For calls that change the cluster itself, one at a time.
    pub(crate) const CHANGE: Policy = Policy { wait_when_aborted: true, ..Policy::WRITE };
    /// For calls that make something of which there may be no more than so many: that is a lasting limit.
    pub(crate) const DECLARE: Policy = Policy { wait_when_exhausted: false, ..Policy::WRITE };
    /// For calls that add something each time.
    pub(crate) const ONCE: Policy = Policy { wait_when_exhausted: false, only_once: true, ..Policy::WRITE };
}

/// The end of a call.
pub(crate) struct Outcome<T> {
    pub(crate) result: Result<T, Error>,
    /// An attempt before the last one may have taken effect.
    pub(crate) repeated: bool,
}

impl<T> Outcome<T> {
    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Outcome<U> {
        Outcome { result: self.result.map(map), repeated: self.repeated }
    }

    /// The result of a deletion, where nothing to delete may mean that an earlier attempt did it.
    pub(crate) fn deleted(self) -> Result<T, Error> {
        match self.result {
            Err(Error::NotFound(reason)) if self.repeated => {
                Err(Error::Unknown(format!("{reason} now; an earlier attempt to delete it may have succeeded")))
            }
            result => result,
        }
    }
}

impl Core {
    /// Repeats `attempt` until it answers something final or the deadline passes.
    pub(crate) async fn call<T, F, A>(&self, policy: Policy, attempt: F) -> Outcome<T>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.options.retry_deadline + policy.server_wait;
        let mut backoff = Backoff::default();
        let mut repeated = false;
        loop {
            let (reason, hint) = match self.attempt(policy, &attempt).await {
                Attempt::Answered(result) => return Outcome { result, repeated },
                Attempt::NotSent(reason) => (reason, None),
                Attempt::Failed(reason, _) if policy.only_once => {
                    return Outcome { result: Err(Error::Unknown(reason)), repeated };
                }
                Attempt::Failed(reason, hint) => {
                    repeated = !policy.only_reads;
                    (reason, hint)
                }
            };
            let delay = backoff.next_delay(hint);
            if Instant::now() + delay >= deadline {
                return Outcome { result: Err(self.gave_up(repeated, reason)), repeated };
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn attempt<T, F, A>(&self, policy: Policy, attempt: &F) -> Attempt<T>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let address = self.directory.choose();
        let connection = match self.connections.get(&address).await {
            Ok(connection) => connection,
            Err(reason) => {
                self.directory.unreachable(&address);
                return Attempt::NotSent(reason);
            }
        };
        let patience = self.options.attempt_timeout + policy.server_wait;
        match tokio::time::timeout(patience, attempt(connection.channel.clone())).await {
            Ok(Ok(response)) => {
                self.directory.observe(response.metadata());
                Attempt::Answered(Ok(response.into_inner()))
            }
            Ok(Err(status)) => {
                let exhausted = policy.wait_when_exhausted && status.code() == Code::ResourceExhausted;
                let aborted = policy.wait_when_aborted && status.code() == Code::Aborted;
                if is_transient(&status) || exhausted || aborted {
                    self.failed(&connection, &status);
                    return Attempt::Failed(describe(&address, &status), retry_after(status.metadata()));
                }
                self.directory.observe(status.metadata());
                Attempt::Answered(Err(Error::from_status(&status)))
            }
            Err(_) => {
                self.directory.unreachable(&address);
                Attempt::Failed(format!("{address}: no answer within {patience:?}"), None)
            }
        }
    }

    /// Learns from a transient failure of `connection`.
    pub(crate) fn failed(&self, connection: &Connection, status: &Status) {
        if is_broken_connection(status) {
            self.connections.forget(connection);
            self.directory.unreachable(&connection.address);
        } else {
            self.directory.not_ready(&connection.address);
        }
        self.directory.observe(status.metadata());
    }

    /// A connection for a stream: to the leader, which is asked for first if it is not known. After an error
    /// nothing was sent.
    pub(crate) async fn connect_for_stream(&self) -> Result<Connection, String> {
        if self.options.follow_leader && self.directory.leader().is_none() {
            let address = self.directory.choose();
            let connection = self.connect(&address).await?;
            match self.status(&connection).await {
                Ok(status) => self.learn(&status),
                Err(status) if is_broken_connection(&status) => {
                    self.failed(&connection, &status);
                    return Err(describe(&address, &status));
                }
                // The node is there: it may serve the stream even so.
                Err(_) => return Ok(connection),
            }
        }
        self.connect(&self.directory.choose()).await
    }

    async fn connect(&self, address: &str) -> Result<Connection, String> {
        let connection = self.connections.get(address).await;
        connection.inspect_err(|_| self.directory.unreachable(address))
    }

    async fn status(&self, connection: &Connection) -> Result<v1::GetClusterStatusResponse, Status> {
        let mut cluster = ClusterClient::new(connection.channel.clone());
        let answer = cluster.get_cluster_status(v1::GetClusterStatusRequest {});
        match tokio::time::timeout(self.options.connect_timeout, answer).await {
            Ok(response) => response.map(Response::into_inner),
            Err(_) => {
                let reason = format!("no status within {:?}", self.options.connect_timeout);
                // Built from an error, as a broken connection is: the node hangs.
                Err(Status::from_error(reason.into()))
            }
        }
    }

    /// Asks the node at `address`, and no other, for its view of the cluster.
    pub(crate) async fn status_of(&self, address: &str) -> Result<v1::GetClusterStatusResponse, Error> {
        let unavailable = |reason| Error::Unavailable { deadline: self.options.connect_timeout, reason };
        let connection = self.connections.get(address).await.map_err(unavailable)?;
        match self.status(&connection).await {
            Ok(status) => Ok(status),
            Err(status) if is_transient(&status) => {
                if is_broken_connection(&status) {
                    self.connections.forget(&connection);
                }
                Err(unavailable(describe(address, &status)))
            }
            Err(status) => Err(Error::from_status(&status)),
        }
    }

    /// Takes over what a node says about the cluster.
    pub(crate) fn learn(&self, status: &v1::GetClusterStatusResponse) {
        self.directory.learn_members(status.members.iter().map(|member| member.client_address.as_str()));
        let leader = status.members.iter().find(|member| Some(member.node_id) == status.leader_id);
        if let Some(leader) = leader {
            self.directory.learn_leader(&leader.client_address);
        }
    }

    /// The error after the deadline.
    pub(crate) fn gave_up(&self, sent: bool, reason: String) -> Error {
        let deadline = self.options.retry_deadline;
        if sent { Error::Timeout { deadline, reason } } else { Error::Unavailable { deadline, reason } }
    }
}

enum Attempt<T> {
    Answered(Result<T, Error>),
    /// Nothing was done.
    NotSent(String),
    /// Something may have been done.
    Failed(String, Option<Duration>),
}

/// What a person should read about a failed attempt.
pub(crate) fn describe(address: &str, status: &Status) -> String {
    if is_broken_connection(status) {
        return format!("{address}: {}", innermost(status));
    }
    format!("{address}: {}: {}", status.code(), status.message())
}

/// The wait that a server asks for.
pub(crate) fn retry_after(response: &MetadataMap) -> Option<Duration> {
    let value = response.get(metadata::RETRY_AFTER_MS)?.to_str().ok()?;
    value.parse().ok().map(Duration::from_millis)
}
