//! Runs this program under callgrind, and reads how many instructions it took.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use super::HotPath;

/// What a counted process keeps of this one's environment. Everything else might change what it does.
const ENVIRONMENT_KEPT: [&str; 2] = ["PATH", "TMPDIR"];
/// What it is told besides.
const ENVIRONMENT_SET: [(&str, &str); 2] = [
    // Callgrind counts `rep movsb`, by which the C library copies 2 KiB and more where the processor has it, as an
    // instruction for each byte. So it copies by vectors, on every processor.
    ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS"),
    // The clock decides when the allocator returns memory to the system; here it never does.
    ("MIMALLOC_PURGE_DELAY", "-1"),
];

/// Counts instructions.
pub struct Callgrind {
    profiles: PathBuf,
    /// Deletes the profiles that nobody asked for.
    _temporary: Option<TempDir>,
}

impl Callgrind {
    /// Keeps what callgrind writes in a directory, if one is given.
    pub fn new(profiles: Option<PathBuf>) -> anyhow::Result<Callgrind> {
        let Some(profiles) = profiles else {
            let temporary = tempfile::tempdir()?;
            return Ok(Callgrind { profiles: temporary.path().to_owned(), _temporary: Some(temporary) });
        };
        std::fs::create_dir_all(&profiles).with_context(|| format!("cannot make {}", profiles.display()))?;
        Ok(Callgrind { profiles, _temporary: None })
    }

    /// Instructions of a process that does so many rounds of a path's work.
    pub async fn count(&self, path: HotPath, rounds: u64) -> anyhow::Result<u64> {
        let profile = self.profiles.join(format!("{}-{rounds}.callgrind", path.name()));
        let output = self.command(path, rounds, &profile)?.output().await;
        let output = output.context("cannot start valgrind: `make instructions-setup` installs it")?;
        if !output.status.success() {
            bail!("{} under callgrind: {}\n{}", path.name(), output.status, String::from_utf8_lossy(&output.stderr));
        }
        let text = std::fs::read_to_string(&profile).with_context(|| format!("cannot read {}", profile.display()))?;
        instructions(&text).with_context(|| profile.display().to_string())
    }

    fn command(&self, path: HotPath, rounds: u64, profile: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new("valgrind");
        let kept = ENVIRONMENT_KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.env_clear().envs(kept).envs(ENVIRONMENT_SET);
        command.args(["--tool=callgrind", "--read-inline-info=no"]);
        // Threads take turns, whoever else the machine is busy with.
        command.arg("--fair-sched=yes");
        command.arg(format!("--callgrind-out-file={}", profile.display()));
        command.arg(std::env::current_exe()?).arg("instructed").arg(path.name());
        command.args(["--rounds", &rounds.to_string()]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }
}

/// The total of a profile, as of callgrind 3.19.
fn instructions(profile: &str) -> anyhow::Result<u64> {
    let value = |name: &str| profile.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let events = value("events:").context("the profile does not say what it counts")?;
    ensure!(events == "Ir", "the profile counts `{events}`, not instructions alone");
    let totals = value("totals:").context("the profile has no total: it was broken off")?;
    totals.parse().with_context(|| format!("the profile has the total `{totals}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 4711
cmd:  dwell-bench instructed publish --rounds 1

part: 1

desc: I1 cache: \ndesc: Trigger: Program termination

positions: line
events: Ir
summary: 2312067


ob=(1) /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
fl=(1) ./elf/rtld.c
fn=(1) _dl_start
512 3
totals: 2312065
";

    #[test]
    fn the_total_of_a_profile_is_found() {
        assert_eq!(instructions(PROFILE).unwrap(), 2_312_065);
    }

    #[test]
    fn a_profile_that_was_broken_off_or_counts_something_else_is_refused() {
        assert!(instructions(PROFILE.split("totals").next().unwrap()).is_err());
        assert!(instructions(&PROFILE.replace("events: Ir", "events: Ir Dr Dw")).is_err());
        assert!(instructions(&PROFILE.replace("2312065", "many")).is_err());
        assert!(instructions("").is_err());
    }
}
