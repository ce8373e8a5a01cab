//! The settings, one by one: what each is, and why it is as it is. The annotated example and the table in
//! `docs/operations.md` are made from this; a setting without an entry fails a test.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use figment::value::{Dict, Num, Value};

use super::Config;

/// What there is to be said of a setting.
pub(super) struct Setting {
    /// Its key in the file. As a variable it is in capitals, after `DWELL_`.
    pub key: &'static str,
    /// What it is, and why, in sentences.
    pub about: &'static str,
    /// What a number may be.
    pub limits: Option<RangeInclusive<u64>>,
    /// What it looks like, if its default is nothing.
    pub example: &'static str,
}

const fn text(key: &'static str, about: &'static str) -> Setting {
    Setting { key, about, limits: None, example: "" }
}

const fn file(key: &'static str, example: &'static str, about: &'static str) -> Setting {
    Setting { key, about, limits: None, example }
}

const fn number(key: &'static str, limits: RangeInclusive<u64>, about: &'static str) -> Setting {
    Setting { key, about, limits: Some(limits), example: "" }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const HOUR_MS: u64 = 60 * 60 * 1000;

/// All of them, in the order in which they are shown.
pub(super) const SETTINGS: &[Setting] = &[
    number(
        "node_id",
        1..=i64::MAX as u64,
        "This node's number, unique in the cluster for ever: never give a removed node's to another, which would be taken for it, votes included.",
    ),
    text(
        "data_dir",
        "Log, state and snapshots. Never wipe it silently: a node that forgets its vote can lose confirmed messages.",
    ),
    text("client_address", "Where to listen for clients (gRPC). Loopback until you say otherwise."),
    text("peer_address", "Where to listen for the other nodes (gRPC)."),
    text("http_address", "Where to serve metrics and health (HTTP, without TLS)."),
    file(
        "members",
        r#"[{ node_id = 1, peer_address = "10.0.0.1:7601", client_address = "10.0.0.1:7600" }]"#,
        "The first membership, the same on every node; `--member ID=PEER,CLIENT`, repeated. None: a cluster of this node alone. Only read by a node without data: later the log says who belongs.",
    ),
    text(
        "join",
        "Start without members and wait for `dwell cluster add`; `--join`. `members` must be empty then. Ignored by a node that belongs to a cluster already.",
    ),
    file(
        "client_tls_certificate_file",
        r#""/etc/dwell/tls/tls.crt""#,
        "TLS for clients: the certificate with those between it and its authority, in PEM. See security.md.",
    ),
    file("client_tls_key_file", r#""/etc/dwell/tls/tls.key""#, "The private key of that certificate, in PEM."),
    file(
        "client_tls_ca_file",
        r#""/etc/dwell/tls/clients-ca.crt""#,
        "The authorities of clients' certificates, in PEM: with it, clients must have one.",
    ),
    file(
        "peer_tls_certificate_file",
        r#""/etc/dwell/tls/tls.crt""#,
        "Mutual TLS between nodes: this node's certificate, in PEM. All three or none.",
    ),
    file("peer_tls_key_file", r#""/etc/dwell/tls/tls.key""#, "The private key of that certificate, in PEM."),
    file("peer_tls_ca_file", r#""/etc/dwell/tls/ca.crt""#, "The authorities of the nodes' certificates, in PEM."),
    text(
        "authentication",
        "Take calls only from users that prove who they are, and let each do what it may: security.md. The same on every node.",
    ),
    text("initial_user", "The first user, an administrator who may do everything; made when there are no users yet."),
    file(
        "initial_password_file",
        "/etc/dwell/admin-password",
        "A file with the first user's password, 8 to 1024 bytes, in its first line. Without it, and without users, nobody can log in.",
    ),
    file(
        "jwks_file",
        "/etc/dwell/jwks.json",
        "Tokens (JWT) prove users, too: the issuer's public keys, a JWKS, read again when it changes. With it the two below.",
    ),
    text("jwt_issuer", "What a token's `iss` must be."),
    text("jwt_audience", "What a token's `aud` must be, or contain: so that tokens for others are of no use here."),
    text(
        "allow_insecure",
        "Listen beyond loopback without TLS, or without `authentication`, in a network where everybody is trusted; `--allow-insecure`. Otherwise a node with such an address does not start.",
    ),
    number(
        "body_bytes_max",
        1..=47 * MIB,
        "Largest body of a message. A message is in memory as a whole, on every node, and holds up the log while it is written.",
    ),
    number(
        "request_bytes_max",
        2..=48 * MIB,
        "Largest request; more than `body_bytes_max`. It becomes one log entry, and nodes take entries of up to 64 MiB from each other.",
    ),
    number(
        "state_memory_bytes",
        8 * MIB..=TIB,
        "RocksDB's memtables and block cache together. The more, the longer consumed messages stay out of the disk's way. The process takes some 200 to 400 MiB besides.",
    ),
    number(
        "snapshot_log_entries",
        10..=1_000_000_000,
        "Log entries between two snapshots. An entry is a batch of commands. Fewer: a node that comes back replays less; more: fewer flushes.",
    ),
    number(
        "snapshot_log_bytes",
        MIB..=TIB,
        "Size of the log at which a snapshot is made all the same: what the log may take of the disk, about.",
    ),
    number(
        "snapshot_log_entries_kept",
        0..=1_000_000_000,
        "Entries kept behind a snapshot, so that followers that were away for a short time need no snapshot.",
    ),
    number(
        "heartbeat_interval_ms",
        10..=HOUR_MS,
        "How often a leader without traffic says that it lives. Some may be late before anybody is suspicious.",
    ),
    number(
        "election_timeout_ms_min",
        20..=HOUR_MS,
        "Shortest silence before an election, after the lease of the largest. At least ten times an fsync, and several round trips between the nodes: raise it over distances.",
    ),
    number(
        "election_timeout_ms_max",
        30..=HOUR_MS,
        "Longest such silence: nodes draw between the two, so that one comes first.",
    ),
    number(
        "stop_timeout_ms",
        0..=HOUR_MS,
        "How long a node that is told to stop lets calls under way go on, handing over included. Keep it below what the supervisor grants before it kills: Kubernetes grants 30 s, systemd 90 s.",
    ),
    number(
        "memory_watermark_bytes",
        0..=16 * TIB,
        "Resident bytes of the process above which publishes are refused. 0: three quarters of what the machine has, or the control group is given. Above `state_memory_bytes` and some 200 MiB, else it is always reached.",
    ),
    number(
        "disk_free_watermark_bytes",
        0..=1024 * TIB,
        "Bytes that must be free where `data_dir` is; below, publishes are refused. 0: never. A node that snapshots a large state wants as much as that is.",
    ),
    number(
        "publishes_in_flight_max",
        0..=100_000_000,
        "Publish calls that may wait to be committed; more are refused. 0: any.",
    ),
    number("publish_bytes_in_flight_max", 0..=TIB, "Bytes of their bodies; beyond, more are refused. 0: any."),
    file(
        "otlp_endpoint",
        r#""http://127.0.0.1:4317""#,
        "The OpenTelemetry collector that traces of messages are exported to, by OTLP over gRPC: `http://HOST:PORT` or `https://HOST:PORT`. None, or empty: none are made. See \"Traces\" in operations.md.",
    ),
];

/// The setting of this key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The setting whose key somebody may have meant.
pub(super) fn closest(key: &str) -> Option<&'static str> {
    let distance = |setting: &Setting| strsim::damerau_levenshtein(setting.key, key);
    let closest = SETTINGS.iter().min_by_key(|setting| distance(setting))?;
    // A short key is not to be taken for any other short one.
    (distance(closest) <= 1 + key.len() / 6).then_some(closest.key)
}

/// All values by their keys.
pub(super) fn values(config: &Config) -> Dict {
    match Value::serialize(config) {
        Ok(Value::Dict(_, values)) => values,
        _ => Dict::new(),
    }
}

/// As in a TOML file; none for nothing.
pub(super) fn to_toml(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(format!("{text:?}")),
        Value::Bool(_, is) => Some(is.to_string()),
        Value::Num(_, Num::F32(number)) => Some(number.to_string()),
        Value::Num(_, Num::F64(number)) => Some(number.to_string()),
        Value::Num(_, number) => {
            let unsigned = number.to_u128().map(|number| number.to_string());
            unsigned.or_else(|| number.to_i128().map(|number| number.to_string()))
        }
        Value::Array(_, items) if items.is_empty() => None,
        Value::Array(_, items) => {
            Some(format!("[{}]", items.iter().filter_map(to_toml).collect::<Vec<_>>().join(", ")))
        }
        Value::Dict(_, fields) => {
            let fields = fields.iter().filter_map(|(key, value)| Some(format!("{key} = {}", to_toml(value)?)));
            Some(format!("{{ {} }}", fields.collect::<Vec<_>>().join(", ")))
        }
        Value::Char(..) | Value::Empty(..) => None,
    }
}

/// A configuration file in which everything is explained, and nothing is set.
pub fn example() -> String {
    let defaults = values(&Config::default());
    let mut text = "# Settings of `dwell server`. What is commented out is the default, or an example where there is none.\n\
                    # A key is also a variable: DWELL_NODE_ID for node_id. Variables win over this file, and flags over both.\n"
        .to_owned();
    for setting in SETTINGS {
        let default = defaults.get(setting.key).and_then(to_toml);
        let note = if default.is_none() { " Default: none." } else { "" };
        text.push('\n');
        for line in wrapped(&format!("{}{note}{}", setting.about, limits(setting))) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "#{} = {}", setting.key, default.unwrap_or_else(|| setting.example.to_owned()));
    }
    text
}

/// The table of `docs/operations.md`.
#[cfg(test)]
fn table() -> String {
    let defaults = values(&Config::default());
    let mut text = "| key | default | what and why |\n|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let default = defaults
            .get(setting.key)
            .and_then(to_toml)
            .map_or_else(|| "none".to_owned(), |value| human(setting, &value));
        let _ = writeln!(text, "| `{}` | {default} | {}{} |", setting.key, setting.about, limits(setting));
    }
    text
}

