//! The node's configuration: defaults, overridden by a TOML file, by `DWELL_*` variables, by flags.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use dwell_consensus::options::RaftOptions;
use dwell_consensus::types::{NodeAddress, NodeId};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

/// Everything a node is told at its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's id; one that no other node of the cluster has or ever had. From 1.
    pub node_id: NodeId,
    /// Where log, state and snapshots are kept.
    pub data_dir: PathBuf,
    /// Address for clients (gRPC). Loopback unless the operator says otherwise.
    pub client_address: SocketAddr,
    /// Address for the other nodes (gRPC).
    pub peer_address: SocketAddr,
    /// Address for metrics and health (HTTP).
    pub http_address: SocketAddr,
    /// The cluster's first members, the same on each of them. Empty: a cluster of this node alone.
    pub members: Vec<Member>,
    /// Start without members, and wait to be added to a cluster. A node that belongs to one already ignores it.
    pub join: bool,
    /// Largest body of a message, in bytes.
    pub body_bytes_max: usize,
    /// Largest request, in bytes; more than `body_bytes_max`.
    pub request_bytes_max: usize,
    /// Bytes of memory for the state's caches and write buffers.
    pub state_memory_bytes: usize,
    /// Log entries between two snapshots.
    pub snapshot_log_entries: u64,
    /// Bytes of the log at which a snapshot is made all the same.
    pub snapshot_log_bytes: u64,
    /// Log entries kept behind a snapshot, for followers that were away for a short time.
    pub snapshot_log_entries_kept: u64,
    /// How often a leader without traffic says that it lives, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Shortest silence after which a follower stands for election, in milliseconds.
    pub election_timeout_ms_min: u64,
    /// Longest such silence, in milliseconds.
    pub election_timeout_ms_max: u64,
}

/// A member of the first membership: `ID=PEER_ADDRESS,CLIENT_ADDRESS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The node's id.
    pub node_id: NodeId,
    /// host:port where the other nodes reach it.
    pub peer_address: String,
    /// host:port where clients reach it.
    pub client_address: String,
}

/// What flags say; `None` leaves it to the environment, the file and the defaults.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConfigOverrides {
    /// See [`Config::node_id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// See [`Config::data_dir`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// See [`Config::client_address`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_address: Option<SocketAddr>,
    /// See [`Config::peer_address`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<SocketAddr>,
    /// See [`Config::http_address`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_address: Option<SocketAddr>,
    /// See [`Config::members`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member>>,
    /// See [`Config::join`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<bool>,
}

/// A configuration that a node cannot be started with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not readable, or a value of the wrong kind, or an unknown key.
    #[error("the configuration is not readable: {0}")]
    Read(#[from] Box<figment::Error>),
    /// A value out of its limits.
    #[error("`{field}` {problem}")]
    Invalid {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        let raft = RaftOptions::default();
        Config {
            node_id: 1,
            data_dir: PathBuf::from("./dwell-data"),
            client_address: ([127, 0, 0, 1], 7600).into(),
            peer_address: ([127, 0, 0, 1], 7601).into(),
            http_address: ([127, 0, 0, 1], 7602).into(),
            members: Vec::new(),
            join: false,
            body_bytes_max: 16 * 1024 * 1024,
            request_bytes_max: 32 * 1024 * 1024,
            state_memory_bytes: 256 * 1024 * 1024,
            snapshot_log_entries: raft.snapshot_log_entries,
            snapshot_log_bytes: raft.snapshot_log_bytes,
            snapshot_log_entries_kept: raft.snapshot_log_entries_kept,
            heartbeat_interval_ms: raft.heartbeat_interval.as_millis() as u64,
            election_timeout_ms_min: raft.election_timeout_min.as_millis() as u64,
            election_timeout_ms_max: raft.election_timeout_max.as_millis() as u64,
        }
    }
}

