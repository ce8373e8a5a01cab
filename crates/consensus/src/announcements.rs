//! What the members of a group say of themselves: version, formats, the cluster that they belong to, and whether they can take
//! more. A leader asks them, once a second.
//!
//! By that the leader knows which commands it may propose, gives the cluster its id when all members understand that, and
//! notes who holds data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dwell_machine::{COMMAND_FORMAT, COMMAND_FORMAT_UNANNOUNCED, Command, Identify};
use dwell_proto::peer as wire;
use futures::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tonic::Code;

use crate::group::Group;
use crate::peer::PeerLinks;
use crate::proposer::Hurry;
use crate::state_machine::StateMachine;
use crate::types::{GroupId, NodeAddress, NodeId, Raft};

/// How often members are asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same while the cluster has no id that this node knows.
const FORMING_INTERVAL: Duration = Duration::from_millis(50);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// What a node says of itself, when it is asked; cheap to clone.
#[derive(Debug, Clone)]
pub struct Announcer {
    /// The server's version.
    pub version: String,
    /// The newest format of commands that it understands.
    pub command_format: u32,
    exhausted: Arc<Mutex<Option<String>>>,
}

impl Announcer {
    /// Of a server of this version, which understands commands up to this format.
    pub fn new(version: impl Into<String>, command_format: u32) -> Announcer {
        Announcer { version: version.into(), command_format, exhausted: Arc::default() }
    }

    /// Says from now on why the node should not be given more to store, or that nothing is in the way.
    pub fn set_exhausted(&self, reason: Option<String>) {
        *self.exhausted.lock() = reason;
    }

    /// Why the node should not be given more to store.
    pub fn exhausted(&self) -> Option<String> {
        self.exhausted.lock().clone()
    }

    pub(crate) fn announce(&self, cluster_id: Option<u64>) -> wire::AnnounceResponse {
        wire::AnnounceResponse {
            version: self.version.clone(),
            command_format: self.command_format,
            cluster_id: cluster_id.unwrap_or(0),
            exhausted: self.exhausted.lock().clone().unwrap_or_default(),
        }
    }
}

impl Default for Announcer {
    fn default() -> Announcer {
        Announcer::new(env!("CARGO_PKG_VERSION"), COMMAND_FORMAT)
    }
}

/// What a member said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Of its server; none if it is from before there were announcements.
    pub version: Option<String>,
    /// The newest format of commands that it understands.
    pub command_format: u32,
    /// The cluster that its data is of.
    pub cluster_id: Option<u64>,
    /// Why it should not be given more to store.
    pub exhausted: Option<String>,
}

impl From<wire::AnnounceResponse> for Announcement {
    fn from(response: wire::AnnounceResponse) -> Announcement {
        Announcement {
            version: Some(response.version),
            command_format: response.command_format,
            cluster_id: Some(response.cluster_id).filter(|id| *id != 0),
            exhausted: Some(response.exhausted).filter(|reason| !reason.is_empty()),
        }
    }
}

impl Announcement {
    /// Of a node that does not know the question.
    fn of_old_node() -> Announcement {
        let command_format = COMMAND_FORMAT_UNANNOUNCED;
        Announcement { version: None, command_format, cluster_id: None, exhausted: None }
    }
}

/// A member is too old for a command, or is not known not to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("to {command} takes command format {needs}, and {}", why(*.node_id, .announcement.as_ref()))]
pub struct NotUnderstood {
    /// The member.
    pub node_id: NodeId,
    /// What it said; none if it has not been heard of yet.
    pub announcement: Option<Announcement>,
    /// What is to be done.
    pub command: &'static str,
    /// The format that it takes.
    pub needs: u32,
}

fn why(node_id: NodeId, announcement: Option<&Announcement>) -> String {
    match announcement {
        None => format!("node {node_id} has not said yet which it understands: it must run, and be reachable"),
        Some(Announcement { version, command_format, .. }) => {
            let version = version.as_deref().unwrap_or("from before there were announcements");
            format!("node {node_id}, version {version}, understands up to {command_format}: upgrade it first")
        }
    }
}

