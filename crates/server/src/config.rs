//! The node's configuration: defaults, overridden by a TOML file, by `DWELL_*` variables, by flags.

mod check;
mod settings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use dwell_consensus::options::RaftOptions;
use dwell_consensus::types::{NodeAddress, NodeId};
use dwell_transport::TlsFiles;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::Dict;
use serde::{Deserialize, Serialize};

pub use self::check::Problem;
pub use self::settings::example;
use crate::access::TokenSettings;
use crate::tls;
use crate::watermarks::{WatermarkLimits, memory_available_bytes};

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
    /// TLS for clients: the certificate with those between it and its authority, in PEM. With it the key, too.
    pub client_tls_certificate_file: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    pub client_tls_key_file: Option<PathBuf>,
    /// The authorities of clients' certificates, in PEM: with it, clients must have one.
    pub client_tls_ca_file: Option<PathBuf>,
    /// Mutual TLS between nodes: this node's certificate, in PEM. All three or none.
    pub peer_tls_certificate_file: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    pub peer_tls_key_file: Option<PathBuf>,
    /// The authorities of the nodes' certificates, in PEM.
    pub peer_tls_ca_file: Option<PathBuf>,
    /// Tokens (JWT) prove users, too: the issuer's public keys, a JWKS. With it the two below.
    pub jwks_file: Option<PathBuf>,
    /// What a token's `iss` must be.
    pub jwt_issuer: String,
    /// What a token's `aud` must be, or contain.
    pub jwt_audience: String,
    /// Listen beyond loopback without TLS, or without `authentication`, in a network where everybody is trusted.
    pub allow_insecure: bool,
    /// Take calls only from users that prove who they are, and let each do what it may. Every node alike.
    pub authentication: bool,
    /// The first user, an administrator who may do everything: made when there are no users yet.
    pub initial_user: String,
    /// A file with the first user's password in its first line. Without it, and without users, nobody can log in.
    pub initial_password_file: Option<PathBuf>,
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
    /// How long a node that is told to stop lets calls under way go on, handing over the leadership included, in
    /// milliseconds. Less than what the supervisor grants before it kills.
    pub stop_timeout_ms: u64,
    /// Resident bytes of the process above which publishes are refused. 0: three quarters of what the machine has, or the
    /// process's control group is given.
    pub memory_watermark_bytes: u64,
    /// Bytes that must be free on the disk of `data_dir`; below, publishes are refused. 0: never.
    pub disk_free_watermark_bytes: u64,
    /// Publish calls that may wait to be committed; more are refused. 0: any.
    pub publishes_in_flight_max: u64,
    /// Bytes of bodies that may wait to be committed; more are refused. 0: any.
    pub publish_bytes_in_flight_max: u64,
    /// The OpenTelemetry collector that traces of messages are exported to, by OTLP over gRPC: `http://HOST:PORT` or
    /// `https://HOST:PORT`. None, or empty: none are made.
    pub otlp_endpoint: Option<String>,
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
    /// See [`Config::allow_insecure`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
}

/// A configuration that a node cannot be started with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not readable, or a value of the wrong kind.
    #[error("the configuration is not readable: {0}")]
    Read(#[from] Box<figment::Error>),
    /// Unknown keys, or values out of their limits: all of them.
    #[error("{}", check::lines(.0))]
    Problems(Vec<Problem>),
}

/// A value, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The setting.
    pub key: &'static str,
    /// As in a TOML file; none for nothing.
    pub value: Option<String>,
    /// The default, a file, the environment, or flags.
    pub source: String,
}

/// Variables of Dwell's other programs, which are not meant for a server.
const OTHER_VARIABLES: [&str; 5] =
    ["DWELL_SERVER", "DWELL_BINARY", "DWELL_TLS_CA", "DWELL_TLS_CERTIFICATE", "DWELL_TLS_KEY"];

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
            client_tls_certificate_file: None,
            client_tls_key_file: None,
            client_tls_ca_file: None,
            peer_tls_certificate_file: None,
            peer_tls_key_file: None,
            peer_tls_ca_file: None,
            allow_insecure: false,
            authentication: false,
            initial_user: "admin".to_owned(),
            initial_password_file: None,
            jwks_file: None,
            jwt_issuer: String::new(),
            jwt_audience: String::new(),
            body_bytes_max: 16 * 1024 * 1024,
            request_bytes_max: 32 * 1024 * 1024,
            state_memory_bytes: 256 * 1024 * 1024,
            snapshot_log_entries: raft.snapshot_log_entries,
            snapshot_log_bytes: raft.snapshot_log_bytes,
            snapshot_log_entries_kept: raft.snapshot_log_entries_kept,
            heartbeat_interval_ms: raft.heartbeat_interval.as_millis() as u64,
            election_timeout_ms_min: raft.election_timeout_min.as_millis() as u64,
            election_timeout_ms_max: raft.election_timeout_max.as_millis() as u64,
            stop_timeout_ms: 10_000,
            memory_watermark_bytes: 0,
            // Four segments of the log, and a snapshot of a small state.
            disk_free_watermark_bytes: 512 * 1024 * 1024,
            publishes_in_flight_max: 20_000,
            publish_bytes_in_flight_max: 256 * 1024 * 1024,
            otlp_endpoint: None,
        }
    }
}

