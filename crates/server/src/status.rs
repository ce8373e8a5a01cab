//! From errors to gRPC statuses: the only place.

use dwell_consensus::group::ReadError;
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
            RequestError::Store(_) | RequestError::UnexpectedReply => Code::Internal,
        };
        Status::new(code, error.to_string())
    }
}

fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::QueueNotFound { .. } | Refusal::ExchangeNotFound { .. } | Refusal::ScheduleNotFound { .. } => {
            Code::NotFound
        }
        Refusal::QueueDiffers { .. } | Refusal::ExchangeDiffers { .. } | Refusal::ScheduleDiffers { .. } => {
            Code::AlreadyExists
        }
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
        | Refusal::TooManyLeases { .. } => Code::ResourceExhausted,
        Refusal::QueueNotEmpty { .. }
        | Refusal::QueueInUse { .. }
        | Refusal::SettingFixed { .. }
        | Refusal::SingleActiveConsumer { .. }
        | Refusal::ExchangeInUse { .. }
        | Refusal::Unroutable { .. }
        | Refusal::LeaseLost { .. }
        | Refusal::SequenceGap { .. }
        | Refusal::SequenceTooOld { .. }
        | Refusal::ConsumerOfAnotherQueue { .. } => Code::FailedPrecondition,
    }
}

/// UNAVAILABLE, with a hint when to try again.
pub fn unavailable(message: impl Into<String>) -> Status {
    let mut status = Status::unavailable(message);
    status.metadata_mut().insert(metadata::RETRY_AFTER_MS, tonic::metadata::MetadataValue::from_static(RETRY_AFTER_MS));
    status
}
