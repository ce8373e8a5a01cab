//! The wall clock, the only one there is: read by the leader when it proposes.

use std::time::{SystemTime, UNIX_EPOCH};

/// A source of wall-clock time; a test or a simulation brings its own.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A clock before 1970 is a machine without a clock: machine time then stands still rather than the
        // node.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}