impl Config {
    /// Reads the configuration from all its sources and checks it.
    pub fn load(file: Option<&Path>, overrides: ConfigOverrides) -> Result<Config, ConfigError> {
        Config::load_with_sources(file, overrides).map(|(config, _)| config)
    }

    /// The same, with every value and its source.
    pub fn load_with_sources(
        file: Option<&Path>,
        overrides: ConfigOverrides,
    ) -> Result<(Config, Vec<Effective>), ConfigError> {
        let mut unknown = misspelt_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()));
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        if let Some(file) = file {
            // `file_exact`: a path that is not there is an error, not an empty configuration.
            let content = Figment::from(Toml::file_exact(file));
            unknown.extend(unknown_keys(&content.extract::<Dict>().map_err(Box::new)?, file));
            figment = figment.merge(content);
        }
        if !unknown.is_empty() {
            return Err(ConfigError::Problems(unknown));
        }
        // The client's variables share the prefix; they are not the server's.
        let environment = Env::prefixed("DWELL_").filter(|key| settings::find(&key.as_str().to_lowercase()).is_some());
        let figment = figment.merge(environment).merge(Serialized::defaults(overrides));
        let config: Config = figment.extract().map_err(Box::new)?;
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(ConfigError::Problems(problems));
        }
        let values = settings::values(&config);
        let effective = |setting: &'static settings::Setting| Effective {
            key: setting.key,
            value: values.get(setting.key).and_then(settings::to_toml),
            source: source_of(&figment, setting.key),
        };
        let effective = settings::SETTINGS.iter().map(effective).collect();
        Ok((config, effective))
    }

    /// The files of the client port's TLS, if it has it.
    pub(crate) fn client_tls(&self) -> Option<TlsFiles> {
        tls::files(&self.client_tls_certificate_file, &self.client_tls_key_file, &self.client_tls_ca_file)
    }

    /// Whose tokens prove users, if any do.
    pub(crate) fn token_settings(&self) -> Option<TokenSettings> {
        let keys_file = self.jwks_file.clone()?;
        Some(TokenSettings { keys_file, issuer: self.jwt_issuer.clone(), audience: self.jwt_audience.clone() })
    }

    /// The files of the peer port's TLS, if it has it.
    pub(crate) fn peer_tls(&self) -> Option<TlsFiles> {
        tls::files(&self.peer_tls_certificate_file, &self.peer_tls_key_file, &self.peer_tls_ca_file)
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

    /// Where traces of messages are exported to.
    pub(crate) fn otlp_endpoint(&self) -> Option<&str> {
        self.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty())
    }

    /// Where publishes are refused.
    pub fn watermark_limits(&self) -> WatermarkLimits {
        let memory_bytes = match self.memory_watermark_bytes {
            0 => memory_available_bytes().map_or(0, |available| available / 4 * 3),
            bytes => bytes,
        };
        WatermarkLimits {
            memory_bytes,
            disk_free_bytes: self.disk_free_watermark_bytes,
            in_flight_bytes: self.publish_bytes_in_flight_max,
            in_flight: self.publishes_in_flight_max,
        }
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

/// Where a value comes from, for people.
fn source_of(figment: &Figment, key: &str) -> String {
    let Some(metadata) = figment.find_metadata(key) else { return "default".into() };
    match &metadata.source {
        Some(figment::Source::File(path)) => path.display().to_string(),
        _ if metadata.name.contains("environment") => format!("DWELL_{}", key.to_uppercase()),
        _ if metadata.name.ends_with("ConfigOverrides") => "flag".into(),
        _ => "default".into(),
    }
}

fn unknown_keys(content: &Dict, file: &Path) -> Vec<Problem> {
    let unknown = content.keys().filter(|key| settings::find(key).is_none());
    let problem = |key: &String| {
        let meant = settings::closest(key).map_or_else(String::new, |meant| format!(": did you mean `{meant}`?"));
        Problem { field: key.clone(), problem: format!("in {} is no setting{meant}", file.display()) }
    };
    unknown.map(problem).collect()
}

/// Variables that are no settings, and look like slips. Others are left alone: those of Dwell's other programs, and what
/// Kubernetes sets for a service named dwell (`DWELL_PORT`, `DWELL_SERVICE_HOST`, `DWELL_PORT_7600_TCP_ADDR`).
fn misspelt_variables(names: impl Iterator<Item = String>) -> Vec<Problem> {
    let slip = |name: String| {
        let key = name.strip_prefix("DWELL_")?.to_lowercase();
        if settings::find(&key).is_some() || OTHER_VARIABLES.contains(&name.as_str()) {
            return None;
        }
        let meant = settings::closest(&key)?.to_uppercase();
        let problem = format!("in the environment is no setting: did you mean `DWELL_{meant}`?");
        Some(Problem { field: name, problem })
    };
    names.filter_map(slip).collect()
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
        std::fs::write(&file, "node_id = 7\nsnapshot_log_entries = 90\n").unwrap();
        let overrides = ConfigOverrides { node_id: Some(8), ..ConfigOverrides::default() };
        let config = Config::load(Some(&file), overrides).unwrap();
        assert_eq!((config.node_id, config.snapshot_log_entries), (8, 90));
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
        assert!(error.to_string().contains("`members` must be empty with `join`"), "{error}");
        assert_eq!(Config::default().first_members().len(), 1);
    }

    #[test]
    fn a_port_that_others_can_reach_has_tls_or_is_said_to_need_none() {
        let open = |allow_insecure| {
            let client_address = Some(([0, 0, 0, 0], 7600).into());
            Config::load(None, ConfigOverrides { client_address, allow_insecure, ..ConfigOverrides::default() })
        };
        let error = open(None).unwrap_err().to_string();
        assert!(error.starts_with("`client_address` 0.0.0.0:7600 can be reached from other machines"), "{error}");
        assert!(open(Some(true)).is_ok());
    }

    #[test]
    fn a_collector_is_named_by_scheme_host_and_port() {
        let check = |endpoint: &str| {
            check::lines(&Config { otlp_endpoint: Some(endpoint.into()), ..Config::default() }.problems())
        };
        for endpoint in ["", "http://127.0.0.1:4317", "https://collector.example", "http://[::1]:4317/"] {
            assert_eq!(check(endpoint), "", "{endpoint}");
        }
        for endpoint in ["collector:4317", "grpc://collector:4317", "http://collector:4318/v1/traces", "http://", "a b"]
        {
            let problem = "must be http://HOST:PORT or https://HOST:PORT";
            assert_eq!(check(endpoint), format!("`otlp_endpoint` is `{endpoint}`: {problem}"));
        }
    }

    #[test]
    fn half_of_tls_is_refused() {
        let file = || Some(PathBuf::from("x.pem"));
        let check = |config: Config| check::lines(&config.problems());
        let certificate = Config { client_tls_certificate_file: file(), ..Config::default() };
        assert!(check(certificate.clone()).contains("`client_tls_key_file`"));
        assert_eq!(check(Config { client_tls_key_file: file(), ..certificate }), "");
        assert!(check(Config { client_tls_ca_file: file(), ..Config::default() }).starts_with("`client_tls_ca_file`"));
        let peer = Config { peer_tls_certificate_file: file(), peer_tls_key_file: file(), ..Config::default() };
        assert!(check(peer.clone()).contains("`peer_tls_ca_file`"));
        assert_eq!(check(Config { peer_tls_ca_file: file(), ..peer }), "");
    }

    #[test]
    fn unknown_keys_are_told_all_at_once_with_what_may_be_meant() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dwell.toml");
        std::fs::write(&file, "nod_id = 7\nsnapshot_log_entrys = 1\ncolour = 'red'\n").unwrap();
        let error = Config::load(Some(&file), ConfigOverrides::default()).unwrap_err().to_string();
        let wanted = [
            "`colour` in FILE is no setting",
            "`nod_id` in FILE is no setting: did you mean `node_id`?",
            "`snapshot_log_entrys` in FILE is no setting: did you mean `snapshot_log_entries`?",
        ];
        assert_eq!(error.replace(&file.display().to_string(), "FILE"), wanted.join("\n"));
    }

    #[test]
    fn a_misspelt_variable_is_refused_and_those_of_others_are_not() {
        let slips = |names: &[&str]| misspelt_variables(names.iter().map(|name| (*name).to_owned()));
        let found = slips(&["DWELL_NODEID", "DWELL_SERVER", "DWELL_PORT", "DWELL_SERVICE_HOST", "PATH"]);
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["`DWELL_NODEID` in the environment is no setting: did you mean `DWELL_NODE_ID`?"]
        );
        let kubernetes =
            ["DWELL_PORT_7600_TCP", "DWELL_PORT_7600_TCP_ADDR", "DWELL_CLIENT_SERVICE_PORT_GRPC", "DWELL_PEERS_PORT"];
        assert_eq!(slips(&kubernetes), []);
    }

    #[test]
    fn every_value_has_a_source_and_everything_wrong_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dwell.toml");
        std::fs::write(&file, "snapshot_log_entries = 900\n").unwrap();
        let overrides = ConfigOverrides { node_id: Some(3), ..ConfigOverrides::default() };
        let (_, effective) = Config::load_with_sources(Some(&file), overrides).unwrap();
        let of = |key: &str| {
            let found = effective.iter().find(|effective| effective.key == key).unwrap();
            (found.value.clone().unwrap_or_default(), found.source.clone())
        };
        assert_eq!(of("node_id"), ("3".into(), "flag".into()));
        assert_eq!(of("snapshot_log_entries"), ("900".into(), file.display().to_string()));
        assert_eq!(of("join"), ("false".into(), "default".into()));

        std::fs::write(&file, "state_memory_bytes = 0\nelection_timeout_ms_max = 100\n").unwrap();
        let error = Config::load(Some(&file), ConfigOverrides::default()).unwrap_err().to_string();
        assert_eq!(
            error,
            "`state_memory_bytes` is 0: must be from 8388608 to 1099511627776\n\
             `election_timeout_ms_max` is 100: must be more than `election_timeout_ms_min`, 250"
        );
    }

    #[test]
    fn what_is_named_must_be_there_and_nothing_is_written_to_see_it() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("new/data");
        assert_eq!(Config { data_dir: data_dir.clone(), ..Config::default() }.problems_here(), []);
        assert!(!directory.path().join("new").exists());
        std::fs::write(directory.path().join("new"), "a file").unwrap();
        let missing = || Some(directory.path().join("missing.pem"));
        let wrong = Config {
            data_dir,
            client_tls_certificate_file: missing(),
            client_tls_key_file: missing(),
            ..Config::default()
        };
        let problems: Vec<String> = wrong.problems_here().iter().map(ToString::to_string).collect();
        assert!(problems[0].contains("missing.pem") && problems[1].contains("is no directory"), "{problems:?}");
    }

    #[test]
    fn half_of_authentication_is_refused() {
        let check = |config: &Config| check::lines(&config.problems());
        let config = Config { initial_password_file: Some("secret".into()), ..Config::default() };
        assert_eq!(check(&config), "`initial_password_file` is of no use without `authentication`");
        assert_eq!(check(&Config { authentication: true, ..config }), "");
        let nameless = Config { initial_user: String::new(), ..Config::default() };
        assert!(check(&nameless).starts_with("`initial_user`"));
    }

    #[test]
    fn a_port_that_others_can_reach_tells_users_apart_or_is_said_to_need_none() {
        let file = || Some(PathBuf::from("x.pem"));
        let open = Config {
            client_address: ([0, 0, 0, 0], 7600).into(),
            client_tls_certificate_file: file(),
            client_tls_key_file: file(),
            ..Config::default()
        };
        let problems = check::lines(&open.problems());
        assert!(problems.contains("set `authentication`") && !problems.contains("has no TLS"), "{problems}");
        assert_eq!(check::lines(&Config { authentication: true, ..open.clone() }.problems()), "");
        assert_eq!(check::lines(&Config { allow_insecure: true, ..open }.problems()), "");
    }

    #[test]
    fn a_node_that_is_not_a_member_is_refused() {
        let members = Some(vec!["1=a:1,a:2".parse().unwrap()]);
        let overrides = ConfigOverrides { node_id: Some(2), members, ..ConfigOverrides::default() };
        let error = Config::load(None, overrides).unwrap_err();
        assert_eq!(error.to_string(), "`members` must contain this node, 2");
    }
}
