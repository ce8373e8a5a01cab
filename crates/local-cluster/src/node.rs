//! One node: a server process that can be started, stopped, killed and paused.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dwell_proto::v1::GetClusterStatusResponse;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};

use crate::error::LocalClusterError;
use crate::log_tail::log_tail;
use crate::manifest::{NodePorts, file_error};
use crate::probe;

/// A server that was asked to stop and takes longer than this is hung.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often an ending process is looked at.
const REAP_INTERVAL: Duration = Duration::from_millis(2);

/// One node of a local cluster. It remembers how to start its process again over the same data.
#[derive(Debug)]
pub struct LocalNode {
    id: u64,
    ports: NodePorts,
    binary: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    paused: bool,
}

impl LocalNode {
    /// Knows how to run node `id` of `members`; starts nothing yet. Without members it waits to be made one.
    pub(crate) fn new(
        id: u64,
        members: &[NodePorts],
        ports: NodePorts,
        binary: &Path,
        directory: PathBuf,
        environment: &[(OsString, OsString)],
    ) -> Self {
        let mut node = Self {
            id,
            ports,
            binary: binary.to_owned(),
            arguments: Vec::new(),
            environment: environment.to_vec(),
            directory,
            process: Mutex::new(None),
        };
        node.arguments = node.server_arguments(members);
        node
    }

    fn server_arguments(&self, members: &[NodePorts]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["server".into()];
        let mut flag = |name: &str, value: OsString| arguments.extend([OsString::from(name), value]);
        flag("--node-id", self.id.to_string().into());
        flag("--data-dir", self.data_directory().into());
        flag("--client-address", self.client_address().into());
        flag("--peer-address", self.peer_address().into());
        flag("--http-address", self.http_address().into());
        for (id, member) in (1_u64..).zip(members) {
            flag("--member", format!("{id}={},{}", address(member.peer), address(member.client)).into());
        }
        if members.is_empty() {
            arguments.push("--join".into());
        }
        arguments
    }

    /// Its number, from 1.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// host:port for clients.
    pub fn client_address(&self) -> String {
        address(self.ports.client)
    }

    /// host:port for the other nodes.
    pub fn peer_address(&self) -> String {
        address(self.ports.peer)
    }

    /// host:port of metrics and health.
    pub fn http_address(&self) -> String {
        address(self.ports.http)
    }

    /// Where its log and state are.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where its standard output and error go; every start appends.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// The end of its log, for messages to people.
    pub fn log_tail(&self) -> String {
        format!("--- node {}, {}", self.id, log_tail(&self.log_path()))
    }

    /// Starts the process; does not wait until it is ready.
    pub fn start(&self) -> Result<(), LocalClusterError> {
        let mut process = self.process.lock();
        if let Some(running) = process.as_mut()
            && self.exit_status(running)?.is_none()
        {
            return Err(LocalClusterError::Running(self.id));
        }
        std::fs::create_dir_all(&self.directory).map_err(file_error("create", &self.directory))?;
        let log = self.open_log()?;
        let errors = log.try_clone().map_err(file_error("write", &self.log_path()))?;
        let child = self.command().stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        let child = child.map_err(|source| LocalClusterError::Spawn { binary: self.binary.clone(), source })?;
        tracing::debug!(node = self.id, process = child.id(), "started");
        *process = Some(Process { child, paused: false });
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"DWELL_") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn open_log(&self) -> Result<File, LocalClusterError> {
        let path = self.log_path();
        OpenOptions::new().create(true).append(true).open(&path).map_err(file_error("write", &path))
    }

    /// True while its process lives, paused or not.
    pub fn is_running(&self) -> bool {
        matches!(self.process.lock().as_mut().map(|process| process.child.try_wait()), Some(Ok(None)))
    }

    /// True while it is paused.
    pub fn is_paused(&self) -> bool {
        self.process.lock().as_ref().is_some_and(|process| process.paused)
    }

