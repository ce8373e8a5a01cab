//! Faults of processes.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::{Choice, Evidence, Nemesis, Reach, Situation, list};
use crate::harness::{Cluster, HarnessError, NodeId};

/// How long a node may take to be back in a rolling restart.
const BACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Kills processes, and starts them again at the end.
pub(super) struct Kill {
    reach: Reach,
    nodes: Vec<NodeId>,
    gone: bool,
}

impl Kill {
    pub(super) fn new(reach: Reach) -> Kill {
        Kill { reach, nodes: Vec::new(), gone: false }
    }
}

impl Nemesis for Kill {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        self.nodes = situation.victims(self.reach, random);
        let leader = situation.leader.is_some_and(|leader| self.nodes.contains(&leader));
        let with = if leader { ", the leader among them" } else { "" };
        Choice::new(format!("SIGKILL of {}{with}", list(&self.nodes)), self.nodes.clone())
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            cluster.kill(&self.nodes).await?;
            self.gone = none_runs(cluster, &self.nodes)?;
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move {
            for node in &self.nodes {
                cluster.start_node(*node)?;
            }
            Ok(Evidence::new(self.gone, format!("the processes of {} were gone", list(&self.nodes))))
        }
        .boxed()
    }
}

fn none_runs(cluster: &Cluster, nodes: &[NodeId]) -> Result<bool, HarnessError> {
    for node in nodes {
        if cluster.node(*node)?.process_id().is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Halts processes, and lets them go on at the end.
#[derive(Default)]
pub(super) struct Pause {
    nodes: Vec<NodeId>,
}

impl Nemesis for Pause {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        let reach = if random.random_bool(0.5) { Reach::One } else { Reach::Minority };
        self.nodes = situation.victims(reach, random);
        Choice::new(format!("SIGSTOP of {}", list(&self.nodes)), self.nodes.clone())
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            for node in &self.nodes {
                cluster.node(*node)?.pause().await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move {
            let views = cluster.views().await;
            let silent = views.iter().filter(|view| self.nodes.contains(&view.node)).all(|view| view.status.is_none());
            let mut halted = true;
            for node in &self.nodes {
                let node = cluster.node(*node)?;
                halted &= node.is_paused();
                node.resume()?;
            }
            Ok(Evidence::new(halted && silent, format!("{}: halted {halted}, silent {silent}", list(&self.nodes))))
        }
        .boxed()
    }
}

/// Asks one process after the other to end, and starts each again before the next.
#[derive(Default)]
pub(super) struct RollingRestart {
    nodes: Vec<NodeId>,
    done: Vec<String>,
    all: bool,
}

impl Nemesis for RollingRestart {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        self.nodes = situation.victims(Reach::All, random);
        self.nodes.retain(|node| !situation.damaged.contains(node));
        Choice::new(format!("SIGTERM of {}, in turn", list(&self.nodes)), self.nodes.clone())
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            self.all = true;
            for id in &self.nodes {
                let node = cluster.node(*id)?;
                let start = std::time::Instant::now();
                node.send_terminate()?;
                let status = node.reap().await?;
                let ended = start.elapsed();
                cluster.start_node(*id)?;
                let recovery = cluster.wait_recovered(BACK_TIMEOUT, BACK_TIMEOUT).await;
                let properly = status.is_some_and(|status| status.success());
                self.all &= properly && recovery.missing.is_empty();
                self.done.push(format!("n{id} ended {ended:.1?} ({properly}), back {:.1?}", recovery.took));
            }
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a mut self, _cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move { Ok(Evidence::new(self.all, self.done.join(", "))) }.boxed()
    }
}
