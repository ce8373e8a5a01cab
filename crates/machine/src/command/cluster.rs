//! Commands about the cluster itself.

/// Gives the cluster its id, and notes who holds its data.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Identify {
    /// Becomes the cluster's id, if it has none yet. 0: none is offered.
    #[prost(fixed64, tag = "1")]
    pub cluster_id: u64,
    /// Nodes that hold data of the cluster: none of them may come back on an empty disk.
    #[prost(uint64, repeated, tag = "2")]
    pub holders: Vec<u64>,
}
