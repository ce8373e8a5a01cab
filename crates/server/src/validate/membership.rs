//! Requests that change who belongs to the cluster.

use std::time::Duration;

use dwell_consensus::types::{NodeAddress, NodeId};
use dwell_proto::v1;

use super::{Checked, invalid, within};

/// How long a new member may take to catch up, where the request does not say.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest it may say.
const CATCH_UP_TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Longest name of a host, with its port.
const ADDRESS_BYTES_MAX: usize = 255;

/// A node that is to be a member.
#[derive(Debug, PartialEq, Eq)]
pub struct NewMember {
    /// Its id.
    pub node_id: NodeId,
    /// Where it is reached.
    pub address: NodeAddress,
    /// How long it may take to catch up.
    pub catch_up_timeout: Duration,
}

/// Checks a node's id.
pub fn node_id(field: &str, node_id: u64) -> Checked<()> {
    if node_id == 0 { invalid(field, "must be at least 1") } else { Ok(()) }
}

/// Checks a node that is to be a member.
pub fn add_member(request: v1::AddMemberRequest) -> Checked<NewMember> {
    node_id("node_id", request.node_id)?;
    address("peer_address", &request.peer_address)?;
    address("client_address", &request.client_address)?;
    if request.peer_address == request.client_address {
        return invalid("client_address", "must be another one than `peer_address`");
    }
    let catch_up_timeout = match request.catch_up_timeout_ms {
        0 => CATCH_UP_TIMEOUT,
        timeout => Duration::from_millis(within("catch_up_timeout_ms", timeout, 0, CATCH_UP_TIMEOUT_MS_MAX)?),
    };
    let address = NodeAddress { peer: request.peer_address, client: request.client_address };
    Ok(NewMember { node_id: request.node_id, address, catch_up_timeout })
}

/// Checks host:port.
fn address(field: &str, address: &str) -> Checked<()> {
    if address.len() > ADDRESS_BYTES_MAX {
        return invalid(field, format!("must have at most {ADDRESS_BYTES_MAX} bytes, not {}", address.len()));
    }
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_host =
        |host: &str| !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/');
    if address.rsplit_once(':').is_none_or(|(host, port)| !is_host(host) || !is_port(port)) {
        return invalid(field, "must be host:port, with a port of 1 to 65535");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::AddMemberRequest {
        v1::AddMemberRequest {
            node_id: 4,
            peer_address: "dwell-4.dwell:7601".into(),
            client_address: "[::1]:7600".into(),
            catch_up_timeout_ms: 0,
        }
    }

    #[test]
    fn a_member_has_an_id_and_two_addresses() {
        assert_eq!(add_member(request()).unwrap().catch_up_timeout, CATCH_UP_TIMEOUT);
        for wrong in ["", "host", "host:", ":7600", "host:0", "host:65536", "a b:1", "http://a:1", &"x".repeat(300)] {
            let refused = |request| add_member(request).unwrap_err().field;
            assert_eq!(refused(v1::AddMemberRequest { peer_address: wrong.into(), ..request() }), "peer_address");
            assert_eq!(refused(v1::AddMemberRequest { client_address: wrong.into(), ..request() }), "client_address");
        }
        let same = v1::AddMemberRequest { client_address: request().peer_address, ..request() };
        assert_eq!(add_member(same).unwrap_err().field, "client_address");
        assert_eq!(add_member(v1::AddMemberRequest { node_id: 0, ..request() }).unwrap_err().field, "node_id");
    }

    #[test]
    fn the_time_to_catch_up_is_bounded() {
        let of = |catch_up_timeout_ms| add_member(v1::AddMemberRequest { catch_up_timeout_ms, ..request() });
        assert_eq!(of(1).unwrap().catch_up_timeout, Duration::from_millis(1));
        assert!(of(-1).is_err() && of(3_600_001).is_err());
    }
}
