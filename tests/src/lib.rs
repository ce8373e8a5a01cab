//! What the end-to-end tests share: real clusters, clients that write down what they see, and the rules that what
//! they saw must keep.

pub mod certificates;
pub mod collector;
pub mod environment;
pub mod history;
pub mod raw;
pub mod report;
pub mod scenario;
pub mod small_disk;
pub mod workload;
