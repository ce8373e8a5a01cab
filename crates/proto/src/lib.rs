//! Dwell's gRPC API and peer protocol, generated from `proto/`.
//!
//! Byte fields are [`bytes::Bytes`], so that a body is shared and not copied on its way through a node.
#![allow(missing_docs, reason = "generated; the documentation stands in the .proto files")]

pub mod request;
pub mod trace_context;

/// The client API, `dwell.v1`.
pub mod v1 {
    tonic::include_proto!("dwell.v1");
}

/// What the nodes say to each other, `dwell.peer.v1`.
pub mod peer {
    tonic::include_proto!("dwell.peer.v1");
}

/// KEDA's external scaler protocol, `externalscaler`.
pub mod externalscaler {
    tonic::include_proto!("externalscaler");
}

/// The file descriptors of all of `proto/`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Metadata keys of the client API.
pub mod metadata {
    /// On responses: the leader's client address (host:port).
    pub const LEADER: &str = "dwell-leader";
    /// On UNAVAILABLE: milliseconds to wait before the next attempt.
    pub const RETRY_AFTER_MS: &str = "dwell-retry-after-ms";
    /// On requests that read: [`CONSISTENCY_STALE`] asks the addressed node for what it has applied so far.
    pub const CONSISTENCY: &str = "dwell-consistency";
    /// Between nodes, on calls that are passed on: the user whose call it is. Nodes take it from each other only.
    pub const CALLER: &str = "dwell-caller";
    /// With [`CALLER`]: the address that the user called from.
    pub const CALLER_ADDRESS: &str = "dwell-caller-address";
    /// See [`CONSISTENCY`].
    pub const CONSISTENCY_STALE: &str = "stale";
}
