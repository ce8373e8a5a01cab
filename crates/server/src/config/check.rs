//! What can be wrong with a configuration.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::Config;
use super::settings::{self, SETTINGS};
use crate::access::{FirstUser, Tokens};
use crate::tls::TlsPorts;
use crate::traces;
use crate::validate;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, or the unknown key or variable.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Problem {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Problem {
        Problem { field: field.into(), problem: problem.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` {}", self.field, self.problem)
    }
}

/// In one line each.
pub(super) fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Everything that is wrong with the values.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.limits();
        self.check_members(&mut problems);
        self.check_order(&mut problems);
        self.check_tls(&mut problems);
        self.check_authentication(&mut problems);
        let endpoint = self.otlp_endpoint().map(traces::collector).transpose();
        problems.extend(endpoint.err().map(|problem| Problem::new("otlp_endpoint", problem)));
        problems
    }

    fn limits(&self) -> Vec<Problem> {
        let values = settings::values(self);
        let outside = |setting: &settings::Setting| {
            let limits = setting.limits.as_ref()?;
            let value = u64::try_from(values.get(setting.key)?.to_u128()?).ok()?;
            let problem = || format!("is {value}: must be from {} to {}", limits.start(), limits.end());
            (!limits.contains(&value)).then(|| Problem::new(setting.key, problem()))
        };
        SETTINGS.iter().filter_map(outside).collect()
    }

    fn check_members(&self, problems: &mut Vec<Problem>) {
        if self.members.is_empty() {
            return;
        }
        if self.join {
            let problem = "must be empty with `join`: the cluster says who its members are";
            problems.push(Problem::new("members", problem));
        } else if !self.members.iter().any(|member| member.node_id == self.node_id) {
            problems.push(Problem::new("members", format!("must contain this node, {}", self.node_id)));
        }
        let ids: BTreeSet<_> = self.members.iter().map(|member| member.node_id).collect();
        if ids.len() != self.members.len() {
            problems.push(Problem::new("members", "name a node id twice"));
        }
    }

    /// Those that must be more than others.
    fn check_order(&self, problems: &mut Vec<Problem>) {
        let pairs = [
            ("request_bytes_max", self.request_bytes_max as u64, "body_bytes_max", self.body_bytes_max as u64),
            (
                "election_timeout_ms_min",
                self.election_timeout_ms_min,
                "heartbeat_interval_ms",
                self.heartbeat_interval_ms,
            ),
            (
                "election_timeout_ms_max",
                self.election_timeout_ms_max,
                "election_timeout_ms_min",
                self.election_timeout_ms_min,
            ),
        ];
        for (more, value, less, least) in pairs {
            if value <= least {
                problems.push(Problem::new(more, format!("is {value}: must be more than `{less}`, {least}")));
            }
        }
    }

    /// Half of TLS is none, and an open port without any is to be meant.
    fn check_tls(&self, problems: &mut Vec<Problem>) {
        if self.client_tls_certificate_file.is_some() != self.client_tls_key_file.is_some() {
            let problem =
                "and `client_tls_key_file` must be given together: a certificate is of no use without its key";
            problems.push(Problem::new("client_tls_certificate_file", problem));
        }
        if self.client_tls_ca_file.is_some() && self.client_tls_certificate_file.is_none() {
            problems.push(Problem::new("client_tls_ca_file", "is of no use without `client_tls_certificate_file`"));
        }
        let peer = [&self.peer_tls_certificate_file, &self.peer_tls_key_file, &self.peer_tls_ca_file];
        if !matches!(peer.iter().filter(|file| file.is_some()).count(), 0 | 3) {
            let problem =
                "`peer_tls_key_file` and `peer_tls_ca_file` must be given together: nodes authenticate each other";
            problems.push(Problem::new("peer_tls_certificate_file", problem));
        }
        let ports = [
            ("client_address", self.client_address, self.client_tls().is_some()),
            ("peer_address", self.peer_address, self.peer_tls().is_some()),
        ];
        for (field, address, has_tls) in ports {
            if !address.ip().is_loopback() && !has_tls && !self.allow_insecure {
                let problem = format!(
                    "{address} can be reached from other machines, and has no TLS: give it certificates, or set \
                     `allow_insecure` if everybody in that network is trusted"
                );
                problems.push(Problem::new(field, problem));
            }
        }
    }

    /// Users that are told apart by halves are not.
    fn check_authentication(&self, problems: &mut Vec<Problem>) {
        if let Err(error) = validate::user_name("initial_user", &self.initial_user) {
            problems.push(Problem::new("initial_user", error.problem));
        } else if self.initial_user.contains(':') {
            problems.push(Problem::new(
                "initial_user",
                "must have no colon, which ends the name where there is a password",
            ));
        }
        let claims = [("jwt_issuer", &self.jwt_issuer), ("jwt_audience", &self.jwt_audience)];
        for (field, value) in claims {
            if value.is_empty() == self.jwks_file.is_some() {
                let problem =
                    "and `jwks_file` must be given together: a signature alone does not say for whom a token is";
                problems.push(Problem::new(field, problem));
            }
        }
        if self.authentication {
            return;
        }
        if self.jwks_file.is_some() {
            problems.push(Problem::new("jwks_file", "is of no use without `authentication`"));
        }
        if self.initial_password_file.is_some() {
            problems.push(Problem::new("initial_password_file", "is of no use without `authentication`"));
        }
        if !self.client_address.ip().is_loopback() && !self.allow_insecure {
            let problem = format!(
                "{} can be reached from other machines, and whoever reaches it may do everything: set `authentication`, or \
                 `allow_insecure` if everybody in that network is trusted",
                self.client_address
            );
            problems.push(Problem::new("client_address", problem));
        }
    }

    /// Everything that is wrong with what the values name on this machine: certificates and the data directory. Writes
    /// nothing.
    pub fn problems_here(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Err(error) = TlsPorts::open(self) {
            problems.push(Problem::new("client_tls_*` or `peer_tls_*", error.to_string()));
        }
        if let Err(error) = FirstUser::read(self) {
            problems.push(Problem::new("initial_password_file", error.to_string()));
        }
        if let Some(Err(error)) = self.token_settings().map(Tokens::open) {
            problems.push(Problem::new("jwks_file", error.to_string()));
        }
        let place = existing(&self.data_dir);
        if !place.is_dir() {
            problems.push(Problem::new("data_dir", format!("{} is no directory", place.display())));
        } else if access(&place, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
            problems.push(Problem::new("data_dir", format!("{} cannot be written by this user", place.display())));
        }
        problems
    }
}

/// The directory itself, or the nearest one above it that there is.
fn existing(directory: &Path) -> PathBuf {
    let found = directory.ancestors().find(|ancestor| ancestor.exists()).map(Path::to_owned);
    found.filter(|found| !found.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from("."))
}
