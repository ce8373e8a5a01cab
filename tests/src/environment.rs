//! Where the server binary is, and clusters of it in temporary directories.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use dwell_local_cluster::{LocalCluster, LocalClusterOptions};
use tempfile::TempDir;

/// Names the binary when it is not where cargo puts it.
pub const BINARY_VARIABLE: &str = "DWELL_BINARY";

/// Long enough for three servers to start on a busy machine; a healthy one takes well under a second.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Microseconds since the Unix epoch, by the clock that the servers read as well.
pub fn now_us() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    now_us() / 1000
}

/// The `dwell` binary: what [`BINARY_VARIABLE`] names, or the one that cargo built beside this program.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        let path = PathBuf::from(path);
        anyhow::ensure!(path.is_file(), "{BINARY_VARIABLE} names {}, which is no file", path.display());
        return Ok(path);
    }
    let program = std::env::current_exe().context("where is this program?")?;
    // Programs are built into target/release, tests into target/release/deps.
    let candidates = program.ancestors().skip(1).take(2).map(|directory| directory.join("dwell"));
    candidates.into_iter().find(|path| path.is_file()).with_context(|| {
        format!(
            "no `dwell` binary near {}: build it with `cargo build --release -p dwell-cli`, or name one in {BINARY_VARIABLE}",
            program.display()
        )
    })
}

/// A cluster whose data goes away with it.
pub struct TestCluster {
    /// Declared before the directory, so that the servers are dead before it is deleted.
    cluster: LocalCluster,
    options: LocalClusterOptions,
    directory: Option<TempDir>,
}

impl TestCluster {
    /// Starts three nodes, with `environment` added to their own.
    pub async fn start(environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_nodes(3, environment).await
    }

    /// Starts as many nodes as asked for.
    pub async fn start_nodes(nodes: usize, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("dwell-test-")?;
        let mut options = LocalClusterOptions::new(binary()?, nodes, directory.path());
        options.ready_timeout = READY_TIMEOUT;
        options.environment = owned(environment);
        let cluster = LocalCluster::start(options.clone()).await?;
        Ok(Self { cluster, options, directory: Some(directory) })
    }

    /// Ends all nodes, and starts those that the cluster began with again, on their data, with this `environment` instead.
    pub async fn restart(&mut self, environment: &[(&str, &str)]) -> anyhow::Result<()> {
        self.cluster.stop_all().await?;
        self.options.environment = owned(environment);
        self.cluster = LocalCluster::start(self.options.clone()).await?;
        Ok(())
    }

    /// Where everything is.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(TempDir::path)
    }
}

fn owned(environment: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    environment.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

impl std::ops::Deref for TestCluster {
    type Target = LocalCluster;

    fn deref(&self) -> &LocalCluster {
        &self.cluster
    }
}

impl std::ops::DerefMut for TestCluster {
    fn deref_mut(&mut self) -> &mut LocalCluster {
        &mut self.cluster
    }
}

impl Drop for TestCluster {
    /// Keeps data and logs of a failed test for whoever looks into it.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("data and logs are kept in {}", directory.keep().display());
        }
    }
}

/// Waits until it is so, for [`READY_TIMEOUT`] at most.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + READY_TIMEOUT;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not within {READY_TIMEOUT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a scenario up to three times until its timing holds. Safety is asserted within it, each time; an `Err` says
/// what took too long. A machine whose disk or processor stalls for others' sake makes everything late on it, which
/// must not be taken for the broker's doing, nor hide when it is: that would be late every time.
pub async fn hold_in_time<F>(mut scenario: impl FnMut() -> F)
where
    F: Future<Output = Result<(), String>>,
{
    const ATTEMPTS: usize = 3;
    for attempt in 1..=ATTEMPTS {
        match scenario().await {
            Ok(()) => return,
            Err(late) => println!("attempt {attempt} of {ATTEMPTS}: {late}"),
        }
    }
    panic!("too late in each of {ATTEMPTS} attempts");
}
