//! What goes wrong when.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::nemesis::Area;
use crate::harness::{Cluster, EventKind, Fault, HarnessError, Injected, Recovery};

/// How long the cluster may take to recover from what was done to it, before the next thing is done.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node whose files have rotted is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an episode may go on after the deadline.
const OVERTIME: Duration = Duration::from_secs(4);

/// Which faults a plan may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// One of these at a time, in turn.
    Alone(Vec<Fault>),
    /// Up to three of these at a time.
    Mixed(Vec<Fault>),
}

/// How fast one thing after the other goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// Milliseconds before each episode in which nothing happens.
    pub quiet_ms: RangeInclusive<u64>,
    /// Milliseconds that an episode lasts.
    pub length_ms: RangeInclusive<u64>,
}

impl Pace {
    /// Time for elections, snapshots, and everything to be busy again.
    pub const USUAL: Pace = Pace { quiet_ms: 2000..=4000, length_ms: 5000..=9000 };
    /// As little as lets each fault show.
    pub const FAST: Pace = Pace { quiet_ms: 1000..=2000, length_ms: 4000..=5000 };
}

/// What goes wrong when: the same for the same seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One after the other.
    pub episodes: Vec<Episode>,
}

/// Quiet, then faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Episode {
    /// How long nothing happens first.
    pub quiet: Duration,
    /// What happens at the same time then,
    pub faults: Vec<Fault>,
    /// and for how long.
    pub length: Duration,
    /// Decides whom it happens to.
    pub seed: u64,
}

impl Plan {
    /// Makes a plan that fills `time_limit`. An episode without faults says that none is possible.
    pub fn new(selection: &Selection, pace: &Pace, seed: u64, time_limit: Duration) -> Plan {
        let mut random = StdRng::seed_from_u64(seed);
        let mut episodes = Vec::new();
        let mut planned = Duration::ZERO;
        while planned < time_limit {
            let quiet = Duration::from_millis(random.random_range(pace.quiet_ms.clone()));
            let length = Duration::from_millis(random.random_range(pace.length_ms.clone()));
            let faults = match selection {
                Selection::Alone(faults) => {
                    faults.get(episodes.len() % faults.len().max(1)).copied().into_iter().collect()
                }
                Selection::Mixed(faults) => combine(faults, &mut random),
            };
            episodes.push(Episode { quiet, faults, length, seed: random.random() });
            planned += quiet + length;
        }
        Plan { episodes }
    }
}

/// Up to three faults that have nothing to do with each other; one that destroys what was stored comes alone.
fn combine(possible: &[Fault], random: &mut StdRng) -> Vec<Fault> {
    let mut chosen: Vec<Fault> = Vec::new();
    for _ in 0..random.random_range(1..=3) {
        let taken: Vec<Area> = chosen.iter().map(|fault| fault.area()).collect();
        let fits = |fault: &&Fault| !taken.contains(&fault.area()) && (chosen.is_empty() || goes_along(**fault));
        let candidates: Vec<&Fault> = possible.iter().filter(fits).collect();
        let Some(fault) = candidates.choose(random) else { break };
        chosen.push(**fault);
        if !goes_along(**fault) {
            break;
        }
    }
    chosen
}

/// Whether a fault may come together with others. Those with steps that wait for the cluster could wait for ever.
fn goes_along(fault: Fault) -> bool {
    !fault.is_corruption() && !fault.has_own_length()
}

/// What a plan did.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Each fault that was injected, and whether it was seen to take effect.
    pub injected: Vec<(Fault, bool)>,
    /// How it went to recover after each episode.
    pub recoveries: Vec<Recovery>,
}

impl Plan {
    /// How often members are exchanged.
    pub fn exchanges(&self) -> u64 {
        let faults = self.episodes.iter().flat_map(|episode| &episode.faults);
        faults.filter(|fault| **fault == Fault::Membership).count() as u64
    }

    /// Carries it out, until it is done or `deadline` has come: what goes wrong then is healed a little later, so that
    /// the workload sees how it goes on.
    pub async fn run(&self, cluster: &Arc<Cluster>, deadline: Instant) -> Result<Outcome, HarnessError> {
        let mut outcome = Outcome::default();
        for episode in &self.episodes {
            tokio::time::sleep(episode.quiet).await;
            if Instant::now() >= deadline {
                break;
            }
            let mut random = StdRng::seed_from_u64(episode.seed);
            let mut injected = Vec::new();
            for fault in &episode.faults {
                injected.push(Injected::start(*fault, cluster, &mut random).await?);
            }
            if !episode.faults.iter().all(|fault| fault.has_own_length()) {
                let end = deadline + OVERTIME;
                tokio::time::sleep(episode.length.min(end.saturating_duration_since(Instant::now()))).await;
            }
            // A change of members can end only when enough of them run and reach each other again.
            injected.sort_by_key(|injected| injected.fault() == Fault::Membership);
            for injected in injected {
                let fault = injected.fault();
                let evidence = injected.stop(cluster).await?;
                outcome.injected.push((fault, evidence.seen));
            }
            let recovery = cluster.wait_recovered(RECOVERY_TIMEOUT, PATIENCE).await;
            let text = format!("{:.1?}; missing: {:?}", recovery.took, recovery.missing);
            cluster.events().tell(EventKind::Recovery, None, text);
            outcome.recoveries.push(recovery);
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_the_time_is_filled() {
        let selection = Selection::Mixed(Fault::all().to_vec());
        let plan = Plan::new(&selection, &Pace::USUAL, 7, Duration::from_secs(300));
        assert_eq!(plan, Plan::new(&selection, &Pace::USUAL, 7, Duration::from_secs(300)));
        assert_ne!(plan, Plan::new(&selection, &Pace::USUAL, 8, Duration::from_secs(300)));
        let planned: Duration = plan.episodes.iter().map(|episode| episode.quiet + episode.length).sum();
        assert!(planned >= Duration::from_secs(300));
    }

    #[test]
    fn what_destroys_comes_alone_and_no_area_twice() {
        let plan = Plan::new(&Selection::Mixed(Fault::all().to_vec()), &Pace::FAST, 1, Duration::from_secs(20_000));
        for episode in &plan.episodes {
            let faults = &episode.faults;
            assert!(!faults.is_empty() && faults.len() <= 3);
            assert!(faults.len() == 1 || faults.iter().all(|fault| goes_along(*fault)), "{faults:?}");
            for (at, fault) in faults.iter().enumerate() {
                assert!(faults[..at].iter().all(|other| other.area() != fault.area()), "{faults:?}");
            }
        }
        let used: std::collections::BTreeSet<Fault> = plan.episodes.iter().flat_map(|e| e.faults.clone()).collect();
        assert_eq!(used.len(), Fault::all().len());
    }

    #[test]
    fn faults_alone_come_in_turn() {
        let selection = Selection::Alone(vec![Fault::KillOne, Fault::Loss]);
        let plan = Plan::new(&selection, &Pace::FAST, 1, Duration::from_secs(60));
        let faults: Vec<Fault> = plan.episodes.iter().flat_map(|episode| episode.faults.clone()).take(3).collect();
        assert_eq!(faults, [Fault::KillOne, Fault::Loss, Fault::KillOne]);
    }
}
