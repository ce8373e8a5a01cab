//! Small complete programs on Dwell's Rust client, one in each module. They run against any cluster, finish within
//! seconds, and fail if things do not go as they say.

pub mod autoscaler;
pub mod moved_reminder;
pub mod nightly_job;
pub mod order_timeout;
pub mod retry_ladder;
pub mod traced_reminder;