/// What the members said; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Announcements {
    heard: Arc<Mutex<BTreeMap<NodeId, Announcement>>>,
    /// The newest format that the state shows to be understood by all members, whether or not they answer now.
    applied: Arc<AtomicU32>,
}

impl Announcements {
    /// What a member said last; none if it has not been heard of since this node began to lead.
    pub fn of(&self, node_id: NodeId) -> Option<Announcement> {
        self.heard.lock().get(&node_id).cloned()
    }

    /// Another member than `own_id` that should not be given more to store, and why.
    pub fn exhausted_besides(&self, own_id: NodeId) -> Option<(NodeId, String)> {
        let heard = self.heard.lock();
        let others = heard.iter().filter(|(node_id, _)| **node_id != own_id);
        others.filter_map(|(node_id, said)| Some((*node_id, said.exhausted.clone()?))).next()
    }

    /// Takes what a member says.
    pub fn record(&self, node_id: NodeId, announcement: Announcement) {
        let before = self.heard.lock().insert(node_id, announcement.clone());
        if before.as_ref() != Some(&announcement) {
            tracing::info!(node_id, ?announcement, "member announces itself");
        }
    }

    /// Looks whether all of these understand a command.
    pub fn check(&self, command: &Command, members: impl IntoIterator<Item = NodeId>) -> Result<(), NotUnderstood> {
        let needs = command.format();
        if needs <= COMMAND_FORMAT_UNANNOUNCED.max(self.applied.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let heard = self.heard.lock();
        for node_id in members {
            let announcement = heard.get(&node_id);
            if announcement.is_none_or(|said| said.command_format < needs) {
                let announcement = announcement.cloned();
                return Err(NotUnderstood { node_id, announcement, command: command.name(), needs });
            }
        }
        Ok(())
    }

    /// Asks all other members. What one that does not answer has said before of its version stands: it was not upgraded
    /// backwards. Whether it could take more does not matter while it takes nothing.
    pub async fn ask(&self, raft: &Raft, links: &PeerLinks, route: impl Fn(NodeId) -> wire::Route) {
        let own_id = *raft.node_id();
        let others = members(raft).into_iter().filter(|(node_id, _)| *node_id != own_id);
        let others: Vec<_> = others.map(|(node_id, address)| (node_id, address, route(node_id))).collect();
        self.heard.lock().retain(|node_id, _| others.iter().any(|(other, ..)| other == node_id));
        let asked = others.into_iter().map(async |(node_id, address, route)| {
            let announcement = ask(links, &address.peer, route).await;
            match announcement {
                Some(announcement) => self.record(node_id, announcement),
                None => {
                    if let Some(said) = self.heard.lock().get_mut(&node_id) {
                        said.exhausted = None;
                    }
                }
            }
        });
        join_all(asked).await;
    }

    /// Commands of this format have been applied: whoever was a member has understood them.
    pub fn record_applied(&self, command_format: u32) {
        self.applied.fetch_max(command_format, Ordering::Relaxed);
    }

    fn forget(&self) {
        self.heard.lock().clear();
    }
}

/// Asks one node. None if it does not answer.
async fn ask(links: &PeerLinks, address: &str, route: wire::Route) -> Option<Announcement> {
    let mut calls = links.link(address).ok()?.calls();
    let request = wire::AnnounceRequest { route: Some(route) };
    match tokio::time::timeout(ANSWER_TIMEOUT, calls.announce(request)).await.ok()? {
        Ok(response) => Some(response.into_inner().into()),
        Err(status) if status.code() == Code::Unimplemented => Some(Announcement::of_old_node()),
        Err(status) => {
            tracing::debug!(node_id = route.to_node_id, %status, "a member does not announce itself");
            None
        }
    }
}

/// All members, with their addresses.
pub(crate) fn members(raft: &Raft) -> Vec<(NodeId, NodeAddress)> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.nodes().map(|(id, address)| (*id, address.clone())).collect()
}

