//! (e): the leader is killed, frozen or cut off, again and again: the longest time without a confirm.

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use dwell_load::{Produce, Until};

use super::{BODY, Contestant, consume, load, queue_names};
use crate::client::LoadProcess;
use crate::load::Assignment;
use crate::results::Outcome;
use crate::systems::network::Network;
use crate::systems::{Cluster, Kind, READY_TIMEOUT};

/// In the middle of the load, so that confirms flow evenly before.
const FAULT_AFTER: Duration = Duration::from_secs(2);
/// Long enough after it for another leader to be elected and for confirms to flow again. Should that take longer, the
/// load waits for the confirms that are missing: the gap is measured all the same.
const LOAD_SECONDS: f64 = 8.0;
/// Messages a second.
const RATE: f64 = 1000.0;
/// Producers, and unconfirmed messages of each: more than come in the longest gap, so that nobody is held up.
const WINDOW: (u32, usize) = (4, 4000);

/// What happens to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// `kill -9`.
    Kill,
    /// SIGSTOP, and SIGCONT after the load.
    Freeze,
    /// Its packets vanish, as if its host were lost. Needs root, and iproute2.
    Cut,
}

/// One fault, several times over one cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Failover {
    /// What happens to the leader.
    pub fault: Fault,
    /// How often.
    pub times: usize,
}

impl Failover {
    /// As the results name it.
    pub fn name(&self) -> String {
        match self.fault {
            Fault::Kill => "e: leader killed".to_owned(),
            Fault::Freeze => "e: leader frozen".to_owned(),
            Fault::Cut => "e: leader cut off".to_owned(),
        }
    }

    /// Measures it.
    pub async fn measure(&self, contestant: &Contestant, directory: &Path) -> anyhow::Result<Outcome> {
        let network = match self.fault {
            Fault::Cut => Network::namespaces()?,
            Fault::Kill | Fault::Freeze => Network::Loopback,
        };
        let mut cluster = contestant.start_in(directory, network).await?;
        let mut gaps_ms = Vec::new();
        for time in 0..self.times {
            let gap_ms = self.once(&mut cluster, time == 0).await?;
            eprintln!("{}, {}: {gap_ms:.0} ms", self.name(), contestant.label);
            gaps_ms.push(gap_ms);
        }
        cluster.stop().await?;
        gaps_ms.sort_by(f64::total_cmp);
        let mut outcome = Outcome::default();
        let at = |share: f64| gaps_ms.get(((gaps_ms.len() - 1) as f64 * share).round() as usize).copied();
        for (name, share) in [("shortest", 0.0), ("median", 0.5), ("longest", 1.0)] {
            outcome.set(format!("confirm_gap_{name}_ms"), at(share).unwrap_or(f64::NAN));
        }
        Ok(outcome)
    }

    /// The longest gap of one load with one fault in the middle.
    async fn once(&self, cluster: &mut Cluster, declare: bool) -> anyhow::Result<f64> {
        // Declared by a load of its own, so that it is known who leads before the producers choose a node.
        if declare {
            let nothing = Produce { until: Until::Messages(0), ..producing() };
            let mut declaring = LoadProcess::prepare(&load(cluster, 1, nothing, None)).await?;
            declaring.begin().await?;
            declaring.measured().await?;
            declaring.report().await?;
        }
        let leader = cluster.leader(&queue_names(1)[0]).await?;
        // Dwell's client goes to the leader, and must find the next one. The peers' producers are on other nodes, which
        // is kinder to them: their connections stay.
        let addresses = match cluster.kind {
            Kind::Dwell => cluster.addresses(),
            Kind::RabbitMq | Kind::Nats => cluster.addresses_without(leader),
        };
        let usual = load(cluster, 1, producing(), Some(consume()));
        let mut running = LoadProcess::prepare(&Assignment { addresses, declare: false, ..usual }).await?;
        running.begin().await?;
        tokio::time::sleep(FAULT_AFTER).await;
        match self.fault {
            Fault::Kill => cluster.kill(leader),
            Fault::Freeze => cluster.set_frozen(leader, true)?,
            Fault::Cut => cluster.set_cut(leader, true)?,
        }
        let measured = running.measured().await;
        match self.fault {
            Fault::Kill => cluster.start_missing()?,
            Fault::Freeze => cluster.set_frozen(leader, false)?,
            Fault::Cut => cluster.set_cut(leader, false)?,
        }
        measured?;
        let report = running.report().await?;
        cluster.wait_serving(READY_TIMEOUT).await?;
        anyhow::ensure!(report.lost == 0, "{} confirmed messages were lost", report.lost);
        Ok(report.confirm_gap_ms_max)
    }
}

fn producing() -> Produce {
    let (producers, in_flight) = WINDOW;
    let until = Until::Seconds(LOAD_SECONDS);
    Produce { producers, in_flight, body_bytes: BODY, until, rate: Some(RATE), due: None }
}
