//! Free ports for servers.
//!
//! They are taken from outside the range that the kernel gives to outgoing connections: otherwise some client's
//! connection may sit on a server's port while that server is down, and the server cannot come back.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::error::LocalClusterError;

/// Where to look: below the usual ephemeral range, above what well-known services use.
const CANDIDATES: Range<u16> = 15_000..32_000;

const COUNT: u16 = CANDIDATES.end - CANDIDATES.start;

/// Offset of this process's first candidate. By lot, which keeps clusters of different processes apart.
static START: OnceLock<u16> = OnceLock::new();

/// How many candidates were looked at. With one start for the process, two clusters that start at the same time are
/// not given the same ports.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// Picks `wanted` ports of 127.0.0.1 that are free now, for servers that are started soon.
pub fn free_ports(wanted: usize) -> Result<Vec<u16>, LocalClusterError> {
    let start = START.get_or_init(|| rand::random_range(0..COUNT));
    let ephemeral = ephemeral_range();
    let mut picked = Vec::with_capacity(wanted);
    for _ in 0..COUNT {
        if picked.len() == wanted {
            break;
        }
        let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        let port = CANDIDATES.start + offset;
        if !ephemeral.contains(&port) && !picked.contains(&port) && is_free(port) {
            picked.push(port);
        }
    }
    if picked.len() < wanted {
        return Err(LocalClusterError::NoFreePorts { wanted });
    }
    Ok(picked)
}

/// True if a server could listen on this port of 127.0.0.1 now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Empty when the system does not say, or gives so much to outgoing connections that it cannot be avoided.
fn ephemeral_range() -> Range<u16> {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| parse_range(&text))
        .filter(|range| range.start > CANDIDATES.start + 1000)
        .unwrap_or(0..0)
}

fn parse_range(text: &str) -> Option<Range<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    let first = numbers.next()?.ok()?;
    let last = numbers.next()?.ok()?;
    Some(first..last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }

    #[test]
    fn picked_ports_are_distinct_and_outside_the_ephemeral_range() {
        let ports = free_ports(9).unwrap();
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 9);
        assert!(ports.iter().all(|port| !ephemeral_range().contains(port)), "{ports:?}");
    }

    #[test]
    fn reads_the_range_as_the_kernel_writes_it() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..61000));
        assert_eq!(parse_range("nonsense"), None);
    }
}
