//! Why the harness could not do what was asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the harness could not do what was asked. A fault that the system under test survives or not is none of these.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A program of the system failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it said, or why it could not be run.
        output: String,
    },
    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried: `create`, `read`, `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The system refused something.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another run on this machine uses the names that this one needs.
    #[error("another dwell-jepsen runs on this machine (it holds {})", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// Something did not happen in time.
    #[error("{what} after {waited:?}")]
    Deadline {
        /// What is still missing.
        what: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The client library refused what it was given.
    #[error("the client failed: {0}")]
    Client(#[from] dwell_client::Error),
    /// There is no such node, or it is not in the state that is needed.
    #[error("node {node} {problem}")]
    Node {
        /// Its number.
        node: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A request that cannot be met.
    #[error("{0}")]
    Invalid(String),
}

/// For `map_err`: names what was tried on a file.
pub(crate) fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> HarnessError {
    move |source| HarnessError::File { action, path: path.to_owned(), source }
}

/// For `map_err`: names what was asked of the system.
pub(crate) fn system_error<E: Into<std::io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> HarnessError {
    move |source| HarnessError::System { action: action.into(), source: source.into() }
}
