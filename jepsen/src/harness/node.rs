//! One node: a server process with its own network, disk and clock, that is started again when it ends by itself.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::NodeId;
use crate::harness::clock::Clock;
use crate::harness::disk::Disk;
use crate::harness::error::{HarnessError, file_error, system_error};
use crate::harness::events::{EventKind, Events};
use crate::harness::namespace::NamespaceThread;

/// Where every node listens, on its own address.
const CLIENT_PORT: u16 = 7600;
const PEER_PORT: u16 = 7601;
const HTTP_PORT: u16 = 7602;
/// How often an ending process is looked at.
const REAP_INTERVAL: Duration = Duration::from_millis(5);
/// A process that takes longer to end than this hangs.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a supervisor waits before it starts a process again that ended by itself: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// A process that ran for so long had started well.
const STARTED_WELL: Duration = Duration::from_secs(10);
/// Characters of a node's last line that are told when it ends by itself.
const TOLD_CHARACTERS: usize = 240;

/// How servers are started.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) binary: PathBuf,
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The first members, with their addresses.
    pub(crate) members: Vec<(NodeId, Ipv4Addr)>,
}

/// One node. Dropping it kills its process and unmounts its disk.
#[derive(Debug)]
pub(crate) struct Node {
    id: NodeId,
    address: Ipv4Addr,
    directory: PathBuf,
    thread: NamespaceThread,
    state: Mutex<State>,
    pub(crate) clock: Clock,
    pub(crate) disk: Option<Mutex<Disk>>,
}

