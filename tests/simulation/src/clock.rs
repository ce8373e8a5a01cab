//! Wall clocks that are wrong.

use std::time::Duration;

use dwell_consensus::clock::Clock;
use parking_lot::Mutex;

/// What the wall clocks show at the beginning: some day in 2026.
const BEGIN_MS: f64 = 1_790_000_000_000.0;

/// A node's wall clock. It goes on while the node is down.
#[derive(Debug)]
pub struct SimulatedClock {
    error: Mutex<ClockError>,
}

#[derive(Debug, Clone, Copy)]
struct ClockError {
    /// At `since_ms` of simulated time.
    offset_ms: f64,
    since_ms: f64,
    /// Milliseconds gained in a millisecond.
    drift: f64,
}

impl SimulatedClock {
    /// A clock that is right, and stays so.
    pub fn new() -> SimulatedClock {
        SimulatedClock { error: Mutex::new(ClockError { offset_ms: 0.0, since_ms: 0.0, drift: 0.0 }) }
    }

    /// Sets the clock wrong by `offset_ms`, whatever it was before, and makes it gain or lose `drift` milliseconds in each
    /// from now on.
    pub fn disturb(&self, elapsed: Duration, offset_ms: f64, drift: f64) {
        *self.error.lock() = ClockError { offset_ms, since_ms: milliseconds(elapsed), drift };
    }

    /// Makes it right again.
    pub fn mend(&self) {
        *self.error.lock() = ClockError { offset_ms: 0.0, since_ms: 0.0, drift: 0.0 };
    }
}

impl Default for SimulatedClock {
    fn default() -> SimulatedClock {
        SimulatedClock::new()
    }
}

impl ClockError {
    fn offset_ms_at(&self, elapsed_ms: f64) -> f64 {
        self.offset_ms + (elapsed_ms - self.since_ms) * self.drift
    }
}

impl Clock for SimulatedClock {
    fn now_ms(&self) -> u64 {
        // Outside of a running simulation there is no time.
        let elapsed_ms = milliseconds(turmoil::sim_elapsed().unwrap_or_default());
        (BEGIN_MS + elapsed_ms + self.error.lock().offset_ms_at(elapsed_ms)) as u64
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
