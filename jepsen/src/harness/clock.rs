//! A node's clock, which a preloaded library reads from a file.

use std::ffi::OsString;
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::harness::error::{HarnessError, file_error};

/// A clock that is wrong by a given time.
#[derive(Debug)]
pub(crate) struct Clock {
    /// The preloaded library; without it the clock is the machine's.
    library: Option<PathBuf>,
    file: PathBuf,
    error_ms: Mutex<i64>,
}

impl Clock {
    /// A clock that is right, for now.
    pub(crate) fn new(library: Option<PathBuf>, file: PathBuf) -> Result<Clock, HarnessError> {
        let clock = Clock { library, file, error_ms: Mutex::new(0) };
        clock.set(0)?;
        Ok(clock)
    }

    /// How wrong it is, in milliseconds: above zero when it is ahead.
    pub(crate) fn error_ms(&self) -> i64 {
        *self.error_ms.lock()
    }

    /// Sets it wrong by so much. The process looks at most a second later.
    pub(crate) fn set(&self, error_ms: i64) -> Result<(), HarnessError> {
        // Renamed into place: the process must never read half of it.
        let new = self.file.with_extension("new");
        let seconds = error_ms as f64 / 1000.0;
        std::fs::write(&new, format!("{seconds:+.3}\n")).map_err(file_error("write", &new))?;
        std::fs::rename(&new, &self.file).map_err(file_error("write", &self.file))?;
        *self.error_ms.lock() = error_ms;
        Ok(())
    }

    /// What makes a process use it. Its timers stay right: they count, and are not set.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let Some(library) = &self.library else { return Vec::new() };
        vec![
            ("LD_PRELOAD", library.into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone().into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            // It looks again when the second of the clock is larger than the one of its last look plus this: with 0 after
            // a second at most, with 1 after two.
            ("FAKETIME_CACHE_DURATION", "0".into()),
        ]
    }
}