/// Learns which cluster this is; and, while this node leads, asks the members, gives the cluster its id, and notes who
/// holds its data. Runs until the group stops.
pub(crate) async fn run(group: Group, links: PeerLinks, group_id: GroupId, announcer: Announcer) {
    let mut leadership = group.leadership.clone();
    loop {
        let Ok(Applied { cluster_id, holders, command_format }) = applied(&group.raft).await else { return };
        group.announcements.record_applied(command_format);
        group.identity.learn(cluster_id, &holders);
        let leads = leadership.borrow_and_update().is_local;
        if leads {
            let own_id = group.node_id;
            let route = |to: NodeId| {
                let route = wire::Route { group_id, from_node_id: own_id, to_node_id: to, ..wire::Route::default() };
                group.identity.stamp(route)
            };
            group.announcements.ask(&group.raft, &links, route).await;
            let own = announcer.announce(group.identity.id());
            group.announcements.record(own_id, own.into());
            identify(&group, cluster_id, &holders).await;
        } else {
            group.announcements.forget();
        }
        let pause = if group.identity.id().is_some() { INTERVAL } else { FORMING_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

/// What this node's state says of the cluster.
struct Applied {
    cluster_id: Option<u64>,
    holders: Vec<NodeId>,
    command_format: u32,
}

async fn applied(raft: &Raft) -> Result<Applied, openraft::errors::Fatal<crate::types::TypeConfig>> {
    raft.with_state_machine(|state_machine: &mut StateMachine| {
        let machine = state_machine.machine();
        let applied = Applied {
            cluster_id: machine.cluster_id(),
            holders: machine.holders().to_vec(),
            command_format: machine.command_format_applied(),
        };
        Box::pin(async move { applied })
    })
    .await
}

/// Proposes what is new, once all members understand it.
async fn identify(group: &Group, cluster_id: Option<u64>, holders: &[NodeId]) {
    let own_cluster = group.identity.id();
    let has_data = |node_id: &NodeId| {
        let said = group.announcements.of(*node_id).and_then(|said| said.cluster_id);
        own_cluster.is_some() && said == own_cluster && holders.binary_search(node_id).is_err()
    };
    let new: Vec<NodeId> = members(&group.raft).into_iter().map(|(id, _)| id).filter(has_data).collect();
    let offered = if cluster_id.is_none() { group.identity.fresh() } else { 0 };
    if offered == 0 && new.is_empty() {
        return;
    }
    let command = Command::Identify(Identify { cluster_id: offered, holders: new });
    if let Err(error) = group.proposer.submit(command, Hurry::None).await.wait().await {
        tracing::debug!(%error, "the cluster has no id yet, or a member is not noted yet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identify() -> Command {
        Command::Identify(Identify::default())
    }

    fn announcement(command_format: u32) -> Announcement {
        wire::AnnounceResponse { version: "1.2.3".into(), command_format, ..Default::default() }.into()
    }

    #[test]
    fn a_command_waits_until_every_member_is_known_to_understand_it() {
        let announcements = Announcements::default();
        let check = || announcements.check(&identify(), 1..=3);
        announcements.record(1, announcement(2));
        announcements.record(2, announcement(3));
        let unknown = check().unwrap_err();
        assert_eq!((unknown.node_id, unknown.announcement.clone()), (3, None));
        assert!(unknown.to_string().contains("node 3 has not said yet"), "{unknown}");
        announcements.record(3, announcement(1));
        let old = check().unwrap_err();
        assert_eq!(
            old.to_string(),
            "to identify the cluster takes command format 2, and node 3, version 1.2.3, understands up to 1: upgrade it first"
        );
        announcements.record(3, Announcement::of_old_node());
        assert_eq!(check().unwrap_err().node_id, 3);
        announcements.record(3, announcement(2));
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn what_was_applied_once_needs_no_answer_of_a_member_that_is_down() {
        let announcements = Announcements::default();
        announcements.record_applied(1);
        assert!(announcements.check(&identify(), 1..=3).is_err());
        announcements.record_applied(2);
        assert_eq!(announcements.check(&identify(), 1..=3), Ok(()));
        let newer = Command::RemoveUser(dwell_machine::RemoveUser::default());
        assert_eq!(announcements.check(&newer, 1..=3).unwrap_err().needs, 3);
    }

    #[test]
    fn commands_of_the_first_format_need_no_announcement() {
        let command = Command::DetachAll(dwell_machine::DetachAll {});
        assert_eq!(Announcements::default().check(&command, 1..=3), Ok(()));
    }
}