impl Config {
    /// Reads the configuration from all its sources and checks it.
    pub fn load(file: Option<&Path>, overrides: ConfigOverrides) -> Result<Config, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        if let Some(file) = file {
            // `file_exact`: a path that is not there is an error, not an empty configuration.
            figment = figment.merge(Toml::file_exact(file));
        }
        // The client's variables share the prefix; they are not the server's.
        let environment = Env::prefixed("DWELL_").filter(|key| Config::has_key(key.as_str()));
        let config: Config =
            figment.merge(environment).merge(Serialized::defaults(overrides)).extract().map_err(Box::new)?;
        config.check()?;
        Ok(config)
    }

    fn has_key(key: &str) -> bool {
        let keys = figment::value::Value::serialize(Config::default());
        keys.is_ok_and(|value| value.as_dict().is_some_and(|dict| dict.contains_key(&key.to_lowercase())))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let invalid = |field, problem: String| Err(ConfigError::Invalid { field, problem });
        if self.node_id == 0 {
            return invalid("node_id", "must be at least 1".into());
        }
        if self.join && !self.members.is_empty() {
            return invalid("members", "must be empty with `join`: the cluster says who its members are".into());
        }
        if !self.members.is_empty() && !self.members.iter().any(|member| member.node_id == self.node_id) {
            return invalid("members", format!("must contain this node, {}", self.node_id));
        }
        let ids: std::collections::BTreeSet<_> = self.members.iter().map(|member| member.node_id).collect();
        if ids.len() != self.members.len() {
            return invalid("members", "name a node id twice".into());
        }
        if self.request_bytes_max <= self.body_bytes_max {
            return invalid(
                "request_bytes_max",
                format!("must be more than `body_bytes_max`, {}", self.body_bytes_max),
            );
        }
        if self.election_timeout_ms_min <= self.heartbeat_interval_ms {
            return invalid(
                "election_timeout_ms_min",
                format!("must be more than `heartbeat_interval_ms`, {}", self.heartbeat_interval_ms),
            );
        }
        if self.election_timeout_ms_max <= self.election_timeout_ms_min {
            return invalid(
                "election_timeout_ms_max",
                format!("must be more than `election_timeout_ms_min`, {}", self.election_timeout_ms_min),
            );
        }
        Ok(())
    }

    /// The first membership, this node's own if none is configured, and none if it is to join a cluster.
    pub fn first_members(&self) -> BTreeMap<NodeId, NodeAddress> {
        if self.join {
            return BTreeMap::new();
        }
        if self.members.is_empty() {
            let address = NodeAddress { peer: self.peer_address.to_string(), client: self.client_address.to_string() };
            return BTreeMap::from([(self.node_id, address)]);
        }
        let address =
            |member: &Member| NodeAddress { peer: member.peer_address.clone(), client: member.client_address.clone() };
        self.members.iter().map(|member| (member.node_id, address(member))).collect()
    }

    /// The part that is about Raft.
    pub fn raft_options(&self) -> RaftOptions {
        RaftOptions {
            heartbeat_interval: Duration::from_millis(self.heartbeat_interval_ms),
            election_timeout_min: Duration::from_millis(self.election_timeout_ms_min),
            election_timeout_max: Duration::from_millis(self.election_timeout_ms_max),
            snapshot_log_entries: self.snapshot_log_entries,
            snapshot_log_bytes: self.snapshot_log_bytes,
            snapshot_log_entries_kept: self.snapshot_log_entries_kept,
            ..RaftOptions::default()
        }
    }
}

/// A member that is not written as `ID=PEER_ADDRESS,CLIENT_ADDRESS`.
#[derive(Debug, thiserror::Error)]
#[error("a member is written ID=PEER_ADDRESS,CLIENT_ADDRESS, for instance 1=10.0.0.1:7601,10.0.0.1:7600")]
pub struct MemberError;

impl FromStr for Member {
    type Err = MemberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (node_id, addresses) = text.split_once('=').ok_or(MemberError)?;
        let (peer_address, client_address) = addresses.split_once(',').ok_or(MemberError)?;
        Ok(Member {
            node_id: node_id.trim().parse().map_err(|_| MemberError)?,
            peer_address: peer_address.trim().to_owned(),
            client_address: client_address.trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_which_wins_over_the_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dwell.toml");
        std::fs::write(&file, "node_id = 7\nsnapshot_log_entries = 9\n").unwrap();
        let overrides = ConfigOverrides { node_id: Some(8), ..ConfigOverrides::default() };
        let config = Config::load(Some(&file), overrides).unwrap();
        assert_eq!((config.node_id, config.snapshot_log_entries), (8, 9));
        assert_eq!(config.http_address, Config::default().http_address);
    }

    #[test]
    fn an_unknown_key_and_a_missing_file_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dwell.toml");
        assert!(Config::load(Some(&file), ConfigOverrides::default()).is_err());
        std::fs::write(&file, "nod_id = 7\n").unwrap();
        assert!(Config::load(Some(&file), ConfigOverrides::default()).is_err());
    }

    #[test]
    fn a_node_that_joins_has_no_members_of_its_own() {
        let overrides = ConfigOverrides { join: Some(true), ..ConfigOverrides::default() };
        assert!(Config::load(None, overrides.clone()).unwrap().first_members().is_empty());
        let members = Some(vec!["1=a:1,a:2".parse().unwrap()]);
        let error = Config::load(None, ConfigOverrides { members, ..overrides }).unwrap_err();
        assert!(error.to_string().starts_with("`members` must be empty with `join`"), "{error}");
        assert_eq!(Config::default().first_members().len(), 1);
    }

    #[test]
    fn a_node_that_is_not_a_member_is_refused() {
        let members = Some(vec!["1=a:1,a:2".parse().unwrap()]);
        let overrides = ConfigOverrides { node_id: Some(2), members, ..ConfigOverrides::default() };
        let error = Config::load(None, overrides).unwrap_err();
        assert_eq!(error.to_string(), "`members` must contain this node, 2");
    }
}
