//! A log applied twice gives the same state, byte for byte, however often a replica restarts on the way.

mod workload;

use bytes::Bytes;
use dwell_machine::{Applied, Batch, Command, Machine, MemoryStore, Release};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestCaseError};
use workload::{Client, Clock, START_MS, Step};

/// One `share`th of the usual number of cases.
fn config(share: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.div_ceil(share),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..usual
    }
}

fn fail(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

/// A machine with its store, as one node has them.
struct Replica {
    machine: Machine,
    store: MemoryStore,
}

impl Replica {
    fn new() -> Result<Self, TestCaseError> {
        let store = MemoryStore::default();
        Ok(Self { machine: Machine::open(&store).map_err(fail)?, store })
    }

    fn restart(&mut self) -> Result<(), TestCaseError> {
        self.machine = Machine::open(&self.store).map_err(fail)?;
        Ok(())
    }

    /// Applies one log entry as it was encoded.
    fn apply(&mut self, entry: Bytes) -> Result<Applied, TestCaseError> {
        let (at_ms, commands) = Batch::decode(entry).map_err(fail)?;
        self.machine.apply(&mut self.store, at_ms, commands).map_err(fail)
    }
}

/// The leader, whose clock stamps the entries and whose clients make them.
struct Leader {
    replica: Replica,
    client: Client,
    clock_ms: u64,
    log: Vec<(Bytes, Applied)>,
}

impl Leader {
    /// Takes a step: restarts are the follower's affair.
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Restart => Ok(()),
            Step::Entry { clock, ops } => {
                self.clock_ms = clock.after(self.clock_ms);
                let commands = ops.iter().map(|op| self.client.command(op, self.clock_ms)).collect();
                self.entry(commands)
            }
            Step::Settle { clock } => {
                self.clock_ms = clock.after(self.clock_ms);
                self.entry(vec![Command::Release(Release {})])
            }
        }
    }

    fn entry(&mut self, commands: Vec<Command>) -> Result<(), TestCaseError> {
        let entry = Batch::encode(self.clock_ms, commands.clone());
        let applied = self.replica.apply(entry.clone())?;
        self.client.observe(&commands, &applied);
        self.log.push((entry, applied));
        Ok(())
    }
}

fn lead(steps: &[Step]) -> Result<Leader, TestCaseError> {
    let (replica, client) = (Replica::new()?, Client::default());
    let mut leader = Leader { replica, client, clock_ms: START_MS, log: Vec::new() };
    for step in steps {
        leader.step(step)?;
    }
    for clock in [Clock::Forward(150), Clock::Forward(60_000)] {
        leader.step(&Step::Settle { clock })?;
    }
    Ok(leader)
}

/// Replays a leader's log on a follower that restarts before some of the entries.
fn replay(steps: &[Step], restarts: &[bool]) -> Result<(), TestCaseError> {
    let leader = lead(steps)?;
    let mut follower = Replica::new()?;
    for (position, (entry, led)) in leader.log.iter().enumerate() {
        if restarts[position % restarts.len()] {
            follower.restart()?;
        }
        let followed = follower.apply(entry.clone())?;
        prop_assert_eq!(&followed.replies, &led.replies, "replies of entry {}", position);
        prop_assert_eq!(&followed.effects, &led.effects, "effects of entry {}", position);
        prop_assert_eq!(&followed.released_due_ms, &led.released_due_ms, "releases of entry {}", position);
    }
    let rows = |replica: &Replica| -> Vec<_> {
        replica.store.rows().map(|(table, key, value)| (table, key.clone(), value.clone())).collect()
    };
    prop_assert_eq!(rows(&follower), rows(&leader.replica));
    Ok(())
}

fn restarts() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(prop::bool::weighted(0.3), 70)
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn a_replica_that_restarts_amid_a_flood_ends_with_the_same_rows(
        steps in workload::floods(),
        restarts in restarts(),
    ) {
        replay(&steps, &restarts)?;
    }
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn a_replica_that_restarts_at_any_points_ends_with_the_same_rows(
        steps in workload::steps(),
        restarts in restarts(),
    ) {
        replay(&steps, &restarts)?;
    }

    #[test]
    fn an_entry_decodes_to_what_was_encoded(steps in workload::steps()) {
        let mut client = Client::default();
        for step in &steps {
            let Step::Entry { ops, .. } = step else { continue };
            let commands: Vec<Command> = ops.iter().map(|op| client.command(op, START_MS)).collect();
            let decoded = Batch::decode(Batch::encode(START_MS, commands.clone())).map_err(fail)?;
            prop_assert_eq!(decoded, (START_MS, commands));
        }
    }
}

#[test]
fn a_restart_alone_writes_nothing_and_forgets_nothing() -> Result<(), TestCaseError> {
    let mut replica = Replica::new()?;
    replica.apply(Batch::encode(START_MS, [Command::Release(Release {})]))?;
    let before = replica.store.clone();
    replica.restart()?;
    assert!(replica.store == before);
    assert_eq!(replica.machine.now_ms(), START_MS);
    Ok(())
}
