//! `dwell pod`: a node in a pod of a Kubernetes StatefulSet.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use dwell_client::Client;
use dwell_server::{Config, ConfigOverrides, Member};
use dwell_storage::enrolment::Enrolment;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::GlobalArguments;
use crate::logging::{self, LogFormat};
use crate::output;
use crate::pod::{self, HostTemplate, Place, Ports};
use crate::times::parse_duration;

/// The chart grants a little more.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub struct PodArguments {
    #[command(subcommand)]
    command: PodCommand,
}

#[derive(Debug, Subcommand)]
enum PodCommand {
    /// Run the pod's node: form the cluster with the other founders, or join the one that there is
    Run(RunArguments),
    /// Before the pod is stopped: hand the leadership over if its node leads, and wait until nobody is sent here any more
    Stop {
        /// How long clients may still be sent to a pod that is to stop
        #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
        wait: Duration,
    },
    /// Remove the members in pods that are to go, before they are scaled away. Safe to repeat
    Prune {
        /// How many pods are to stay: dwell-0 up to that, without it
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
        replicas: u32,
        /// The pods' host names, with {ordinal} for their number
        #[arg(long, value_name = "HOST")]
        host: HostTemplate,
    },
}

/// Settings are those of `dwell server`, from the file and `DWELL_*` variables; the node's id, the members and whether it
/// joins are found out.
#[derive(Debug, Args)]
struct RunArguments {
    /// A TOML file with the configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The pod's name, which ends with its number
    #[arg(long, value_name = "NAME")]
    pod_name: String,
    /// How many pods form the cluster, from the first on. Not to be changed when there are more or fewer pods later
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=16))]
    founders: u32,
    /// The pods' host names, with {ordinal} for their number
    #[arg(long, value_name = "HOST")]
    host: HostTemplate,
    /// How to write the log. RUST_LOG chooses what is written
    #[arg(long, value_enum, default_value = "json")]
    log_format: LogFormat,
}

pub async fn run(global: &GlobalArguments, arguments: PodArguments) -> anyhow::Result<()> {
    match arguments.command {
        PodCommand::Run(arguments) => serve(global, arguments).await,
        PodCommand::Stop { wait } => {
            logging::start(LogFormat::Text, "warn");
            stop(global, wait).await
        }
        PodCommand::Prune { replicas, host } => {
            logging::start(LogFormat::Text, "warn");
            let client = global.streaming_client()?;
            pod::remove_from(&client, &host, replicas, |pod::Removed { ordinal, node_id }| {
                let text = format!("node {node_id} of pod {ordinal} is no member any more");
                output::say(global.output, text, json!({ "ordinal": ordinal, "node_id": node_id }))
            })
            .await
        }
    }
}

async fn serve(global: &GlobalArguments, arguments: RunArguments) -> anyhow::Result<()> {
    logging::start(arguments.log_format, "info,openraft=warn,raft_engine=warn");
    let mut config =
        Config::load(arguments.config.as_deref(), ConfigOverrides::default()).context("the node cannot start")?;
    let place = Place {
        ordinal: Place::ordinal_of(&arguments.pod_name)?,
        founders: arguments.founders,
        hosts: arguments.host,
        ports: Ports {
            client: config.client_address.port(),
            peer: config.peer_address.port(),
            http: config.http_address.port(),
        },
    };
    let options = global.streaming_options()?;
    // The first process of a container gets no signal that it does not ask for.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let enrolment = tokio::select! {
        enrolled = pod::enrol(&place, &config.data_dir, config.http_address, &options) => enrolled?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    drop((terminate, interrupt));
    take_place(&mut config, &place, &enrolment);
    let seeds = place.others().chain([place.ordinal]).map(|ordinal| place.client_address(ordinal));
    let client = Client::connect_with(seeds, options)?;
    let belonging = async {
        pod::belong(&client, &place, enrolment.node_id).await;
        std::future::pending().await
    };
    tokio::select! {
        served = dwell_server::run(config) => served.context("the node has stopped"),
        never = belonging => never,
    }
}

/// Says in the node's configuration what was found out.
fn take_place(config: &mut Config, place: &Place, enrolment: &Enrolment) {
    config.node_id = enrolment.node_id;
    config.join = !enrolment.is_founder;
    let founders = if enrolment.is_founder { place.founders } else { 0 };
    let member = |ordinal: u32| Member {
        node_id: u64::from(ordinal) + 1,
        peer_address: place.peer_address(ordinal),
        client_address: place.client_address(ordinal),
    };
    config.members = (0..founders).map(member).collect();
}

/// Fails for nothing: the pod is stopped all the same.
async fn stop(global: &GlobalArguments, wait: Duration) -> anyhow::Result<()> {
    let withdrawn = tokio::time::Instant::now() + wait;
    let address = global.server.first().context("no server is named")?;
    let client = global.client()?;
    let text = match tokio::time::timeout(HAND_OVER_TIMEOUT, pod::hand_over(&client, address)).await {
        Ok(Ok(Some(leader_id))) => format!("handed over: node {leader_id} leads"),
        Ok(Ok(None)) => "another node leads".to_owned(),
        Ok(Err(error)) => format!("the leadership was not handed over: {error}"),
        Err(_) => format!("the leadership was not handed over within {HAND_OVER_TIMEOUT:?}"),
    };
    output::say(global.output, &text, json!({ "outcome": text }))?;
    tokio::time::sleep_until(withdrawn).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dwell_storage::enrolment::Phase;

    #[test]
    fn a_founder_has_the_founders_as_members_and_a_joiner_none() {
        let ports = Ports { client: 7600, peer: 7601, http: 7602 };
        let place = Place { ordinal: 1, founders: 3, hosts: "d-{ordinal}.p".parse().unwrap(), ports };
        let founder = Enrolment { node_id: 2, is_founder: true, phase: Phase::Started };
        let mut config = Config::default();
        take_place(&mut config, &place, &founder);
        assert_eq!((config.node_id, config.join, config.members.len()), (2, false, 3));
        assert_eq!(config.members[2], "3=d-2.p:7601,d-2.p:7600".parse().unwrap());
        // One that was a founder, lost its data, and joins.
        take_place(&mut config, &place, &Enrolment { node_id: 7_002, is_founder: false, ..founder });
        assert_eq!((config.node_id, config.join, config.members.len()), (7_002, true, 0));
    }
}
