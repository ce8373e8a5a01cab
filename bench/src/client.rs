//! The process that makes a load, seen from the one that measures.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use dwell_load::LoadReport;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::load::{Assignment, Course, Event};

/// A process that makes a load. Dropping it kills it.
pub struct LoadProcess {
    child: Child,
    input: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
}

impl LoadProcess {
    /// Starts it, and waits until its queues and consumers are there.
    pub async fn prepare(assignment: &Assignment) -> anyhow::Result<LoadProcess> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("load").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // So that Ctrl-C in a terminal reaches this program only, which ends the load itself.
        command.process_group(0);
        let mut child = command.spawn().context("cannot start the load")?;
        let input = child.stdin.take().context("the load has no input")?;
        let output = child.stdout.take().context("the load has no output")?;
        let mut process = LoadProcess { child, input, events: BufReader::new(output).lines() };
        process.say(&serde_json::to_string(assignment)?).await?;
        match process.event().await? {
            Event::Ready => Ok(process),
            other => bail!("the load says {other:?} before it is ready"),
        }
    }

    /// Lets it begin.
    pub async fn begin(&mut self) -> anyhow::Result<()> {
        self.say("begin").await
    }

    /// Waits until all was published and received. Cancel safe.
    pub async fn measured(&mut self) -> anyhow::Result<Course> {
        match self.event().await? {
            Event::Measured(course) => Ok(course),
            other => bail!("the load says {other:?} where it should be measured"),
        }
    }

    /// Waits for its report, and its end.
    pub async fn report(mut self) -> anyhow::Result<LoadReport> {
        let Event::Report(report) = self.event().await? else { bail!("the load does not report") };
        self.child.wait().await?;
        Ok(*report)
    }

    async fn say(&mut self, line: &str) -> anyhow::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    async fn event(&mut self) -> anyhow::Result<Event> {
        match self.events.next_line().await? {
            Some(line) => serde_json::from_str(&line).with_context(|| format!("the load says {line:?}")),
            None => bail!("the load broke off; it says why above"),
        }
    }
}