#[cfg(test)]
fn human(setting: &Setting, value: &str) -> String {
    match value.parse::<u64>() {
        Ok(bytes) if setting.key.contains("bytes") && bytes > 0 && bytes.is_multiple_of(GIB) => {
            format!("{} GiB", bytes / GIB)
        }
        Ok(bytes) if setting.key.contains("bytes") && bytes > 0 && bytes.is_multiple_of(MIB) => {
            format!("{} MiB", bytes / MIB)
        }
        _ => format!("`{}`", value.trim_matches('"')),
    }
}

fn limits(setting: &Setting) -> String {
    match &setting.limits {
        Some(limits) if *limits.end() < i64::MAX as u64 => {
            format!(" {} to {}.", limits.start(), size(setting, *limits.end()))
        }
        Some(limits) => format!(" From {}.", limits.start()),
        None => String::new(),
    }
}

fn size(setting: &Setting, number: u64) -> String {
    let units = [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB")];
    let unit = units.into_iter().find(|(unit, _)| setting.key.contains("bytes") && number.is_multiple_of(*unit));
    unit.map_or_else(|| number.to_string(), |(unit, name)| format!("{} {name}", number / unit))
}

/// Lines of about a hundred characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut();
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < 110 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn every_setting_is_explained_and_nothing_else_is() {
        let mut keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        keys.sort_unstable();
        let values = values(&Config::default());
        assert_eq!(keys, values.keys().collect::<Vec<_>>());
        for setting in SETTINGS {
            let value = &values[setting.key];
            assert_eq!(value.to_u128().is_some(), setting.limits.is_some(), "{}: numbers have limits", setting.key);
            assert!(to_toml(value).is_some() || !setting.example.is_empty(), "{}: none, and no example", setting.key);
            assert!(setting.about.ends_with('.'), "{}", setting.key);
        }
    }

    fn docs(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
    }

    /// With `UPDATE_DOCS=1` in the environment it is written instead.
    fn compare(name: &str, whole: impl FnOnce(&str) -> String) {
        let path = docs(name);
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        let wanted = whole(&there);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, wanted).unwrap();
        } else {
            assert!(there == wanted, "{} is not what the settings say: UPDATE_DOCS=1 cargo test", path.display());
        }
    }

    #[test]
    fn the_example_and_the_table_in_the_documentation_are_those_of_the_settings() {
        compare("dwell.example.toml", |_| example());
        compare("operations.md", |there| {
            let (begin, end) = ("<!-- settings -->\n", "<!-- end of settings -->\n");
            let (before, rest) = there.split_once(begin).unwrap();
            let (_, after) = rest.split_once(end).unwrap();
            format!("{before}{begin}\n{}\n{end}{after}", table())
        });
    }

    #[test]
    fn a_slip_is_told_from_another_word() {
        assert_eq!(closest("nod_id"), Some("node_id"));
        assert_eq!(closest("election_timeout_min_ms"), Some("election_timeout_ms_min"));
        assert_eq!(closest("snapshot_log_entrys"), Some("snapshot_log_entries"));
        for other in ["port", "server", "service_host", "port_7600_tcp_addr", "binary", "tls_ca"] {
            assert_eq!(closest(other), None, "{other}");
        }
    }
}
