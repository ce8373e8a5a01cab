//! The thread that gives a group's database what was committed.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::StateError;
use super::committed::Committed;
use crate::damage::{DamageSignal, DamagedPart};

/// Writes what is leaving, whenever it is woken. Ends when this is dropped.
pub(super) struct Writer {
    /// None only while this is dropped.
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(committed: Arc<Committed>, damage: DamageSignal) -> io::Result<Writer> {
        // One call that waits stands for all that were made before it is answered.
        let (wake, woken) = sync_channel(1);
        let run = move || {
            while woken.recv().is_ok() {
                if let Err(error) = committed.write_leaving() {
                    let error = StateError::from(error);
                    // Whoever commits tries again, and fails.
                    tracing::error!(%error, "committed rows were not written");
                    if error.is_damage() {
                        damage.report(DamagedPart::State, &error);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("state-writer".to_owned()).spawn(run)?;
        Ok(Writer { wake: Some(wake), thread: Some(thread) })
    }

    /// Has what is leaving written.
    pub fn wake(&self) {
        // Full: it will look anyway.
        if let Some(wake) = &self.wake {
            wake.try_send(()).ok();
        }
    }
}

impl Drop for Writer {
    /// The database is not used by the thread any more when this returns.
    fn drop(&mut self) {
        self.wake = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes committed rows has panicked");
        }
    }
}
