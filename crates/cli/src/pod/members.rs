//! What pods ask of the cluster: to belong to it, not to lead it any more, and that those that are to go are removed.

use std::time::Duration;

use dwell_client::{Client, ClusterStatus, Error};

use super::place::{HostTemplate, Place};

/// How long one call may wait for this node to catch up; it is repeated.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(600);
/// Between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Makes this pod's node a voting member at its addresses, if it is none: it is new, or was removed while it was away.
/// Tries until it is.
pub async fn belong(client: &Client, place: &Place, node_id: u64) {
    while let Err(error) = try_to_belong(client, place, node_id).await {
        tracing::warn!(%error, "this node is not a voting member of the cluster yet");
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn try_to_belong(client: &Client, place: &Place, node_id: u64) -> Result<(), Error> {
    let (peer, address) = (place.peer_address(place.ordinal), place.client_address(place.ordinal));
    let status = client.leader_status().await?;
    let own = status.members.iter().find(|member| member.node_id == node_id);
    if own.is_some_and(|own| own.voter && own.peer_address == peer && own.client_address == address) {
        return Ok(());
    }
    tracing::info!(node_id, "asking the cluster to make this node a voting member");
    client.add_member(node_id, peer, address, CATCH_UP_TIMEOUT).await?;
    tracing::info!(node_id, "this node is a voting member");
    Ok(())
}

/// Hands the leadership over if the node at this address leads. Answers who leads then, or none if it did not.
pub async fn hand_over(client: &Client, address: &str) -> Result<Option<u64>, Error> {
    let status = client.cluster_status(address).await?;
    if status.leader_id != Some(status.node_id) {
        return Ok(None);
    }
    client.transfer_leader_from(status.node_id).await.map(Some)
}

/// A member that was removed.
#[derive(Debug)]
pub struct Removed {
    /// Its pod.
    pub ordinal: u32,
    /// Its id.
    pub node_id: u64,
}

/// Removes the members in pods from `replicas` on, the last pod's first, and tells of each. Members elsewhere stay.
pub async fn remove_from(
    client: &Client,
    hosts: &HostTemplate,
    replicas: u32,
    mut tell: impl FnMut(Removed) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for (ordinal, node_id) in leaving(&client.leader_status().await?, hosts, replicas) {
        client.remove_member(node_id).await?;
        tell(Removed { ordinal, node_id })?;
    }
    Ok(())
}

fn leaving(status: &ClusterStatus, hosts: &HostTemplate, replicas: u32) -> Vec<(u32, u64)> {
    let pods = status.members.iter().filter_map(|member| Some((hosts.ordinal(&member.peer_address)?, member.node_id)));
    let mut leaving: Vec<(u32, u64)> = pods.filter(|(ordinal, _)| *ordinal >= replicas).collect();
    leaving.sort_unstable_by(|a, b| b.cmp(a));
    leaving
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pods_leave_first_and_members_elsewhere_stay() {
        let mut status = ClusterStatus::default();
        for (node_id, peer_address) in
            [(1, "d-0.p:7601"), (2, "d-1.p:7601"), (9_003, "d-2.p:7601"), (5_004, "d-3.p:7601"), (7, "10.0.0.1:7601")]
        {
            let member = dwell_client::Member { node_id, peer_address: peer_address.into(), ..Default::default() };
            status.members.push(member);
        }
        let hosts = "d-{ordinal}.p".parse().unwrap();
        assert_eq!(leaving(&status, &hosts, 2), [(3, 5_004), (2, 9_003)]);
        assert_eq!(leaving(&status, &hosts, 4), []);
    }
}
