//! The follower's side of replication.

use std::sync::Arc;

use dwell_proto::peer as wire;
use dwell_proto::peer::append_request::Part;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use tonic::{Status, Streaming};

use super::convert::{append_entries_from_wire, append_result_to_wire};
use super::groups::PeerGroup;
use super::service::stopped;
use crate::types::{NodeId, TypeConfig};

/// Hands the leader's requests to Raft, and returns Raft's answers, or why the stream is refused.
pub(super) fn append(
    group: Arc<PeerGroup>,
    from: NodeId,
    messages: Streaming<wire::AppendRequest>,
) -> impl Stream<Item = Result<wire::AppendResponse, Status>> + Send + 'static {
    let refusal = Arc::new(Mutex::new(None));
    let raft = group.raft.clone();
    let incoming = Incoming { watch: BreakWatch { group, from, ended: false }, messages, refusal: refusal.clone() };
    let requests = stream::unfold(incoming, next_request);
    // Boxed, because its type names a borrow of `raft`, although it holds none.
    let answers: BoxStream<'static, _> = raft.stream_append(requests).boxed();
    let answers = answers.map(|answer| answer.map(append_result_to_wire).map_err(stopped));
    // Raft's answers end after the requests did, so a refusal is there by then.
    answers.chain(stream::once(async move { refusal.lock().take() }).filter_map(|refusal| async { refusal.map(Err) }))
}

struct Incoming {
    watch: BreakWatch,
    messages: Streaming<wire::AppendRequest>,
    refusal: Arc<Mutex<Option<Status>>>,
}

async fn next_request(mut incoming: Incoming) -> Option<(AppendEntriesRequest<TypeConfig>, Incoming)> {
    // An error is a broken connection; a silent end is a stream that was dropped. Nobody is there to be answered,
    // and the watch looks after the rest.
    let message = incoming.messages.message().await.ok()??;
    incoming.watch.group.succession.heard();
    match request(message, incoming.watch.group.node) {
        Ok(Some(request)) => Some((request, incoming)),
        Ok(None) => {
            incoming.watch.ended = true;
            None
        }
        Err(refusal) => {
            tracing::warn!(from = incoming.watch.from, %refusal, "append request refused");
            incoming.watch.ended = true;
            *incoming.refusal.lock() = Some(refusal);
            None
        }
    }
}

/// None: the stream's orderly end.
fn request(message: wire::AppendRequest, node: NodeId) -> Result<Option<AppendEntriesRequest<TypeConfig>>, Status> {
    match message.part {
        Some(Part::Entries(entries)) => Ok(Some(append_entries_from_wire(entries, node)?)),
        Some(Part::End(_)) => Ok(None),
        Some(Part::Begin(_)) => Err(Status::invalid_argument("`begin` comes only once")),
        None => Err(Status::invalid_argument("`part` is missing")),
    }
}

/// Sees to it that the end of a stream that its sender did not end is looked into, also when the stream is
/// dropped unread: the answers cannot be sent any more, and Raft may drop the requests for that first.
struct BreakWatch {
    group: Arc<PeerGroup>,
    from: NodeId,
    ended: bool,
}

impl Drop for BreakWatch {
    fn drop(&mut self) {
        if !self.ended {
            self.group.succession.stream_broke(self.from);
        }
    }
}