#[derive(Debug)]
struct State {
    child: Option<Child>,
    started_at: Instant,
    /// Whether the process is to be started again when it ends.
    wanted: bool,
    restart_at: Option<Instant>,
    backoff: Duration,
    /// How often it ended by itself.
    exits: u32,
    /// How and why, the last time.
    last_reason: String,
    /// How often it ended for the same reason again.
    repeated: u32,
    /// What to start it with, beyond what all are started with.
    join: bool,
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        address: Ipv4Addr,
        directory: PathBuf,
        namespace: Option<&str>,
        clock_library: Option<PathBuf>,
        disk: Option<Disk>,
    ) -> Result<Node, HarnessError> {
        let state = State {
            child: None,
            started_at: Instant::now(),
            wanted: false,
            restart_at: None,
            backoff: BACKOFF.0,
            exits: 0,
            last_reason: String::new(),
            repeated: 0,
            join: false,
        };
        Ok(Node {
            id,
            address,
            thread: NamespaceThread::start(namespace)?,
            state: Mutex::new(state),
            clock: Clock::new(clock_library, directory.join("clock"))?,
            disk: disk.map(Mutex::new),
            directory,
        })
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn client_address(&self) -> String {
        client_address(self.address)
    }

    pub(crate) fn peer_address(&self) -> String {
        peer_address(self.address)
    }

    pub(crate) fn http_address(&self) -> String {
        format!("{}:{HTTP_PORT}", self.address)
    }

    pub(crate) fn data_directory(&self) -> PathBuf {
        match &self.disk {
            Some(disk) => disk.lock().path().join("data"),
            None => self.directory.join("data"),
        }
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// Starts the process, and has it started again whenever it ends by itself.
    pub(crate) fn start(&self, server: &Server) -> Result<(), HarnessError> {
        let mut state = self.state.lock();
        if state.child.is_some() {
            return Ok(());
        }
        state.backoff = BACKOFF.0;
        self.spawn(server, &mut state)
    }

    /// Says whether the node, from its next start on, is to join a cluster rather than to found one.
    pub(crate) fn set_join(&self, join: bool) {
        self.state.lock().join = join;
    }

    fn spawn(&self, server: &Server, state: &mut State) -> Result<(), HarnessError> {
        state.restart_at = None;
        state.wanted = true;
        let log = OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.map_err(file_error("write", &self.log_path()))?;
        let errors = log.try_clone().map_err(file_error("write", &self.log_path()))?;
        let mut command = self.command(server, state.join);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        state.child = Some(self.thread.spawn(command)?);
        state.started_at = Instant::now();
        Ok(())
    }

    fn command(&self, server: &Server, join: bool) -> Command {
        // A server must not outlive the harness, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&server.binary).arg("server");
        command.args(["--node-id", &self.id.to_string()]).arg("--data-dir").arg(self.data_directory());
        command.args(["--client-address", &self.client_address()]);
        command.args(["--peer-address", &self.peer_address()]);
        command.args(["--http-address", &self.http_address()]);
        if join {
            command.arg("--join");
        } else {
            for (id, address) in &server.members {
                let member = format!("{id}={},{}", peer_address(*address), client_address(*address));
                command.args(["--member", &member]);
            }
        }
        // Meant for this process, if set.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"DWELL_")) {
            command.env_remove(name);
        }
        // Its network is the harness's own.
        command.env("DWELL_ALLOW_INSECURE", "true");
        command.envs(server.environment.iter().map(|(name, value)| (name, value)));
        command.envs(self.clock.environment());
        command
    }

    /// The number of its process, while it runs.
    pub(crate) fn process_id(&self) -> Option<u32> {
        let mut state = self.state.lock();
        let child = state.child.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// How often its process ended by itself so far.
    pub(crate) fn exits(&self) -> u32 {
        self.state.lock().exits
    }

    /// Kills the process, and has it stay away. No error if there is none.
    pub(crate) fn send_kill(&self) -> Result<(), HarnessError> {
        self.unwanted();
        self.signal(Signal::KILL)
    }

    /// Asks the process to end, and has it stay away.
    pub(crate) fn send_terminate(&self) -> Result<(), HarnessError> {
        self.unwanted();
        self.signal(Signal::TERM)
    }

    /// Has the process stay away once it has ended.
    fn unwanted(&self) {
        let mut state = self.state.lock();
        state.wanted = false;
        state.restart_at = None;
    }

    /// Waits until the process, which was told to end, is gone. None if there was none.
    pub(crate) async fn reap(&self) -> Result<Option<ExitStatus>, HarnessError> {
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            {
                let mut state = self.state.lock();
                let Some(child) = state.child.as_mut() else { return Ok(None) };
                if let Some(status) = self.exit_status(child)? {
                    remove_shared_clock(child.id());
                    state.child = None;
                    return Ok(Some(status));
                }
            }
            if Instant::now() >= deadline {
                return Err(HarnessError::Deadline {
                    what: format!("node {} has not ended", self.id),
                    waited: END_TIMEOUT,
                });
            }
            tokio::time::sleep(REAP_INTERVAL).await;
        }
    }

    /// Halts the process where it stands, and waits until all of it has halted. False if it does not run.
    pub(crate) async fn pause(&self) -> Result<bool, HarnessError> {
        let Some(process) = self.process_id() else { return Ok(false) };
        self.signal(Signal::STOP)?;
        let deadline = Instant::now() + END_TIMEOUT;
        while !has_halted(process) {
            if Instant::now() >= deadline {
                return Err(HarnessError::Deadline {
                    what: format!("node {} has not halted", self.id),
                    waited: END_TIMEOUT,
                });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(true)
    }

    /// Lets a halted process go on.
    pub(crate) fn resume(&self) -> Result<(), HarnessError> {
        self.signal(Signal::CONT)
    }

    /// True while the process is halted.
    pub(crate) fn is_paused(&self) -> bool {
        self.process_id().is_some_and(has_halted)
    }

    fn signal(&self, signal: Signal) -> Result<(), HarnessError> {
        let mut state = self.state.lock();
        let Some(child) = state.child.as_mut() else { return Ok(()) };
        // Not reaped yet, so that the number still is this process's, even if it has ended meanwhile.
        if self.exit_status(child)?.is_some() {
            return Ok(());
        }
        let Some(process) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return Ok(()) };
        kill_process(process, signal).map_err(system_error(format!("send a signal to node {}", self.id)))
    }

    fn exit_status(&self, child: &mut Child) -> Result<Option<ExitStatus>, HarnessError> {
        child.try_wait().map_err(system_error(format!("look at the process of node {}", self.id)))
    }

    /// What a supervisor does: notices that the process has ended, and starts it again after a while.
    pub(crate) fn supervise(&self, server: &Server, events: &Events) -> Result<(), HarnessError> {
        let mut state = self.state.lock();
        if !state.wanted {
            return Ok(());
        }
        if let Some(child) = state.child.as_mut()
            && let Some(status) = self.exit_status(child)?
        {
            remove_shared_clock(child.id());
            self.ended(&mut state, status, events);
        }
        if state.restart_at.is_some_and(|at| Instant::now() >= at) {
            self.spawn(server, &mut state)?;
            if is_told(state.repeated) {
                events.tell(EventKind::Restarted, Some(self.id), format!("after {} exits", state.exits));
            }
        }
        Ok(())
    }

    fn ended(&self, state: &mut MutexGuard<'_, State>, status: ExitStatus, events: &Events) {
        state.child = None;
        state.exits += 1;
        if state.started_at.elapsed() >= STARTED_WELL {
            state.backoff = BACKOFF.0;
        }
        state.restart_at = Some(Instant::now() + state.backoff);
        state.backoff = (state.backoff * 2).min(BACKOFF.1);
        let how = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
        let reason = format!("{how}: {}", self.last_words());
        let same = reason == state.last_reason;
        state.repeated = if same { state.repeated + 1 } else { 0 };
        let text = if same { format!("as before, {} times", state.repeated) } else { reason.clone() };
        state.last_reason = reason;
        if is_told(state.repeated) {
            events.tell(EventKind::Exited, Some(self.id), text);
        }
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let text = tail(&self.log_path()).unwrap_or_default();
        text.lines().next_back().unwrap_or_default().chars().take(TOLD_CHARACTERS).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.state.get_mut().child.take() {
            // Both fail only if it is gone already. Its disk can be unmounted only after it is.
            let _ = child.kill();
            let _ = child.wait();
            remove_shared_clock(child.id());
        }
    }
}

/// Whether an exit that is like those before it is told: the first few, and then one in ten.
fn is_told(repeated: u32) -> bool {
    repeated <= 1 || repeated.is_multiple_of(10)
}

fn client_address(address: Ipv4Addr) -> String {
    format!("{address}:{CLIENT_PORT}")
}

fn peer_address(address: Ipv4Addr) -> String {
    format!("{address}:{PEER_PORT}")
}

/// What the clock's library leaves in shared memory when its process is killed.
fn remove_shared_clock(process: u32) {
    for name in [format!("faketime_shm_{process}"), format!("sem.faketime_sem_{process}")] {
        // Not there if the process ended properly.
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(name));
    }
}

/// Whether all threads of a process stand still.
fn has_halted(process: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
    let mut states = threads.flatten().map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // After the name, which is in parentheses and may contain anything.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    });
    states.all(|halted| halted)
}

/// The last few kilobytes of a file.
fn tail(path: &Path) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
