//! How a pod's node comes to its id, before it starts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use dwell_client::{Client, ClientOptions, Error};
use dwell_storage::enrolment::{Enrolment, EnrolmentError, Phase};
use futures::future::join_all;

use super::decision::{Answer, Decision, decide};
use super::place::Place;
use super::waiting::{Waiting, ask};

/// How often the others are asked.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// New ids are so many apart, and end with the pod's number from 1, by which people recognize them.
const ID_STRIDE: u64 = 1000;
/// Bits by chance in a new id. As many as go into a double with the rest: metrics and JSON hold ids as such.
const ID_BITS: u32 = 40;

/// Why a pod's node has no id.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The data directory.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    /// The others could not hear of this pod.
    #[error("cannot listen on {address} for HTTP: {source}")]
    Listen {
        /// What was configured.
        address: SocketAddr,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// Finds out under which id this pod's node takes part, and keeps it on disk. Asks the others until that is sure.
pub async fn enrol(
    place: &Place,
    data_directory: &Path,
    http_address: SocketAddr,
    options: &ClientOptions,
) -> Result<Enrolment, EnrolError> {
    let mut own = Enrolment::read(data_directory)?;
    if let Some(started) = own.filter(|own| own.phase == Phase::Started) {
        return Ok(started);
    }
    let waiting =
        Waiting::listen(http_address).await.map_err(|source| EnrolError::Listen { address: http_address, source })?;
    loop {
        let phase = own.map(|own| own.phase);
        let answers = ask_others(place).await;
        match decide(phase, place.ordinal, place.founders, &answers) {
            Decision::Found => {
                let founder = founder(place, Phase::Founding);
                founder.write(data_directory)?;
                own = Some(founder);
                waiting.say(Some(Phase::Founding), "ready to form a cluster");
                continue;
            }
            Decision::Start => {
                let started = Enrolment { phase: Phase::Started, ..own.unwrap_or(founder(place, Phase::Started)) };
                started.write(data_directory)?;
                tracing::info!(node_id = started.node_id, "this node is one of its cluster's founders");
                waiting.end().await;
                return Ok(started);
            }
            Decision::Join => match make_room(place, &answers, options).await {
                Ok(()) => {
                    let node_id = new_id(place.ordinal);
                    let joiner = Enrolment { node_id, is_founder: false, phase: Phase::Started };
                    joiner.write(data_directory)?;
                    tracing::info!(node_id, "this node joins a cluster that there is");
                    waiting.end().await;
                    return Ok(joiner);
                }
                Err(error) => waiting.say(phase, &format!("waiting for the cluster to take this node in: {error}")),
            },
            Decision::Wait(reason) => waiting.say(phase, &reason),
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

fn founder(place: &Place, phase: Phase) -> Enrolment {
    Enrolment { node_id: u64::from(place.ordinal) + 1, is_founder: true, phase }
}

async fn ask_others(place: &Place) -> BTreeMap<u32, Answer> {
    let asked = place.others().map(async |ordinal| (ordinal, ask(&place.http_address(ordinal)).await));
    join_all(asked).await.into_iter().filter_map(|(ordinal, answer)| Some((ordinal, answer?))).collect()
}

/// Makes sure that there is a leader, and that no member has this pod's addresses: that was its node with the data that
/// it has lost.
async fn make_room(place: &Place, answers: &BTreeMap<u32, Answer>, options: &ClientOptions) -> Result<(), Error> {
    let started = answers.iter().filter(|(_, answer)| **answer == Answer::Started);
    let client = Client::connect_with(started.map(|(ordinal, _)| place.client_address(*ordinal)), options.clone())?;
    let status = client.leader_status().await?;
    let own_address = place.peer_address(place.ordinal);
    if let Some(lost) = status.members.iter().find(|member| member.peer_address == own_address) {
        tracing::warn!(node_id = lost.node_id, "this pod's node has lost its data: its old id leaves the cluster");
        client.remove_member(lost.node_id).await?;
    }
    Ok(())
}

/// An id that no node had: by chance, as no pod can know them all.
fn new_id(ordinal: u32) -> u64 {
    let generation = rand::random_range(1..1_u64 << ID_BITS);
    generation * ID_STRIDE + u64::from(ordinal) % ID_STRIDE + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ids_are_unlike_founders_ids_and_each_other_and_end_with_the_pods_number() {
        let ids: std::collections::BTreeSet<u64> = (0..1000).map(|_| new_id(3)).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id % ID_STRIDE == 4 && *id > ID_STRIDE && *id < 1 << 53));
    }
}
