//! The node: gRPC front end, forwarding to the leader, deliveries, HTTP for metrics and health.

mod access;
pub mod backup;
mod config;
mod forward;
mod http;
mod hub;
mod metrics;
mod node;
mod process;
mod recovery;
mod services;
mod status;
mod stop;
mod tls;
mod traces;
mod validate;
mod watermarks;

pub use config::{Config, ConfigError, ConfigOverrides, Effective, Member, MemberError, Problem, example};
pub use http::{ENROLMENT_PATH, ENROLMENT_STARTED};
pub use node::{Environment, Node, ServerError, run};
