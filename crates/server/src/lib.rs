//! The node: gRPC front end, forwarding to the leader, deliveries, HTTP for metrics and health.

mod config;
mod forward;
mod http;
mod hub;
mod metrics;
mod node;
mod recovery;
mod services;
mod status;
mod validate;

pub use config::{Config, ConfigError, ConfigOverrides, Member, MemberError};
pub use node::{Environment, Node, ServerError, run};
