//! Which pod this is, and where it and the others are reached.

use std::str::FromStr;

/// A StatefulSet's pods that are asked for the cluster: a founder that has lost its data must hear of the cluster from
/// any pod that there may be.
pub const PODS_ASKED_MAX: u32 = 16;
/// What stands for a pod's number in a host's name.
const ORDINAL: &str = "{ordinal}";

/// Names that say nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Pods of a StatefulSet end with their number.
    #[error("the pod's name must end with a hyphen and its number, as dwell-0 does, and not be `{0}`")]
    PodName(String),
    /// All pods would have one address.
    #[error("the host's name must hold {ORDINAL} once, as in dwell-{ORDINAL}.dwell-peers, and not be `{0}`")]
    Host(String),
}

/// The pods' host names, with a gap for their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTemplate {
    before: String,
    after: String,
}

impl FromStr for HostTemplate {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(ORDINAL) {
            Some((before, after)) if !after.contains(ORDINAL) => {
                Ok(HostTemplate { before: before.to_owned(), after: after.to_owned() })
            }
            _ => Err(PlaceError::Host(text.to_owned())),
        }
    }
}

impl HostTemplate {
    /// The host of a pod.
    pub fn host(&self, ordinal: u32) -> String {
        format!("{}{ordinal}{}", self.before, self.after)
    }

    /// The pod that has this address; none if it is no pod's.
    pub fn ordinal(&self, address: &str) -> Option<u32> {
        let (host, _port) = address.rsplit_once(':')?;
        let ordinal = host.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        // Not `+1` nor `01`, which are other names.
        ordinal.parse().ok().filter(|number: &u32| number.to_string() == ordinal)
    }
}

/// The ports of all pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// For clients.
    pub client: u16,
    /// For the other nodes.
    pub peer: u16,
    /// For metrics and health.
    pub http: u16,
}

/// A pod among its like.
#[derive(Debug, Clone)]
pub struct Place {
    /// The pod's number, from 0.
    pub ordinal: u32,
    /// How many pods form the cluster.
    pub founders: u32,
    /// Where pods are reached.
    pub hosts: HostTemplate,
    /// And there.
    pub ports: Ports,
}

impl Place {
    /// The number at the end of a pod's name.
    pub fn ordinal_of(pod_name: &str) -> Result<u32, PlaceError> {
        let number = pod_name.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
        number.ok_or_else(|| PlaceError::PodName(pod_name.to_owned()))
    }

    /// Where the other nodes reach a pod.
    pub fn peer_address(&self, ordinal: u32) -> String {
        format!("{}:{}", self.hosts.host(ordinal), self.ports.peer)
    }

    /// Where clients reach a pod.
    pub fn client_address(&self, ordinal: u32) -> String {
        format!("{}:{}", self.hosts.host(ordinal), self.ports.client)
    }

    /// Where a pod serves metrics and health.
    pub fn http_address(&self, ordinal: u32) -> String {
        format!("{}:{}", self.hosts.host(ordinal), self.ports.http)
    }

    /// The other pods that there may be.
    pub fn others(&self) -> impl Iterator<Item = u32> + use<> {
        let own = self.ordinal;
        (0..PODS_ASKED_MAX.max(self.founders)).filter(move |ordinal| *ordinal != own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_the_number_at_the_end_of_its_name() {
        assert_eq!(Place::ordinal_of("my-dwell-12"), Ok(12));
        for wrong in ["dwell", "dwell-", "dwell-x", ""] {
            assert_eq!(Place::ordinal_of(wrong), Err(PlaceError::PodName(wrong.into())));
        }
    }

    #[test]
    fn addresses_are_made_from_the_number_and_say_it() {
        let hosts: HostTemplate = "dwell-{ordinal}.peers.ns.svc".parse().unwrap();
        assert_eq!(hosts.host(3), "dwell-3.peers.ns.svc");
        assert_eq!(hosts.ordinal("dwell-3.peers.ns.svc:7601"), Some(3));
        for other in ["dwell-3.peers.ns.svc", "dwell-3.peers:7601", "dwell-03.peers.ns.svc:1", "dwell-x.peers.ns.svc:1"]
        {
            assert_eq!(hosts.ordinal(other), None, "{other}");
        }
        for wrong in ["dwell-0.peers", "{ordinal}-{ordinal}"] {
            assert_eq!(wrong.parse::<HostTemplate>(), Err(PlaceError::Host(wrong.into())));
        }
    }
}
