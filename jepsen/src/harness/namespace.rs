//! A thread that lives in a network namespace, and starts what shall live there too.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::harness::error::{HarnessError, file_error, system_error};

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace, or in the harness's own. A child process begins in the namespace of the thread
/// that starts it, and with `setpriv --pdeathsig` ends with that thread: so it must be one that lives as long as the
/// harness does, which threads of an executor do not.
#[derive(Debug)]
pub(crate) struct NamespaceThread {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl NamespaceThread {
    /// Starts the thread, in the named namespace if one is named.
    pub(crate) fn start(namespace: Option<&str>) -> Result<NamespaceThread, HarnessError> {
        let path = namespace.map(|name| PathBuf::from("/run/netns").join(name));
        let (jobs, received) = channel::<Job>();
        let (entered, outcome) = channel();
        let thread = std::thread::spawn(move || {
            let result = path.map_or(Ok(()), |path| {
                let file = std::fs::File::open(&path).map_err(file_error("open", &path))?;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(system_error(format!("enter the network namespace {}", path.display())))
            });
            // Nobody listens any more only if `start` was abandoned.
            let _ = entered.send(result);
            for job in received {
                job();
            }
        });
        outcome.recv().map_err(|_| gone())??;
        Ok(NamespaceThread { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Runs a job there and waits for its result.
    pub(crate) fn execute<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HarnessError> {
        let (sender, result) = channel();
        let job = Box::new(move || {
            // As above.
            let _ = sender.send(job());
        });
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())
    }

    /// Starts a process there.
    pub(crate) fn spawn(&self, mut command: Command) -> Result<Child, HarnessError> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.execute(move || command.spawn())?.map_err(system_error(format!("start {program}")))
    }
}

impl Drop for NamespaceThread {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It panicked only if a job did, which was reported then.
            let _ = thread.join();
        }
    }
}

fn gone() -> HarnessError {
    HarnessError::Invalid("a thread of the harness is gone".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_in_one_thread_and_give_their_results() {
        let thread = NamespaceThread::start(None).unwrap();
        let first = thread.execute(|| std::thread::current().id()).unwrap();
        let second = thread.execute(|| std::thread::current().id()).unwrap();
        assert_eq!(first, second);
        assert_ne!(first, std::thread::current().id());
    }

    #[test]
    fn an_unknown_namespace_is_an_error() {
        assert!(NamespaceThread::start(Some("no-such-namespace")).is_err());
    }
}
