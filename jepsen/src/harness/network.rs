//! The network between nodes and clients, which can be cut, slowed and made to lose packets.

mod overhead;
mod rule;
mod switch;

use std::net::Ipv4Addr;

pub use self::overhead::Overhead;
pub use self::rule::LinkRule;
pub use self::switch::LinkTraffic;
use self::switch::Switch;
use crate::harness::NodeId;
use crate::harness::command::run;
use crate::harness::error::HarnessError;
use crate::harness::namespace::NamespaceThread;
use crate::harness::sandbox::{Abilities, NAME_PREFIX};

/// Where the clients are, among the places that links lead to. The nodes' places are their numbers.
pub const CLIENTS: u64 = 0;
/// The first three bytes of all addresses.
const NETWORK: [u8; 3] = [10, 213, 77];
/// The clients' last byte.
const CLIENTS_HOST: u8 = 254;

/// The network between nodes and clients. Dropping it removes the namespaces and devices.
#[derive(Debug)]
pub struct Network {
    nodes: u64,
    /// None: everything is on the loopback device, and nothing can be cut.
    switch: Option<Switch>,
    namespaces: Vec<String>,
}

impl Network {
    /// Makes a network for nodes 1 to `nodes`: with a namespace each if that is permitted, or else with loopback
    /// addresses.
    pub(crate) fn create(nodes: u64, seed: u64, abilities: &Abilities) -> Result<Network, HarnessError> {
        let mut network = Network { nodes, switch: None, namespaces: Vec::new() };
        if abilities.network.is_err() {
            return Ok(network);
        }
        let device = |place: u64| format!("{NAME_PREFIX}-{place}");
        let devices: Vec<String> = (0..=nodes).map(device).collect();
        let switch = Switch::start(&devices, seed, place_of)?;
        network.switch = Some(switch);
        for node in 1..=nodes {
            let (namespace, device) = (namespace_name(node), device(node));
            run("ip", &["netns", "add", &namespace])?;
            network.namespaces.push(namespace.clone());
            run("ip", &["link", "set", &device, "netns", &namespace])?;
            let inside = ["-n", &namespace];
            set_up(&inside, "lo", None)?;
            set_up(&inside, &device, Some(network.address(node)))?;
        }
        set_up(&[], &device(CLIENTS), Some(network.address(CLIENTS)))?;
        Ok(network)
    }

    /// The address of a node, or of the clients.
    pub fn address(&self, place: u64) -> Ipv4Addr {
        let host = if place == CLIENTS { CLIENTS_HOST } else { u8::try_from(place).unwrap_or(CLIENTS_HOST - 1) };
        if self.switch.is_none() {
            return Ipv4Addr::new(127, NETWORK[0], NETWORK[2], host);
        }
        let [first, second, third] = NETWORK;
        Ipv4Addr::new(first, second, third, host)
    }

    /// Whether links can be cut, slowed and made to lose packets.
    pub fn is_switched(&self) -> bool {
        self.switch.is_some()
    }

    /// The name of a node's network namespace, if it has one.
    pub(crate) fn namespace(&self, node: NodeId) -> Option<String> {
        self.is_switched().then(|| namespace_name(node))
    }

    /// Changes the rule of the link from one place to another, one way.
    pub fn change(&self, from: u64, to: u64, change: impl FnOnce(&mut LinkRule)) {
        if let Some(switch) = &self.switch {
            switch.change(from as usize, to as usize, change);
        }
    }

    /// Changes the rules of all links, also the clients'.
    pub fn change_all(&self, mut change: impl FnMut(&mut LinkRule)) {
        for from in 0..=self.nodes {
            for to in 0..=self.nodes {
                self.change(from, to, &mut change);
            }
        }
    }

    /// Lets everything pass everywhere.
    pub fn heal(&self) {
        self.change_all(|rule| *rule = LinkRule::default());
    }

    /// What went over a link so far, one way.
    pub fn traffic(&self, from: u64, to: u64) -> LinkTraffic {
        self.switch.as_ref().map(|switch| switch.traffic(from as usize, to as usize)).unwrap_or_default()
    }

    /// All that went over all links so far.
    pub fn traffic_total(&self) -> LinkTraffic {
        let mut total = LinkTraffic::default();
        for from in 0..=self.nodes {
            for to in 0..=self.nodes {
                let traffic = self.traffic(from, to);
                total.passed += traffic.passed;
                total.dropped += traffic.dropped;
            }
        }
        total
    }

    /// Measures what the switch costs: between the clients and node 1.
    pub fn measure(&self) -> Result<Overhead, HarnessError> {
        let server = NamespaceThread::start(self.namespace(1).as_deref())?;
        overhead::measure(&server, self.address(1))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The devices go with the switch, which holds them open.
        drop(self.switch.take());
        for namespace in &self.namespaces {
            if let Err(error) = run("ip", &["netns", "delete", namespace]) {
                tracing::warn!(%error, "a network namespace stays behind");
            }
        }
    }
}

fn namespace_name(node: NodeId) -> String {
    format!("{NAME_PREFIX}-{node}")
}

fn set_up(namespace: &[&str], device: &str, address: Option<Ipv4Addr>) -> Result<(), HarnessError> {
    let ip = |arguments: &[&str]| run("ip", &[namespace, arguments].concat());
    if let Some(address) = address {
        ip(&["address", "add", &format!("{address}/24"), "dev", device])?;
    }
    ip(&["link", "set", device, "up"])?;
    Ok(())
}

fn place_of(address: Ipv4Addr) -> Option<usize> {
    let [first, second, third, host] = address.octets();
    let place = if host == CLIENTS_HOST { CLIENTS as usize } else { usize::from(host) };
    ([first, second, third] == NETWORK).then_some(place)
}
