//! What clients do to a cluster while it is being broken: a mixture of everything that the client library offers,
//! drawn from a seed, with every call and its answer in the history.

mod actor;
mod consuming;
mod finishing;
mod producing;
mod topology;

use std::time::Duration;

use dwell_client::{Client, Error};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::actor::Actor;
use crate::history::Recorder;

/// What to do, how fast and for how long. The same workload does the same in the same order, as far as the answers
/// allow.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Everything is drawn from it.
    pub seed: u64,
    /// For how long [`Workload::run`] begins new calls.
    pub duration: Duration,
    /// Processes that publish and revise. As many again consume by streams, and as many by single calls.
    pub processes: u32,
    /// Calls a second of those that publish and revise, all together.
    pub rate: f64,
    /// Recurring publications. Default: 4.
    pub schedules: u32,
    /// For how long [`Workload::finish`] waits at most until every queue is empty. Default: 60 s.
    pub quiescence_timeout: Duration,
}

impl Workload {
    /// A workload with the defaults.
    pub fn new(seed: u64, duration: Duration, processes: u32, rate: f64) -> Workload {
        Workload { seed, duration, processes, rate, schedules: 4, quiescence_timeout: Duration::from_secs(60) }
    }

    /// Declares queues, exchanges and schedules, before any fault. Errors: the first call that failed.
    pub async fn prepare(&self, client: &Client, recorder: &Recorder) -> Result<(), Error> {
        topology::declare(self, client, recorder).await
    }

    /// Publishes, consumes and revises for [`Workload::duration`]. Each process uses one of `clients`, in turn; none, and
    /// nothing is done. It ends when every call has ended.
    pub async fn run(&self, clients: Vec<Client>, recorder: &Recorder) {
        let end = Instant::now() + self.duration;
        let mut tasks = JoinSet::new();
        if clients.is_empty() {
            return;
        }
        let interval = Duration::from_secs_f64(f64::from(self.processes.max(1)) / self.rate.max(0.001));
        for (process, client) in (0..self.processes * 3).zip(clients.iter().cycle()) {
            let actor = self.actor(process, client.clone(), recorder);
            match process / self.processes {
                0 => tasks.spawn(producing::run(actor, interval, end)),
                1 => tasks.spawn(consuming::run_streams(actor, end)),
                _ => tasks.spawn(consuming::run_calls(actor, end)),
            };
        }
        // A panic of one ends the run: the history would miss what it did.
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// To be called after the last fault is healed and [`Recorder::healed`] was: stops the schedules, consumes until every
    /// queue is empty and `load`, which is what [`Workload::run`] gave, has ended, checks the order of priorities, and
    /// reads everything that still stands somewhere. False if some queue did not become empty within
    /// [`Workload::quiescence_timeout`].
    pub async fn finish(&self, clients: Vec<Client>, recorder: &Recorder, load: impl Future<Output = ()>) -> bool {
        finishing::run(self, clients, recorder, load).await
    }

    fn actor(&self, process: u32, client: Client, recorder: &Recorder) -> Actor {
        // Neighbouring seeds and processes are far apart.
        let seed =
            self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(process).wrapping_mul(0xd134_2543_de82_ef95);
        Actor::new(client, recorder.clone(), process, self.seed, StdRng::seed_from_u64(seed))
    }
}
