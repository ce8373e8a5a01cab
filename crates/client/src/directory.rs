//! Whom to address: the given addresses, the learned ones, and who leads as far as is known.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dwell_proto::metadata;
use parking_lot::Mutex;
use tonic::metadata::MetadataMap;

/// For how long an address that could not be reached is passed over, and not believed to lead: the other nodes
/// name a dead leader until they have elected another.
const SHUN: Duration = Duration::from_millis(300);
/// Most addresses learned from the cluster that are kept.
const LEARNED_MAX: usize = 32;

/// The client's knowledge of the nodes, shared by all its calls.
#[derive(Debug)]
pub(crate) struct Directory {
    follow_leader: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The given addresses first, then the learned ones.
    addresses: Vec<String>,
    given: usize,
    leader: Option<String>,
    failed_at: HashMap<String, Instant>,
    /// Position in `addresses` to try next while no leader is known.
    next: usize,
}

impl Directory {
    /// `addresses` is not empty.
    pub(crate) fn new(addresses: Vec<String>, follow_leader: bool) -> Directory {
        // Many clients with one list should not all begin with its first node.
        let next = rand::random_range(0..addresses.len().max(1));
        let given = addresses.len();
        let state = State { addresses, given, leader: None, failed_at: HashMap::new(), next };
        Directory { follow_leader, state: Mutex::new(state) }
    }

    /// The address for the next attempt: the leader, or else one that has not just failed.
    pub(crate) fn choose(&self) -> String {
        let state = &mut *self.state.lock();
        if let Some(leader) = &state.leader {
            return leader.clone();
        }
        let count = state.addresses.len();
        for step in 0..count {
            let position = (state.next + step) % count;
            if state.failed_at.get(&state.addresses[position]).is_none_or(|at| at.elapsed() >= SHUN) {
                state.next = position;
                break;
            }
        }
        state.addresses[state.next % count].clone()
    }

    /// Every address known, the given ones first.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.state.lock().addresses.clone()
    }

    /// The leader's address, if it is known and to be followed.
    pub(crate) fn leader(&self) -> Option<String> {
        self.state.lock().leader.clone()
    }

    /// The address could not be reached, or its connection broke.
    pub(crate) fn unreachable(&self, address: &str) {
        let mut state = self.state.lock();
        state.failed_at.insert(address.to_owned(), Instant::now());
        state.pass_over(address);
    }

    /// The node answered that it cannot serve now.
    pub(crate) fn not_ready(&self, address: &str) {
        self.state.lock().pass_over(address);
    }

    /// Takes what a response says about the leader.
    pub(crate) fn observe(&self, response: &MetadataMap) {
        if let Some(leader) = response.get(metadata::LEADER).and_then(|value| value.to_str().ok()) {
            self.learn_leader(leader);
        }
    }

    /// Somebody names this address as the leader's.
    pub(crate) fn learn_leader(&self, leader: &str) {
        if !self.follow_leader || leader.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if state.failed_at.get(leader).is_some_and(|at| at.elapsed() < SHUN) {
            return;
        }
        if state.leader.as_deref() != Some(leader) {
            tracing::debug!(leader, "the leader is known");
            state.leader = Some(leader.to_owned());
        }
    }

    /// The cluster's members, by their own account. Former members are forgotten.
    pub(crate) fn learn_members<'a>(&self, members: impl Iterator<Item = &'a str>) {
        if !self.follow_leader {
            return;
        }
        let mut state = self.state.lock();
        let given = state.given;
        state.addresses.truncate(given);
        for member in members.filter(|member| !member.is_empty()).take(LEARNED_MAX) {
            if !state.addresses.iter().any(|address| address == member) {
                state.addresses.push(member.to_owned());
            }
        }
        let State { addresses, failed_at, .. } = &mut *state;
        failed_at.retain(|address, _| addresses.contains(address));
    }
}

impl State {
    fn pass_over(&mut self, address: &str) {
        if self.leader.as_deref() == Some(address) {
            self.leader = None;
        }
        if self.addresses.get(self.next % self.addresses.len()).is_some_and(|next| next == address) {
            self.next = (self.next + 1) % self.addresses.len();
        }
        // A leader that was named in a response, and is no member, leaves no trace behind.
        let State { addresses, failed_at, .. } = self;
        failed_at.retain(|address, at| addresses.contains(address) || at.elapsed() < SHUN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        Directory::new(vec!["a:1".into(), "b:1".into(), "c:1".into()], true)
    }

    #[test]
    fn the_leader_is_addressed_until_it_fails() {
        let directory = directory();
        directory.learn_leader("b:1");
        assert_eq!(directory.choose(), "b:1");
        directory.unreachable("b:1");
        assert_ne!(directory.choose(), "b:1");
    }

    #[test]
    fn an_address_that_just_failed_is_not_believed_to_lead() {
        let directory = directory();
        directory.unreachable("b:1");
        directory.learn_leader("b:1");
        assert_eq!(directory.leader(), None);
        directory.learn_leader("c:1");
        assert_eq!(directory.leader().as_deref(), Some("c:1"));
    }

    #[test]
    fn nodes_that_cannot_serve_are_tried_in_turn() {
        let directory = directory();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let address = directory.choose();
            directory.not_ready(&address);
            seen.insert(address);
        }
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn when_everything_failed_something_is_tried_all_the_same() {
        let directory = directory();
        for address in directory.addresses() {
            directory.unreachable(&address);
        }
        assert!(directory.addresses().contains(&directory.choose()));
    }
}
