//! Work that waits for the disk, or takes long.
//!
//! On a runtime with one thread it is done there and then: nobody else could go on anyway, and a simulation stays
//! deterministic.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

/// Does work that borrows, without keeping the runtime's other tasks waiting, where the runtime can do so.
pub fn in_place<R>(work: impl FnOnce() -> R) -> R {
    if has_threads() { tokio::task::block_in_place(work) } else { work() }
}

/// Does work on a thread of its own.
///
/// # Errors
/// If it panicked, or the runtime is shutting down.
pub async fn apart<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R, JoinError> {
    if has_threads() { tokio::task::spawn_blocking(work).await } else { Ok(work()) }
}

fn has_threads() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}
