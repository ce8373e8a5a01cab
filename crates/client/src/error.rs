//! What can go wrong, and how the gRPC statuses map to it: the only place that does.

use std::collections::BTreeSet;
use std::time::Duration;

use dwell_proto::v1::Failure;
use tonic::{Code, Status};

use crate::published::PublishOutcome;

/// Why a call failed. The message of a refusal is the server's, and names the field and its limit.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The queue, exchange, schedule or message does not exist.
    #[error("{0}")]
    NotFound(String),
    /// A value breaks a limit.
    #[error("{0}")]
    InvalidArgument(String),
    /// The queue, exchange or schedule exists with other settings.
    #[error("{0}")]
    AlreadyExists(String),
    /// A condition of the request does not hold.
    #[error("{0}")]
    FailedPrecondition(String),
    /// A limit of the cluster is reached. Where waiting can help, the client has waited already.
    #[error("{0}")]
    ResourceExhausted(String),
    /// The cluster takes calls from users only, and the login is missing or wrong.
    #[error("{0}")]
    Unauthenticated(String),
    /// The user may not do this.
    #[error("{0}")]
    PermissionDenied(String),
    /// The message reached no queue, and is not stored. If it was mandatory, nothing of its request is.
    #[error("{0}")]
    Unroutable(String),
    /// A queue that the message goes to is full: it is stored in none.
    #[error("queue `{queue}` is full and rejects the message")]
    Rejected {
        /// The queue that is full.
        queue: String,
    },
    /// Some messages of a batch are stored and some are not.
    #[error("{} of {} messages are not stored: {}", not_stored(.outcomes).count(), .outcomes.len(), reasons(.outcomes))]
    NotAllStored {
        /// What became of each message, in order.
        outcomes: Vec<PublishOutcome>,
    },
    /// The lease is not held any more: it timed out, or the message was settled before. Nothing was done.
    #[error("the lease is lost: it timed out, or the message was settled before")]
    LeaseLost,
    /// Another stream attached with this consumer's id and took it over.
    #[error("another consumer attached with the same consumer id")]
    Displaced,
    /// No node could serve the call within the deadline. Nothing was done.
    #[error("no node could serve the call within {deadline:?}: {reason}")]
    Unavailable {
        /// The retry deadline that passed.
        deadline: Duration,
        /// What the last attempt failed with.
        reason: String,
    },
    /// No answer came within the deadline. The request was sent: it may have taken effect, or may still.
    #[error("no answer within {deadline:?}, and the request may have taken effect: {reason}")]
    Timeout {
        /// The retry deadline that passed.
        deadline: Duration,
        /// What the last attempt failed with.
        reason: String,
    },
    /// The request was repeated because its first answer was lost, and the answer to the repetition fits
    /// both: that the first one took effect, and that something else did before.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// The publisher or consumer was closed, or its runtime is gone, before an answer came.
    #[error("closed before an answer came")]
    Closed,
    /// An address is not `host:port`.
    #[error("`{address}` is not an address of the form host:port: {reason}")]
    Address {
        /// The address as it was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate, a key, or an authority is of no use, or is missing.
    #[error("TLS: {0}")]
    Tls(String),
    /// Any other answer of the server.
    #[error("{code}: {message}")]
    Server {
        /// The gRPC status code.
        code: Code,
        /// The server's message.
        message: String,
    },
}

impl Error {
    /// The error for a status that ends a call.
    pub(crate) fn from_status(status: &Status) -> Error {
        Error::from_code(status.code(), status.message().to_owned())
    }

    /// The error for a refusal inside a stream that goes on.
    pub(crate) fn from_failure(failure: Failure) -> Error {
        Error::from_code(Code::from_i32(failure.code), failure.message)
    }

    fn from_code(code: Code, message: String) -> Error {
        match code {
            Code::NotFound => Error::NotFound(message),
            Code::InvalidArgument => Error::InvalidArgument(message),
            Code::AlreadyExists => Error::AlreadyExists(message),
            Code::FailedPrecondition => Error::FailedPrecondition(message),
            Code::ResourceExhausted => Error::ResourceExhausted(message),
            Code::Unauthenticated => Error::Unauthenticated(message),
            Code::PermissionDenied => Error::PermissionDenied(message),
            Code::Aborted => Error::Displaced,
            code => Error::Server { code, message },
        }
    }

    /// True if the request may have taken effect although no confirmation came.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Error::Timeout { .. } | Error::Unknown(_) | Error::Closed)
    }
}

fn not_stored(outcomes: &[PublishOutcome]) -> impl Iterator<Item = &PublishOutcome> {
    outcomes.iter().filter(|outcome| !outcome.is_stored())
}

/// Why messages are not stored, each reason once.
fn reasons(outcomes: &[PublishOutcome]) -> String {
    let errors = not_stored(outcomes).filter_map(|outcome| outcome.clone().stored().err());
    errors.map(|error| error.to_string()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("; ")
}

/// True if a code by itself speaks of the node or the way to it, not of the request.
pub(crate) fn is_transient_code(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown)
}

/// True if the connection broke: a status that came over the wire has no source.
pub(crate) fn is_broken_connection(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// True if the same request may succeed a moment later or on another node.
pub(crate) fn is_transient(status: &Status) -> bool {
    is_transient_code(status.code()) || is_broken_connection(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_status_has_its_own_error() {
        let map = |code: Code| Error::from_status(&Status::new(code, "reason"));
        assert!(matches!(map(Code::NotFound), Error::NotFound(message) if message == "reason"));
        assert!(matches!(map(Code::InvalidArgument), Error::InvalidArgument(_)));
        assert!(matches!(map(Code::AlreadyExists), Error::AlreadyExists(_)));
        assert!(matches!(map(Code::FailedPrecondition), Error::FailedPrecondition(_)));
        assert!(matches!(map(Code::ResourceExhausted), Error::ResourceExhausted(_)));
        assert!(matches!(map(Code::Unauthenticated), Error::Unauthenticated(_)));
        assert!(matches!(map(Code::PermissionDenied), Error::PermissionDenied(_)));
        assert!(matches!(map(Code::Aborted), Error::Displaced));
        assert!(matches!(map(Code::Internal), Error::Server { code: Code::Internal, .. }));
    }

    #[test]
    fn a_batch_that_is_not_stored_as_a_whole_names_each_reason_once() {
        let rejected = PublishOutcome::Rejected { queue: "full".into() };
        let outcomes = vec![rejected.clone(), PublishOutcome::Unroutable, rejected];
        let text = Error::NotAllStored { outcomes }.to_string();
        assert_eq!(
            text,
            "3 of 3 messages are not stored: no queue wanted the message; queue `full` is full and rejects the message"
        );
    }

    #[test]
    fn a_refusal_is_not_transient_and_an_absent_leader_is() {
        assert!(is_transient(&Status::unavailable("no leader")));
        assert!(!is_transient(&Status::not_found("queue")));
        assert!(is_transient(&Status::from_error("connection reset".into())));
    }
}