    /// The number of its process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.is_running().then(|| self.process.lock().as_ref().map(|process| process.child.id())).flatten()
    }

    /// Fails if the process ended although neither [`LocalNode::kill`] nor [`LocalNode::stop`] was called.
    pub fn check_alive(&self) -> Result<(), LocalClusterError> {
        let mut process = self.process.lock();
        let Some(running) = process.as_mut() else { return Ok(()) };
        match self.exit_status(running)? {
            None => Ok(()),
            Some(status) => Err(LocalClusterError::Exited { node: self.id, status, log: self.log_tail() }),
        }
    }

    /// Kills the process, as a crash would, and waits until it is gone.
    pub async fn kill(&self) -> Result<(), LocalClusterError> {
        self.send_kill()?;
        self.reap(STOP_TIMEOUT).await
    }

    /// Asks the process to end, and waits until it has. One that has ended already is no error.
    pub async fn stop(&self) -> Result<(), LocalClusterError> {
        // A stopped process would not see the request.
        if self.is_paused() {
            self.resume()?;
        }
        match self.signal(Signal::TERM) {
            // It was told to end by somebody else, a Ctrl-C in the terminal that it shares for instance.
            Err(LocalClusterError::NotRunning(_)) if self.process.lock().is_some() => {}
            sent => sent?,
        }
        self.reap(STOP_TIMEOUT).await
    }

    /// Halts the process where it stands: it keeps its connections and answers nothing.
    pub fn pause(&self) -> Result<(), LocalClusterError> {
        self.signal(Signal::STOP)?;
        self.set_paused(true);
        Ok(())
    }

    /// Lets a paused process go on.
    pub fn resume(&self) -> Result<(), LocalClusterError> {
        self.signal(Signal::CONT)?;
        self.set_paused(false);
        Ok(())
    }

    /// Sends the kill and does not wait: for killing several nodes at the same moment.
    pub(crate) fn send_kill(&self) -> Result<(), LocalClusterError> {
        self.signal(Signal::KILL)
    }

    /// Waits until the process, which was told to end, is gone.
    pub(crate) async fn reap(&self, timeout: Duration) -> Result<(), LocalClusterError> {
        let deadline = Instant::now() + timeout;
        loop {
            {
                let mut process = self.process.lock();
                let Some(ending) = process.as_mut() else { return Ok(()) };
                if self.exit_status(ending)?.is_some() {
                    *process = None;
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                let what = format!("node {} has not ended", self.id);
                return Err(LocalClusterError::Deadline { what, waited: timeout, logs: self.log_tail() });
            }
            tokio::time::sleep(REAP_INTERVAL).await;
        }
    }

    /// The node's own view of the cluster.
    pub async fn status(&self) -> Result<GetClusterStatusResponse, LocalClusterError> {
        let answer = probe::status(&self.client_address()).await;
        answer.map_err(|reason| LocalClusterError::NoAnswer { node: self.id, reason })
    }

    /// Asks its HTTP port for a path such as `/metrics`; answers the HTTP status code and the body.
    pub async fn http_get(&self, path: &str) -> Result<(u16, String), LocalClusterError> {
        let answer = probe::http_get(&self.http_address(), path).await;
        answer.map_err(|reason| LocalClusterError::NoAnswer { node: self.id, reason })
    }

    /// Nothing if the node says that it is ready, otherwise why it is not.
    pub(crate) async fn not_ready_reason(&self) -> Option<String> {
        match probe::http_get(&self.http_address(), "/readyz").await {
            Ok((200, _)) => None,
            Ok((code, body)) => Some(format!("/readyz answers {code} {}", body.trim())),
            Err(reason) => Some(reason),
        }
    }

    /// The most memory that the running process has had resident, in bytes. Counts anew after a restart.
    pub fn memory_peak_bytes(&self) -> Result<u64, LocalClusterError> {
        let id = self.process_id().ok_or(LocalClusterError::NotRunning(self.id))?;
        let path = PathBuf::from(format!("/proc/{id}/status"));
        let text = std::fs::read_to_string(&path).map_err(file_error("read", &path))?;
        parse_memory_peak(&text).ok_or(LocalClusterError::NotRunning(self.id))
    }

    fn set_paused(&self, paused: bool) {
        if let Some(process) = self.process.lock().as_mut() {
            process.paused = paused;
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), LocalClusterError> {
        let mut process = self.process.lock();
        let running = process.as_mut().ok_or(LocalClusterError::NotRunning(self.id))?;
        // Not reaped yet, so that the number still is this process's, even if it has ended meanwhile.
        if self.exit_status(running)?.is_some() {
            return Err(LocalClusterError::NotRunning(self.id));
        }
        let id = i32::try_from(running.child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or(LocalClusterError::NotRunning(self.id))?;
        rustix::process::kill_process(id, signal)
            .map_err(|error| LocalClusterError::Process { node: self.id, source: error.into() })
    }

    fn exit_status(&self, process: &mut Process) -> Result<Option<ExitStatus>, LocalClusterError> {
        process.child.try_wait().map_err(|source| LocalClusterError::Process { node: self.id, source })
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        let Some(mut process) = self.process.get_mut().take() else { return };
        // Both fail only if it is gone already. Waiting makes sure that it writes no more into a directory that
        // is about to be deleted.
        let _ = process.child.kill();
        let _ = process.child.wait();
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Reads `VmHWM`, which the kernel gives in KiB.
fn parse_memory_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node whose "server" is a shell script: enough to see processes start and end.
    fn node_running(directory: &Path, script: &str) -> LocalNode {
        let ports = NodePorts { client: 1, peer: 2, http: 3 };
        let mut node = LocalNode::new(1, &[ports], ports, Path::new("/bin/sh"), directory.join("node-1"), &[]);
        node.arguments = vec!["-c".into(), script.into()];
        node
    }

    async fn until(mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "did not happen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_killed_node_is_gone_and_can_start_again() {
        let directory = tempfile::tempdir().unwrap();
        let node = node_running(directory.path(), "exec sleep 1000");
        node.start().unwrap();
        let first = node.process_id().unwrap();
        assert!(matches!(node.start(), Err(LocalClusterError::Running(1))));
        node.kill().await.unwrap();
        assert!(!node.is_running());
        assert!(matches!(node.kill().await, Err(LocalClusterError::NotRunning(1))));
        node.start().unwrap();
        assert_ne!(node.process_id().unwrap(), first);
    }

    #[tokio::test]
    async fn a_paused_node_can_be_killed_and_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let node = node_running(directory.path(), "exec sleep 1000");
        node.start().unwrap();
        node.pause().unwrap();
        assert!(node.is_running() && node.is_paused());
        node.stop().await.unwrap();
        node.start().unwrap();
        assert!(!node.is_paused());
        node.pause().unwrap();
        node.kill().await.unwrap();
        assert!(!node.is_running());
    }

    #[tokio::test]
    async fn a_node_that_ends_by_itself_is_reported_with_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let node = node_running(directory.path(), "echo the disk is full >&2; exit 3");
        node.start().unwrap();
        until(|| !node.is_running()).await;
        let error = node.check_alive().unwrap_err();
        assert!(error.to_string().contains("the disk is full"), "{error}");
    }

    #[tokio::test]
    async fn a_node_that_ended_before_it_was_stopped_is_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let node = node_running(directory.path(), "exit 0");
        node.start().unwrap();
        until(|| !node.is_running()).await;
        node.stop().await.unwrap();
        node.check_alive().unwrap();
        assert!(matches!(node.stop().await, Err(LocalClusterError::NotRunning(1))));
    }

    #[tokio::test]
    async fn a_dropped_node_leaves_no_process() {
        let directory = tempfile::tempdir().unwrap();
        let node = node_running(directory.path(), "exec sleep 1000");
        node.start().unwrap();
        let id = node.process_id().unwrap();
        drop(node);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn the_command_line_names_every_member() {
        let members = [1, 11].map(|first| NodePorts { client: first, peer: first + 1, http: first + 2 });
        let node = LocalNode::new(2, &members, members[1], Path::new("dwell"), "/tmp/node-2".into(), &[]);
        let line: Vec<_> = node.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        let expected = "server --node-id 2 --data-dir /tmp/node-2/data --client-address 127.0.0.1:11 \
                        --peer-address 127.0.0.1:12 --http-address 127.0.0.1:13 \
                        --member 1=127.0.0.1:2,127.0.0.1:1 --member 2=127.0.0.1:12,127.0.0.1:11";
        assert_eq!(line.join(" "), expected);
    }

    #[test]
    fn a_node_without_members_joins() {
        let ports = NodePorts { client: 1, peer: 2, http: 3 };
        let node = LocalNode::new(4, &[], ports, Path::new("dwell"), "/tmp/node-4".into(), &[]);
        assert_eq!(node.arguments.last(), Some(&"--join".into()));
    }

    #[test]
    fn reads_the_peak_of_resident_memory() {
        assert_eq!(parse_memory_peak("Name:\tdwell\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2 * 1024 * 1024));
        assert_eq!(parse_memory_peak("Name:\tdwell\n"), None);
    }
}
