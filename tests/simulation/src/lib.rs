//! Whole nodes in one process, on simulated time, network and disks: a seed reproduces a run.
//!
//! Each node runs as it does in production: the machine over RocksDB, openraft over the log store, tonic between the
//! nodes and towards the clients, the timer service, the sessions. What is simulated is what is around it: time,
//! wall clocks, the network, and the disk under the log. Everything random follows from one seed, also what the
//! standard library and others take from the operating system, so the same seed gives the same run.

pub mod changes;
pub mod clock;
pub mod disk;
pub mod faults;
pub mod network;
pub mod node;
pub mod trial;
pub mod world;
