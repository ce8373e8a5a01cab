//! From errors to gRPC statuses: the only place.

use std::time::Duration;

use dwell_consensus::backup::BackupError;
use dwell_consensus::digest::DigestError;
use dwell_consensus::group::ReadError;
use dwell_consensus::leadership::Tenure;
use dwell_consensus::membership::MembershipError;
use dwell_consensus::proposer::ProposeError;
use dwell_consensus::snapshotting::SnapshotError;
use dwell_machine::{Refusal, StoreError};
use dwell_proto::metadata;
use tonic::{Code, Status};

use crate::access::PasswordError;
use crate::stop::Stopping;
use crate::watermarks::Exhausted;

/// How long a client may wait before it asks again while there is no leader. An election takes about that long.
const RETRY_AFTER_MS: &str = "50";
/// The same while memory or disk is short, until consumers have made room.
const RETRY_EXHAUSTED_MS: &str = "500";
/// The same when the next leader is known.
const RETRY_SOON_MS: &str = "1";
/// How long a stream that has lost its leader waits to tell who comes after. Several elections; a client that is told
/// nothing would ask the nodes in turn, and find out no sooner.
const SUCCESSOR_PATIENCE: Duration = Duration::from_millis(200);

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
    /// A watermark is reached.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// There is no snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// This node has too old a state to answer from.
    #[error("this node is catching up: {reason}")]
    CatchingUp {
        /// What it waits for.
        reason: String,
    },
    /// Scalers watch as many queues as a node looks at for them.
    #[error("scalers watch {max} queues of this node already; ask again and again in place of watching")]
    TooManyWatched {
        /// How many that are.
        max: usize,
    },
    /// There is no backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// There is no such message, or not any more.
    #[error("queue `{queue}` holds no message with the sequence {sequence}")]
    MessageNotFound {
        /// Its handle's.
        queue: String,
        /// Its handle's.
        sequence: u64,
    },
    /// A password could not be hashed, or too many are at it.
    #[error(transparent)]
    Password(#[from] PasswordError),
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
            RequestError::Exhausted(reached) => return exhausted(reached),
            RequestError::Propose(ProposeError::NotUnderstood(_)) => Code::FailedPrecondition,
            RequestError::TooManyWatched { .. } => Code::ResourceExhausted,
            RequestError::Password(PasswordError::Busy) => Code::ResourceExhausted,
            RequestError::Password(PasswordError::Hash(_)) => Code::Internal,
            RequestError::Propose(_) | RequestError::Read(_) | RequestError::CatchingUp { .. } => {
                return unavailable(error.to_string());
            }
            RequestError::Membership(reason) => return membership_status(reason),
            RequestError::Digest(reason) => code_of_digest(reason),
            RequestError::Snapshot(reason) => code_of_snapshot(reason),
            RequestError::Backup(reason) => code_of_backup(reason),
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

fn code_of_snapshot(error: &SnapshotError) -> Code {
    match error {
        SnapshotError::Nothing => Code::FailedPrecondition,
        SnapshotError::NotMade(_) => Code::DeadlineExceeded,
        SnapshotError::Stopped(_) => Code::Unavailable,
    }
}

fn code_of_backup(error: &BackupError) -> Code {
    match error {
        BackupError::NotReached { .. } | BackupError::Stalled(_) => Code::DeadlineExceeded,
        BackupError::Snapshot(reason) => code_of_snapshot(reason),
        BackupError::TooMany { .. } => Code::ResourceExhausted,
        BackupError::Unreadable(_) => Code::DataLoss,
        BackupError::Abandoned => Code::Cancelled,
        BackupError::Stopped => Code::Unavailable,
    }
}

/// UNAVAILABLE, with a hint when to try again.
pub fn unavailable(message: impl Into<String>) -> Status {
    to_be_repeated(Status::unavailable(message))
}

/// RESOURCE_EXHAUSTED, with a hint when to try again.
fn exhausted(reached: &Exhausted) -> Status {
    let mut status = Status::resource_exhausted(reached.to_string());
    let after = if reached.is_momentary() { RETRY_AFTER_MS } else { RETRY_EXHAUSTED_MS };
    status.metadata_mut().insert(metadata::RETRY_AFTER_MS, tonic::metadata::MetadataValue::from_static(after));
    status
}

/// Adds to UNAVAILABLE, which ends a stream that began in `tenure`, where to go instead: to the leader that comes after
/// it, which is waited for, but not for long. On a node that stops it is known, or never will be.
pub async fn redirected(mut status: Status, tenure: &Tenure, stopping: &Stopping) -> Status {
    let patience = if stopping.is_draining() { Duration::ZERO } else { SUCCESSOR_PATIENCE };
    let leader = match tenure.successor(patience).await {
        None if !tenure.leadership().is_local => tenure.leadership().leader.clone().map(|(_, address)| address),
        leader => leader,
    };
    if let Some(leader) = leader.and_then(|leader| leader.client.parse().ok()) {
        status.metadata_mut().insert(metadata::LEADER, leader);
        let soon = tonic::metadata::MetadataValue::from_static(RETRY_SOON_MS);
        status.metadata_mut().insert(metadata::RETRY_AFTER_MS, soon);
    }
    status
}

fn to_be_repeated(mut status: Status) -> Status {
    status.metadata_mut().insert(metadata::RETRY_AFTER_MS, tonic::metadata::MetadataValue::from_static(RETRY_AFTER_MS));
    status
}
