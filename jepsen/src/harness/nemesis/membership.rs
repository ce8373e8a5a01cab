//! Faults of membership.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::task::JoinHandle;

use super::{Choice, Evidence, Nemesis, Reach, Situation};
use crate::harness::command::run;
use crate::harness::{Cluster, HarnessError, NodeId};

/// How long a new node has to catch up, in one attempt.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the change may take once every other fault is healed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Whether the binary can change the membership.
pub(super) fn possible(binary: &Path) -> Result<(), String> {
    let help = run(&binary.to_string_lossy(), &["cluster", "--help"]).map_err(|error| error.to_string())?;
    let has = |command: &str| help.lines().any(|line| line.trim_start().starts_with(command));
    if has("add ") && has("remove ") { Ok(()) } else { Err("the binary has no `cluster add` and `remove`".to_owned()) }
}

/// A change of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Add(NodeId),
    Remove(NodeId),
}

/// Adds a node and removes another one, or the other way round, whatever else goes wrong meanwhile: each is tried until
/// it is done. A removed node never comes back; those that are added are new.
#[derive(Default)]
pub(super) struct Exchange {
    steps: Vec<Step>,
    changing: Option<JoinHandle<Result<Vec<String>, HarnessError>>>,
}

impl Nemesis for Exchange {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        let added = situation.spares.choose(random).map(|node| Step::Add(*node));
        let removed = situation.victims(Reach::One, random).first().map(|node| Step::Remove(*node));
        self.steps = added.into_iter().chain(removed).collect();
        // Without a new node the cluster would only shrink, at last to nothing.
        if situation.spares.is_empty() {
            self.steps.clear();
        }
        if random.random_bool(0.5) {
            self.steps.reverse();
        }
        let nodes = self.steps.iter().map(|step| match step {
            Step::Add(node) | Step::Remove(node) => *node,
        });
        Choice::new(describe(&self.steps), nodes.collect())
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let (steps, cluster) = (self.steps.clone(), cluster.clone());
            self.changing = Some(tokio::spawn(async move { change(&cluster, &steps).await }));
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a mut self, _cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move {
            let Some(mut changing) = self.changing.take() else { return Ok(Evidence::new(false, "nothing was begun")) };
            let done = match tokio::time::timeout(TIMEOUT, &mut changing).await {
                Ok(Ok(done)) => done?,
                Ok(Err(error)) => return Err(HarnessError::Invalid(format!("the change broke off: {error}"))),
                Err(_) => {
                    changing.abort();
                    return Err(HarnessError::Deadline {
                        what: "members have not changed".to_owned(),
                        waited: TIMEOUT,
                    });
                }
            };
            Ok(Evidence::new(!done.is_empty(), done.join(", ")))
        }
        .boxed()
    }
}

fn describe(steps: &[Step]) -> String {
    let steps = steps.iter().map(|step| match step {
        Step::Add(node) => format!("n{node} becomes a member"),
        Step::Remove(node) => format!("n{node} is removed"),
    });
    let steps: Vec<String> = steps.collect();
    if steps.is_empty() { "no new node is left to become a member".to_owned() } else { steps.join(", then ") }
}

async fn change(cluster: &Arc<Cluster>, steps: &[Step]) -> Result<Vec<String>, HarnessError> {
    let mut done = Vec::new();
    for step in steps {
        let start = Instant::now();
        match step {
            Step::Add(node) => {
                cluster.prepare_to_join(*node)?;
                let failures = persist(cluster, *step).await;
                done.push(format!("n{node} a member after {:.1?} and {failures} failures", start.elapsed()));
            }
            Step::Remove(node) => {
                let failures = persist(cluster, *step).await;
                cluster.retire(*node).await?;
                done.push(format!("n{node} removed after {:.1?} and {failures} failures", start.elapsed()));
            }
        }
    }
    Ok(done)
}

/// Tries until it is done, and counts in how many attempts it was not.
async fn persist(cluster: &Cluster, step: Step) -> u32 {
    let mut failures = 0;
    loop {
        let tried = match step {
            Step::Add(node) => cluster.try_to_add(node, CATCH_UP).await,
            Step::Remove(node) => cluster.try_to_remove(node).await,
        };
        let Err(error) = tried else { return failures };
        tracing::info!(%error, "members are not changed yet");
        failures += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn one_node_comes_and_one_goes_in_either_order() {
        let mut first_added = 0;
        for seed in 0..100 {
            let situation =
                Situation { members: vec![1, 2, 3], spares: vec![4, 5], leader: Some(2), damaged: Default::default() };
            let mut exchange = Exchange::default();
            exchange.choose(&situation, &mut StdRng::seed_from_u64(seed));
            let [first, second] = exchange.steps[..] else { panic!("{:?}", exchange.steps) };
            first_added += u32::from(matches!((first, second), (Step::Add(4 | 5), Step::Remove(1..=3))));
            assert!(matches!((first, second), (Step::Add(_), Step::Remove(_)) | (Step::Remove(_), Step::Add(_))));
        }
        assert!((30..70).contains(&first_added), "{first_added}");
    }
}
