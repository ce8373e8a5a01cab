//! Faults of clocks.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinHandle;

use super::{Choice, Evidence, Nemesis, Situation};
use crate::harness::probe::date_header;
use crate::harness::{Cluster, HarnessError, NodeId};

/// Clocks are wrong by this much at most. More is a matter of waiting only: whatever a clock that was ahead has
/// committed holds the others up for so long.
const ERROR_MS_MAX: i64 = 4000;
/// How many clocks are always ahead,
const AHEAD: usize = 2;
/// and by how much at least.
const AHEAD_MS_MIN: i64 = 2500;
/// Between two jumps of a clock. The clock's library looks once a second.
const JUMP_INTERVAL: Duration = Duration::from_millis(2500);
/// A little more than what passes until a server looks at its clock's file again.
const LOOK_INTERVAL: Duration = Duration::from_millis(1200);
/// How much what was seen of a clock may differ: it comes in whole seconds, and up to a second late.
const TOLERANCE_MS: i64 = 2200;

/// Sets each clock wrong by another amount, and right at the end.
#[derive(Default)]
pub(super) struct Skew {
    errors: Vec<(NodeId, i64)>,
}

impl Nemesis for Skew {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        self.errors = draw(&situation.members, random);
        Choice::new(describe(&self.errors), situation.members.clone())
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move { set_all(cluster, &self.errors) }.boxed()
    }

    fn stop<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move {
            let evidence = observe(cluster, &self.errors).await?;
            set_right(cluster).await?;
            Ok(evidence)
        }
        .boxed()
    }
}

/// Has the clocks jump forth and back, each in its own way.
#[derive(Default)]
pub(super) struct Jump {
    members: Vec<NodeId>,
    seed: u64,
    jumping: Option<JoinHandle<()>>,
}

impl Nemesis for Jump {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        self.members = situation.members.clone();
        self.seed = random.random();
        let text = format!("all clocks jump every {JUMP_INTERVAL:?}, by up to {} ms from the truth", ERROR_MS_MAX);
        Choice::new(text, situation.members.clone())
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let (members, cluster) = (self.members.clone(), cluster.clone());
            let mut random = StdRng::seed_from_u64(self.seed);
            let first = draw(&members, &mut random);
            set_all(&cluster, &first)?;
            self.jumping = Some(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(JUMP_INTERVAL).await;
                    if let Err(error) = set_all(&cluster, &draw(&members, &mut random)) {
                        tracing::warn!(%error, "cannot set a clock");
                    }
                }
            }));
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move {
            if let Some(jumping) = self.jumping.take() {
                jumping.abort();
                // It ends by being aborted, which is no news.
                let _ = jumping.await;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            let mut errors = Vec::new();
            for id in &self.members {
                errors.push((*id, cluster.node(*id)?.clock.error_ms()));
            }
            let evidence = observe(cluster, &errors).await?;
            set_right(cluster).await?;
            Ok(evidence)
        }
        .boxed()
    }
}

/// Two clocks are well ahead in any case: that is what can be seen from outside.
fn draw(members: &[NodeId], random: &mut StdRng) -> Vec<(NodeId, i64)> {
    let ahead: Vec<NodeId> = members.sample(random, AHEAD).copied().collect();
    let error = |node: &NodeId| {
        let least = if ahead.contains(node) { AHEAD_MS_MIN } else { -ERROR_MS_MAX };
        (*node, random.random_range(least..=ERROR_MS_MAX))
    };
    members.iter().map(error).collect()
}

fn describe(errors: &[(NodeId, i64)]) -> String {
    let clocks: Vec<String> = errors.iter().map(|(node, error)| format!("n{node} {error:+} ms")).collect();
    clocks.join(", ")
}

fn set_all(cluster: &Cluster, errors: &[(NodeId, i64)]) -> Result<(), HarnessError> {
    for (node, error_ms) in errors {
        // Told before: who reads the history must not take a wrong clock for a right one.
        cluster.events().tell_clock(*node, *error_ms);
        cluster.node(*node)?.clock.set(*error_ms)?;
    }
    Ok(())
}

/// Sets all clocks right, and tells so once they are: the servers look a second later at most.
async fn set_right(cluster: &Cluster) -> Result<(), HarnessError> {
    // Also those of nodes that are no members any more.
    let wrong = cluster.wrong_clocks();
    for node in &wrong {
        cluster.node(*node)?.clock.set(0)?;
    }
    tokio::time::sleep(LOOK_INTERVAL).await;
    for node in wrong {
        cluster.events().tell_clock(node, 0);
    }
    Ok(())
}

/// Looks whether at least one clock is seen to be wrong as it should be.
async fn observe(cluster: &Cluster, errors: &[(NodeId, i64)]) -> Result<Evidence, HarnessError> {
    let mut seen = Vec::new();
    let mut unseen = Vec::new();
    for (id, expected) in errors {
        let node = cluster.node(*id)?;
        let Some(date) = date_header(&node.http_address()).await else {
            unseen.push(format!("n{id} does not answer"));
            continue;
        };
        let Ok(told) = chrono::DateTime::parse_from_rfc2822(&date) else {
            unseen.push(format!("n{id} says {date}"));
            continue;
        };
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let error = told.timestamp_millis() - now_ms;
        // Not a clock that is hardly wrong, which proves nothing; nor one that went back, which the date hides.
        let clear = expected.abs() > TOLERANCE_MS && (error - expected).abs() <= TOLERANCE_MS;
        let text = format!("n{id} is {error:+} ms off for {expected:+} ms");
        if clear { seen.push(text) } else { unseen.push(text) }
    }
    let text = format!("by HTTP dates: {}; not clear: {}", seen.join(", "), unseen.join(", "));
    Ok(Evidence::new(!seen.is_empty(), text))
}
