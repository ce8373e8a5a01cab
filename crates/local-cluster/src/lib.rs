//! Runs a cluster of real server processes on one machine, for `dwell dev` and for tests.
//!
//! ```no_run
//! # async fn example() -> Result<(), dwell_local_cluster::LocalClusterError> {
//! use std::time::Duration;
//! use dwell_local_cluster::{LocalCluster, LocalClusterOptions};
//!
//! let cluster = LocalCluster::start(LocalClusterOptions::new("target/release/dwell", 3, "/tmp/cluster")).await?;
//! let leader = cluster.leader(Duration::from_secs(10)).await?;
//! cluster.node(leader)?.kill().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The processes are the same binary that runs in production, with their own data directories, ports and log
//! files. They die with the [`LocalCluster`] that started them, unless this process is itself killed by a
//! signal that it cannot catch.

mod cluster;
mod error;
mod log_tail;
mod manifest;
mod node;
mod options;
mod ports;
mod probe;

pub use cluster::LocalCluster;
pub use error::LocalClusterError;
pub use manifest::NodePorts;
pub use node::LocalNode;
pub use options::LocalClusterOptions;
pub use ports::free_ports;
pub use probe::http_get;
