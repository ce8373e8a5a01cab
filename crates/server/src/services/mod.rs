//! The client API, answered by the leader.

mod backups;
mod cluster;
mod consume;
mod definitions;
mod deliveries;
mod exchanges;
mod inventory;
mod membership;
mod messages;
mod publish_stream;
mod queues;
mod receive;
mod revise;
mod scaler;
mod schedules;
mod settings;
mod users;

pub use backups::Backups;
pub use scaler::{SCALER_REQUEST_BYTES_MAX, Scaler};

use std::sync::Arc;
use std::time::Duration;

use dwell_consensus::announcements::Announcer;
use dwell_consensus::clock::Clock;
use dwell_consensus::group::{Consistency, Group};
use dwell_consensus::leadership::Tenure;
use dwell_consensus::proposer::ProposeError;
use dwell_machine::{Command, Reply};
use dwell_proto::metadata;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::access::Access;
use crate::hub::Hub;
use crate::metrics::PublishMetrics;
use crate::status::{RequestError, redirected};
use crate::stop::Stopping;
use crate::traces::Traces;
use crate::validate::Limits;
use crate::watermarks::Watermarks;

/// Longest wait for a command to be applied.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// A page of a listing takes no further item once it holds this many bytes.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// What every service works with; cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The namespace's group.
    pub group: Group,
    /// Where effects of applied entries arrive.
    pub hub: Arc<Hub>,
    /// For checking times.
    pub clock: Arc<dyn Clock>,
    /// What requests are checked against.
    pub limits: Limits,
    /// What became of published messages.
    pub published: PublishMetrics,
    /// Whether streams are to go elsewhere.
    pub stopping: Stopping,
    /// What this node says of itself.
    pub announcer: Announcer,
    /// When publishes are refused.
    pub watermarks: Watermarks,
    /// Who may do what.
    pub access: Access,
    /// Where traced messages are told of.
    pub traces: Traces,
}

/// One page of a listing.
struct Page<T> {
    items: Vec<T>,
    has_more: bool,
}

impl<T> Page<T> {
    /// Of one item more than fit on the page, which tells whether another page follows.
    fn of(mut items: Vec<T>, page_size: usize) -> Page<T> {
        let has_more = items.len() > page_size;
        items.truncate(page_size);
        Page { items, has_more }
    }

    /// The same, of items that may be large: the page ends early when it holds [`PAGE_BYTES_MAX`].
    fn of_large(items: Vec<T>, page_size: usize, bytes_of: impl Fn(&T) -> usize) -> Page<T> {
        let mut bytes = 0;
        let fitting = items.iter().take(page_size).take_while(|item| {
            let fits = bytes < PAGE_BYTES_MAX;
            bytes += bytes_of(item);
            fits
        });
        let fitting = fitting.count();
        Page::of(items, fitting)
    }

    /// What the next page comes after.
    fn last(&self) -> Option<&T> {
        self.items.last().filter(|_| self.has_more)
    }
}

impl Services {
    /// Commits a command; a refusal is an error.
    async fn propose(&self, command: Command) -> Result<Reply, RequestError> {
        accepted(self.commit(command).await?)
    }

    /// Commits a command. Gives up as [`Self::in_tenure`] does.
    async fn commit(&self, command: Command) -> Result<Reply, RequestError> {
        self.in_tenure(self.group.proposer.propose(command)).await
    }

    /// Waits for a proposal's reply. Gives up when the node's tenure ends, or after [`COMMIT_TIMEOUT`]: a leader that is
    /// cut off from the others keeps its proposals until it hears of another one. They may be applied after all.
    async fn in_tenure(
        &self,
        proposal: impl Future<Output = Result<Reply, ProposeError>>,
    ) -> Result<Reply, RequestError> {
        let mut tenure = Tenure::current(&self.group.leadership);
        let reply = tokio::select! {
            biased;
            reply = proposal => reply,
            () = tenure.ended() => Err(ProposeError::Unknown("the leadership ended meanwhile".into())),
            () = tokio::time::sleep(COMMIT_TIMEOUT) => Err(ProposeError::Unknown("no majority answered".into())),
        };
        Ok(reply?)
    }

    /// Names, to a client whose stream fails with UNAVAILABLE, the leader that comes after `tenure`, so that it need not
    /// ask around.
    async fn redirected(&self, status: Status, tenure: &Tenure) -> Status {
        if status.code() != Code::Unavailable {
            return status;
        }
        redirected(status, tenure, &self.stopping).await
    }

    /// Commits a command that has nothing to tell but that it was done.
    async fn done(&self, command: Command) -> Result<(), RequestError> {
        match self.propose(command).await? {
            Reply::Done => Ok(()),
            _ => Err(RequestError::UnexpectedReply),
        }
    }
}

/// Turns a refusal into an error.
fn accepted(reply: Reply) -> Result<Reply, RequestError> {
    match reply {
        Reply::Refused(refusal) => Err(refusal.into()),
        reply => Ok(reply),
    }
}

/// How current the caller wants its answer.
pub fn consistency(metadata: &MetadataMap) -> Consistency {
    match metadata.get(metadata::CONSISTENCY) {
        Some(value) if value == metadata::CONSISTENCY_STALE => Consistency::Stale,
        _ => Consistency::Linearizable,
    }
}

/// Times and durations are signed in the API, so that a negative one can be refused by name.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A page token that names what the page before ended with.
fn after(page_token: String) -> Option<String> {
    (!page_token.is_empty()).then_some(page_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_the_next_one_comes_after_if_there_is_more() {
        let page = Page::of(vec![1, 2, 3], 2);
        assert_eq!((&page.items[..], page.last()), (&[1, 2][..], Some(&2)));
        let page = Page::of(vec![1, 2], 2);
        assert_eq!((&page.items[..], page.last()), (&[1, 2][..], None));
    }

    #[test]
    fn a_page_of_large_items_ends_early_and_has_one_at_least() {
        let page = |page_size, bytes| Page::of_large(vec![1, 2, 3], page_size, move |_| bytes);
        assert_eq!((page(2, 1).items, page(2, 1).last()), (vec![1, 2], Some(&2)));
        assert_eq!((page(3, PAGE_BYTES_MAX / 2).items, page(3, PAGE_BYTES_MAX / 2).last()), (vec![1, 2], Some(&2)));
        assert_eq!((page(3, usize::MAX / 4).items, page(3, usize::MAX / 4).last()), (vec![1], Some(&1)));
        assert_eq!((page(3, 1).items, page(3, 1).last()), (vec![1, 2, 3], None));
    }
}
