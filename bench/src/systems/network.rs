//! Where the nodes are: all on loopback, or each in a network namespace of its own, which can be cut off.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Context as _;

use super::NODES;

/// Begins the names of namespaces and devices.
const PREFIX: &str = "dwell-bn";
/// The first three bytes of the namespaces' addresses.
const NET: [u8; 3] = [10, 213, 78];
/// The last byte of this side's address.
const CLIENTS: u8 = 254;

/// Where the nodes are.
#[derive(Debug)]
pub enum Network {
    /// All on 127.0.0.1.
    Loopback,
    /// Each in a network namespace, on one bridge with the clients.
    Namespaces(Namespaces),
}

/// Namespaces and devices. Dropping it removes them.
#[derive(Debug)]
pub struct Namespaces(());

impl Network {
    /// Makes a namespace for each node. Needs root, and iproute2.
    pub fn namespaces() -> anyhow::Result<Network> {
        remove();
        let namespaces = Namespaces(());
        let bridge = format!("{PREFIX}-br");
        let [a, b, c] = NET;
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["address", "add", &format!("{a}.{b}.{c}.{CLIENTS}/24"), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for node in 0..NODES {
            let (name, outside) = (namespace(node), device(node));
            ip(&["netns", "add", &name])?;
            ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            ip(&["link", "set", &outside, "master", &bridge, "up"])?;
            ip(&["-n", &name, "address", "add", &format!("{}/24", address(node)), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(Network::Namespaces(namespaces))
    }

    /// The address of a node.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        match self {
            Network::Loopback => Ipv4Addr::LOCALHOST,
            Network::Namespaces(_) => address(node),
        }
    }

    /// Ports for a node's services that are free on its address.
    pub fn ports(&self, wanted: usize) -> anyhow::Result<Vec<u16>> {
        Ok(dwell_local_cluster::free_ports(wanted)?)
    }

    /// The same command, run where the node is.
    pub fn inside(&self, node: usize, command: Command) -> Command {
        let Network::Namespaces(_) = self else { return command };
        // `ip` replaces itself by the program: there is no process more.
        let mut wrapped = Command::new("ip");
        wrapped.args(["netns", "exec", &namespace(node)]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        wrapped
    }

    /// Cuts a node off from everybody, or joins it again: its packets vanish, and nobody is told.
    pub fn set_cut(&self, node: usize, cut: bool) -> anyhow::Result<()> {
        anyhow::ensure!(matches!(self, Network::Namespaces(_)), "a node on loopback cannot be cut off");
        // Off the bridge, but up: to the node all looks as before.
        let outside = device(node);
        match cut {
            true => ip(&["link", "set", &outside, "nomaster"]),
            false => ip(&["link", "set", &outside, "master", &format!("{PREFIX}-br")]),
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove();
    }
}

/// Removes what is there, also of an earlier run that was killed.
fn remove() {
    let quietly = |arguments: &[&str]| {
        // Most of it is not there, most of the time.
        let _ = Command::new("ip").args(arguments).output();
    };
    for node in 0..NODES {
        quietly(&["netns", "delete", &namespace(node)]);
        quietly(&["link", "delete", &device(node)]);
    }
    quietly(&["link", "delete", &format!("{PREFIX}-br")]);
}

fn address(node: usize) -> Ipv4Addr {
    let [a, b, c] = NET;
    Ipv4Addr::new(a, b, c, u8::try_from(node + 1).unwrap_or(CLIENTS - 1))
}

fn namespace(node: usize) -> String {
    format!("{PREFIX}-{}", node + 1)
}

fn device(node: usize) -> String {
    format!("{PREFIX}-v{}", node + 1)
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot run `ip` (iproute2)")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "`ip {}`: {}", arguments.join(" "), errors.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_loopback_a_command_stays_as_it_is_and_nothing_can_be_cut() {
        let command = Network::Loopback.inside(1, Command::new("true"));
        assert_eq!(command.get_program(), "true");
        assert!(Network::Loopback.set_cut(0, true).is_err());
    }
}
