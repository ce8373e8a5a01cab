//! How the cluster's members change, by the seed.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use dwell_client::{Client, Error};
use dwell_jepsen::history::Recorder;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::node::member;

/// How long one attempt may take while things are broken.
const ATTEMPT: Duration = Duration::from_secs(4);
/// How long a change may take when nothing is.
const COMPLETION: Duration = Duration::from_secs(60);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// This node becomes a member.
    Add(u64),
    /// This node ceases to be one.
    Remove(u64),
    /// Somebody else is to lead.
    Transfer,
}

/// A change and its time, from the beginning of the faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When it is first tried.
    pub at: Duration,
    /// What is done.
    pub kind: ChangeKind,
}

/// The changes of a run, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes(pub Vec<Change>);

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.3} s: {:?}", self.at.as_secs_f64(), self.kind)
    }
}

impl Changes {
    /// The changes of a run of a cluster with `nodes` members and one more node that waits to be one.
    pub fn draw(random: &mut StdRng, nodes: u64, duration: Duration) -> Changes {
        let mut kinds = Vec::new();
        if random.random_bool(0.3) {
            kinds.push(ChangeKind::Add(nodes + 1));
            if random.random_bool(0.6) {
                kinds.push(ChangeKind::Remove(random.random_range(1..=nodes)));
            }
        } else if nodes > 3 && random.random_bool(0.3) {
            kinds.push(ChangeKind::Remove(random.random_range(1..=nodes)));
        }
        if random.random_bool(0.2) {
            kinds.push(ChangeKind::Transfer);
        }
        let mut at = Duration::ZERO;
        let changes = kinds.into_iter().map(|kind| {
            at += duration.mul_f64(random.random_range(0.1..0.4));
            Change { at, kind }
        });
        Changes(changes.collect())
    }

    /// How many nodes there are besides the first members.
    pub fn added(&self) -> u64 {
        self.0.iter().filter(|change| matches!(change.kind, ChangeKind::Add(_))).count() as u64
    }

    /// Tries each change at its time. Returns those that were not done, or are not known to be.
    pub async fn carry_out(&self, client: &Client, recorder: &Recorder) -> Vec<Change> {
        let begin = Instant::now();
        let mut left = Vec::new();
        for change in &self.0 {
            sleep_until(begin + change.at).await;
            let name = format!("{:?}", change.kind);
            recorder.fault_started("membership", name.clone(), Vec::<String>::new());
            let done = timeout(ATTEMPT, change.attempt(client)).await;
            if !matches!(done, Ok(Ok(()))) {
                left.push(*change);
            }
            recorder.fault_stopped("membership", name);
        }
        left
    }
}

impl Change {
    async fn attempt(&self, client: &Client) -> Result<(), Error> {
        match self.kind {
            ChangeKind::Add(id) => {
                let node = member(id);
                client.add_member(id, node.peer_address, node.client_address, ATTEMPT / 2).await.map(drop)
            }
            ChangeKind::Remove(id) => client.remove_member(id).await.map(drop),
            ChangeKind::Transfer => client.transfer_leader(None).await.map(drop),
        }
    }

    /// Carries it out when nothing is broken any more. Errors: it does not come about.
    pub async fn complete(&self, client: &Client) -> anyhow::Result<()> {
        if self.kind == ChangeKind::Transfer {
            return Ok(());
        }
        let deadline = Instant::now() + COMPLETION;
        loop {
            match timeout(COMPLETION, self.attempt(client)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if Instant::now() >= deadline => {
                    return Err(error).with_context(|| format!("{:?} although nothing is broken", self.kind));
                }
                Ok(Err(_)) => sleep(Duration::from_millis(200)).await,
                Err(_) => anyhow::bail!("{:?} did not end although nothing is broken", self.kind),
            }
        }
    }
}
