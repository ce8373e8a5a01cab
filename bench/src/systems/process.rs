//! A server process.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

/// A server process and those that it starts, in a process group of their own. Dropping it kills them and waits until
/// they are gone.
#[derive(Debug)]
pub struct Server {
    child: Child,
    group: Pid,
}

impl Server {
    /// Starts it; its output is appended to the log.
    pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Server> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = OpenOptions::new().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // So that Ctrl-C in a terminal reaches this program only, which ends the servers itself.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process without a number")?;
        Ok(Server { child, group })
    }

    /// The number of the first process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Kills all its processes and does not wait.
    pub fn send_kill(&self) {
        // It fails only if they are gone already.
        let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
    }

    /// Halts all its processes where they stand, or lets them go on.
    pub fn set_frozen(&self, frozen: bool) -> anyhow::Result<()> {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        Ok(rustix::process::kill_process_group(self.group, signal)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.send_kill();
        // Waiting makes sure that it writes no more into a directory that is about to be deleted.
        let _ = self.child.wait();
        wait_group_gone(self.group);
    }
}

/// The others of the group are not this process's children, and cannot be waited for but by looking.
fn wait_group_gone(group: Pid) {
    for _ in 0..1000 {
        if rustix::process::test_kill_process_group(group).is_err() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    tracing::warn!("some process of a killed server is still there after five seconds");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_server_leaves_no_process_not_even_those_that_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let (log, number) = (directory.path().join("log"), directory.path().join("number"));
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("sleep 1000 & echo $! > {}.new; mv {0}.new {0}; wait", number.display()));
        let server = Server::start(command, &log).unwrap();
        while !number.exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let child = std::fs::read_to_string(&number).unwrap();
        assert!(crate::usage::tree(server.process_id()).unwrap().contains(&child.trim().parse().unwrap()));
        drop(server);
        // A zombie may be left to the init process for a moment.
        let state = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }
}
