//! From errors to gRPC statuses: the only place.

use dwell_consensus::digest::DigestError;
use dwell_consensus::group::ReadError;
use dwell_consensus::membership::MembershipError;
use dwell_consensus::proposer::ProposeError;
use dwell_machine::{Refusal, StoreError};
use dwell_proto::metadata;
use tonic::{Code, Status};

/// How long a client may wait before it asks again while there is no leader. An election takes about that long.
const RETRY_AFTER_MS: &str = "50";

/// A value of a request that breaks a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct Invalid {
    /// Path of the field in the request.
    pub field: String,
    /// What is wrong, with the limit.
    pub problem: String,
}

/// Anything a request can fail with.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Bad input.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The machine said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The command did not get through.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The read did not get through.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The membership was not changed.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// There is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// There is no such message, or not any more.
    #[error("queue `{queue}` holds no message with the sequence {sequence}")]
    MessageNotFound {
        /// Its handle's.
        queue: String,
        /// Its handle's.
        sequence: u64,
    },
    /// The machine answered something that does not belong to the command.
    #[error("the reply does not fit the command")]
    UnexpectedReply,
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let code = match &error {
            RequestError::Invalid(_) => Code::InvalidArgument,
            RequestError::Refused(refusal) => code_of(refusal),
            RequestError::MessageNotFound { .. } => Code::NotFound,
            RequestError::Propose(_) | RequestError::Read(_) => return unavailable(error.to_string()),
            RequestError::Membership(reason) => return membership_status(reason),
            RequestError::Digest(reason) => code_of_digest(reason),
            RequestError::Store(_) | RequestError::UnexpectedReply => Code::Internal,
        };
        Status::new(code, error.to_string())
    }
}

fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::QueueNotFound { .. }
        | Refusal::ExchangeNotFound { .. }
        | Refusal::ScheduleNotFound { .. }
        | Refusal::UserNotFound { .. } => Code::NotFound,
        Refusal::QueueDiffers { .. }
        | Refusal::ExchangeDiffers { .. }
        | Refusal::ScheduleDiffers { .. }
        | Refusal::UserExists { .. } => Code::AlreadyExists,
        Refusal::SettingUnknown { .. }
        | Refusal::TooManyTargets { .. }
        | Refusal::TooManyCopies { .. }
        | Refusal::NothingToDo
        | Refusal::BadCursor
        | Refusal::BadRecurrence { .. } => Code::InvalidArgument,
        Refusal::QueueFull { .. }
        | Refusal::TooManyQueues { .. }
        | Refusal::TooManyExchanges { .. }
        | Refusal::TooManyBindings { .. }
        | Refusal::TooManySchedules { .. }
        | Refusal::TooManyConsumers { .. }
        | Refusal::TooManyLeases { .. }
        | Refusal::TooManyUsers { .. } => Code::ResourceExhausted,
        Refusal::QueueNotEmpty { .. }
        | Refusal::QueueInUse { .. }
        | Refusal::SettingFixed { .. }
        | Refusal::SingleActiveConsumer { .. }
        | Refusal::ExchangeInUse { .. }
        | Refusal::Unroutable { .. }
        | Refusal::LeaseLost { .. }
        | Refusal::SequenceGap { .. }
        | Refusal::SequenceTooOld { .. }
        | Refusal::ConsumerOfAnotherQueue { .. }
        | Refusal::NotTheFirstUser
        | Refusal::LastAdministrator { .. } => Code::FailedPrecondition,
    }
}

fn membership_status(error: &MembershipError) -> Status {
    let code = match error {
        MembershipError::NotLeader
        | MembershipError::HandedOver { .. }
        | MembershipError::NotTakenOver(_)
        | MembershipError::Unknown(_) => return unavailable(error.to_string()),
        MembershipError::InProgress => return to_be_repeated(Status::aborted(error.to_string())),
        MembershipError::NotMember(_) => Code::NotFound,
        MembershipError::AddressTaken { .. } => Code::AlreadyExists,
        MembershipError::NotCaughtUp { .. }
        | MembershipError::NoQuorum { .. }
        | MembershipError::LastVoter(_)
        | MembershipError::NotVoter(_)
        | MembershipError::NoSuccessor(_)
        | MembershipError::Refused(_) => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

fn code_of_digest(error: &DigestError) -> Code {
    match error {
        DigestError::Passed { .. } | DigestError::TooFarAhead { .. } => Code::FailedPrecondition,
        DigestError::TooManyWaiting => Code::ResourceExhausted,
        DigestError::NotReached { .. } => Code::DeadlineExceeded,
        DigestError::Unreadable(_) => Code::Internal,
        DigestError::Stopped => Code::Unavailable,
    }
}

/// UNAVAILABLE, with a hint when to try again.
pub fn unavailable(message: impl Into<String>) -> Status {
    to_be_repeated(Status::unavailable(message))
}

fn to_be_repeated(mut status: Status) -> Status {
    status.metadata_mut().insert(metadata::RETRY_AFTER_MS, tonic::metadata::MetadataValue::from_static(RETRY_AFTER_MS));
    status
}
