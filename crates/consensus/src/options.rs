//! How a Raft group is tuned.

use std::time::Duration;

use openraft::{Config, ConfigError, SnapshotPolicy};

/// What an operator may tune of a Raft group. All nodes of a group should have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftOptions {
    /// How often a leader that has nothing to replicate says that it lives.
    pub heartbeat_interval: Duration,
    /// Shortest wait of a follower after its leader's lease has run out. More than the heartbeat interval.
    pub election_timeout_min: Duration,
    /// Longest such wait, and the length of a leader's lease. More than [`Self::election_timeout_min`].
    ///
    /// A follower that hears nothing waits for the lease, and then for its own timeout: an election by
    /// silence starts after `max + min..max`. By a broken connection it starts at once (see
    /// [`crate::peer`]). A leader that no majority has answered for the length of the lease takes no writes.
    pub election_timeout_max: Duration,
    /// Number of log entries between two snapshots.
    pub snapshot_log_entries: u64,
    /// A snapshot is also made when the node's log has grown to this many bytes: an entry may be small or large.
    pub snapshot_log_bytes: u64,
    /// Number of log entries kept behind a snapshot, for followers that were away for a short time.
    pub snapshot_log_entries_kept: u64,
    /// How long a snapshot's receiver may make no progress before the transfer is started afresh.
    pub snapshot_stall_timeout: Duration,
}

impl Default for RaftOptions {
    fn default() -> Self {
        Self {
            // A tenth of a millisecond of work per follower and beat; five beats to a lease, so that one or
            // two that are late or lost matter to nobody.
            heartbeat_interval: Duration::from_millis(100),
            // Ten times what a slow disk needs for an fsync (25 ms).
            election_timeout_min: Duration::from_millis(250),
            // Silence is answered within 0.75 to 1 s. Shorter would take a node that stalls on its disk or
            // its processor for a dead one.
            election_timeout_max: Duration::from_millis(500),
            snapshot_log_entries: 50_000,
            // Read again in half a minute at a start; half a minute of full load on a fast disk.
            snapshot_log_bytes: 2 << 30,
            snapshot_log_entries_kept: 2_000,
            snapshot_stall_timeout: Duration::from_secs(20),
        }
    }
}

/// Chunks in which snapshots are shipped, in bytes: large enough that a chunk's cost is its data, small enough
/// that a few in flight need little memory.
const SNAPSHOT_CHUNK_BYTES: u64 = 1024 * 1024;

/// openraft's configuration of a group. Refuses timeouts that contradict each other.
pub fn raft_config(options: &RaftOptions) -> Result<Config, ConfigError> {
    Config {
        cluster_name: "dwell".to_owned(),
        heartbeat_interval: millis(options.heartbeat_interval),
        election_timeout_min: millis(options.election_timeout_min),
        election_timeout_max: millis(options.election_timeout_max),
        // A node that was cut off, or whose log is old, asks before it raises the term, and so does not
        // disturb a leader that the others are content with.
        enable_pre_vote: Some(true),
        // A node whose files were damaged begins anew, and its log goes back. It was not in the elections meanwhile,
        // and its acknowledgements of before still count, as they must: see [`crate::recovery`].
        allow_log_reversion: Some(true),
        // A restarted leader must be elected again: its state machine runs without its own log on disk and
        // may be older than what it had confirmed, which only an election brings to light.
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_log_entries),
        max_in_snapshot_log_to_keep: options.snapshot_log_entries_kept,
        // Purging costs a marker in the log and is due only after a snapshot, when much is purged at once.
        purge_batch_size: 1,
        // How close a new learner must come before it counts as caught up. A follower is given a snapshot
        // only when the log it needs was purged: entries are cheaper to apply than gigabytes to ship.
        replication_lag_threshold: 1_000,
        // An entry is a batch of commands. The log reader bounds a request's bytes; this bounds the count of
        // small entries, so that a follower's answer, and with it a commit, does not wait for too many.
        max_payload_entries: 256,
        // One write to the log store; the same reasoning.
        max_append_entries: Some(1_024),
        install_snapshot_timeout: millis(options.snapshot_stall_timeout),
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        // Waiting proposals are batches too: a short queue is backpressure, a long one only latency.
        api_channel_size: Some(4_096),
        ..Config::default()
    }
    .validate()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_a_valid_configuration() {
        let config = raft_config(&RaftOptions::default()).unwrap();
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.snapshot_policy, SnapshotPolicy::LogsSinceLast(50_000));
    }

    #[test]
    fn silence_is_answered_within_a_second() {
        let options = RaftOptions::default();
        assert!(options.election_timeout_max * 2 <= Duration::from_secs(1));
    }

    #[test]
    fn an_election_timeout_below_the_heartbeat_is_refused() {
        let options = RaftOptions { heartbeat_interval: Duration::from_millis(300), ..RaftOptions::default() };
        assert!(raft_config(&options).is_err());
    }
}
