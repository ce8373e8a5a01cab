//! Runs a pod's container as a kubelet does: probes at their intervals, a restart when it ends or hangs, and at its end
//! preStop, SIGTERM, and SIGKILL when the grace is over.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use dwell_local_cluster::http_get;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::chart::{Chart, Program};

/// What others see of a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Condition {
    /// Clients may be sent to it.
    pub is_ready: bool,
    /// How often its container was started again.
    pub restarts: u32,
    /// It did not end within its grace.
    pub was_killed: bool,
}

/// A running pod.
pub struct Pod {
    pub ordinal: u32,
    condition: watch::Receiver<Condition>,
    terminate: watch::Sender<bool>,
    runs: JoinHandle<()>,
}

impl Pod {
    /// Starts it over its volume.
    pub fn start(chart: &Arc<Chart>, ordinal: u32) -> Pod {
        let (seen, condition) = watch::channel(Condition::default());
        let (terminate, terminated) = watch::channel(false);
        let kubelet = Kubelet { chart: chart.clone(), ordinal, seen, terminated };
        Pod { ordinal, condition, terminate, runs: tokio::spawn(kubelet.run()) }
    }

    pub fn condition(&self) -> Condition {
        *self.condition.borrow()
    }

    /// Lets others watch it.
    pub fn watch(&self) -> watch::Receiver<Condition> {
        self.condition.clone()
    }

    /// Waits until its readiness probe succeeds.
    pub async fn ready(&self, within: Duration) {
        let mut condition = self.condition.clone();
        let ready = timeout(within, condition.wait_for(|condition| condition.is_ready)).await;
        assert!(ready.is_ok(), "pod {} is not ready after {within:?}: {:?}", self.ordinal, self.condition());
    }

    /// Deletes it, and waits until it is gone.
    pub async fn delete(mut self) -> Condition {
        self.terminate.send_replace(true);
        (&mut self.runs).await.unwrap();
        self.condition()
    }
}

struct Kubelet {
    chart: Arc<Chart>,
    ordinal: u32,
    seen: watch::Sender<Condition>,
    terminated: watch::Receiver<bool>,
}

/// Why a container is not to run any more.
enum End {
    Ended(String),
    Unhealthy(String),
    Deleted,
}

impl Kubelet {
    async fn run(self) {
        let mut terminated = self.terminated.clone();
        loop {
            let mut container = spawn(&self.chart, self.ordinal, &self.chart.server(self.ordinal));
            let end = tokio::select! {
                status = container.wait() => End::Ended(format!("ended by itself: {status:?}")),
                failed = self.probe() => End::Unhealthy(failed),
                () = deleted(&mut terminated) => End::Deleted,
            };
            self.set_ready(false);
            match end {
                End::Deleted => return self.stop(container).await,
                End::Ended(why) => println!("pod {}: {why}", self.ordinal),
                End::Unhealthy(why) => {
                    println!("pod {}: {why}", self.ordinal);
                    container.kill().await.unwrap();
                }
            }
            self.seen.send_modify(|condition| condition.restarts += 1);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Probes until one that it dies of has failed too often, and says which.
    async fn probe(&self) -> String {
        let container = self.chart.container().clone();
        let startup = self.until(&container["startupProbe"], true).await;
        if let Err(failed) = startup {
            return format!("the startup probe failed: {failed}");
        }
        let liveness = self.until(&container["livenessProbe"], false);
        tokio::select! {
            failed = liveness => format!("the liveness probe failed: {failed:?}"),
            () = self.follow_readiness(&container["readinessProbe"]) => unreachable!("goes on for ever"),
        }
    }

    /// Asks until a probe succeeds, if that is wanted, or fails as often in a row as it may.
    async fn until(&self, probe: &Value, success_ends: bool) -> Result<(), String> {
        let (mut ticks, failures_max) = (ticks(probe), failures_max(probe));
        let mut failures = 0;
        loop {
            ticks.tick().await;
            match self.ask(probe).await {
                Ok(()) if success_ends => return Ok(()),
                Ok(()) => failures = 0,
                Err(failed) => {
                    failures += 1;
                    if failures >= failures_max {
                        return Err(failed);
                    }
                }
            }
        }
    }

    async fn follow_readiness(&self, probe: &Value) {
        let (mut ticks, failures_max) = (ticks(probe), failures_max(probe));
        let mut failures = 0;
        loop {
            ticks.tick().await;
            match self.ask(probe).await {
                Ok(()) => {
                    failures = 0;
                    self.set_ready(true);
                }
                Err(_) => failures += 1,
            }
            if failures >= failures_max {
                self.set_ready(false);
            }
        }
    }

    async fn ask(&self, probe: &Value) -> Result<(), String> {
        let port = self.chart.port(probe["httpGet"]["port"].as_str().unwrap());
        let address = format!("{}:{port}", self.chart.host(self.ordinal));
        let path = probe["httpGet"]["path"].as_str().unwrap();
        let within = Duration::from_secs(probe["timeoutSeconds"].as_u64().unwrap_or(1));
        match timeout(within, http_get(&address, path)).await {
            Ok(Ok((200..=399, _))) => Ok(()),
            Ok(Ok((code, body))) => Err(format!("{path}: {code} {body}")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!("{path}: no answer within {within:?}")),
        }
    }

    fn set_ready(&self, is_ready: bool) {
        self.seen.send_if_modified(|condition| std::mem::replace(&mut condition.is_ready, is_ready) != is_ready);
    }

    async fn stop(&self, mut container: Child) {
        let grace = self.chart.pod_spec()["terminationGracePeriodSeconds"].as_u64().unwrap();
        let deadline = Instant::now() + Duration::from_secs(grace);
        let mut hook = spawn(&self.chart, self.ordinal, &self.chart.pre_stop(self.ordinal));
        let status = tokio::time::timeout_at(deadline, hook.wait()).await;
        assert!(status.is_ok_and(|status| status.is_ok_and(|status| status.success())), "preStop of {}", self.ordinal);
        let Some(id) = container.id() else { return };
        rustix::process::kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
        if tokio::time::timeout_at(deadline, container.wait()).await.is_err() {
            self.seen.send_modify(|condition| condition.was_killed = true);
            container.kill().await.unwrap();
        }
    }
}

async fn deleted(terminated: &mut watch::Receiver<bool>) {
    if terminated.wait_for(|is_over| *is_over).await.is_err() {
        std::future::pending().await
    }
}

fn ticks(probe: &Value) -> tokio::time::Interval {
    let mut ticks = interval(Duration::from_secs(probe["periodSeconds"].as_u64().unwrap()));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn failures_max(probe: &Value) -> u64 {
    probe["failureThreshold"].as_u64().unwrap()
}

/// A container has the variables that it is given, and no others.
fn spawn(chart: &Chart, ordinal: u32, program: &Program) -> Child {
    std::fs::create_dir_all(chart.volume(ordinal)).unwrap();
    let log = std::fs::OpenOptions::new().create(true).append(true).open(chart.log(ordinal)).unwrap();
    Command::new(&program.path)
        .args(&program.arguments)
        .env_clear()
        .envs(&program.environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
