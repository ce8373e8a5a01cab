//! Nodes run exactly as the chart's pods would: command, environment, probes, preStop, termination grace, and the Job that
//! removes members. They are rolled, scaled from 3 to 5 to 3, and lose a volume, under load.
#![allow(clippy::unwrap_used, reason = "a test")]

mod chart;
mod kubelet;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dwell_client::{Client, ClientOptions, ClusterStatus, Error, QueueSettings};
use dwell_tests::certificates::Authority;
use dwell_tests::environment::{hold_in_time, now_us};
use dwell_tests::history::{History, Recorder};
use dwell_tests::report::milliseconds;
use dwell_tests::workload::{Consumption, Production, wait_until_drained};
use parking_lot::Mutex;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use chart::Chart;
use kubelet::{Condition, Pod};
use service::Service;

const QUEUE: &str = "rolled";
const READY_TIMEOUT: Duration = Duration::from_secs(90);
/// Messages that are published in one go, one after the other.
const PORTION: u64 = 400;
const INTERVAL: Duration = Duration::from_millis(10);
/// The leadership is handed over: no election is waited for. Some 80 ms were measured; a busy machine pauses by itself.
const GAP_MAX: Duration = Duration::from_secs(1);
/// How often calls through the service are made.
const CALL_INTERVAL: Duration = Duration::from_millis(100);

/// The StatefulSet with its service, and what its users see.
struct World {
    chart: Arc<Chart>,
    /// Who looks at it.
    options: ClientOptions,
    pods: BTreeMap<u32, Pod>,
    service: Service,
    /// Of pods that are gone.
    ended: Vec<Condition>,
}

impl World {
    async fn start(case: &str) -> World {
        World::start_for(Chart::load(case), ClientOptions::default()).await
    }

    async fn start_for(chart: Chart, options: ClientOptions) -> World {
        let chart = Arc::new(chart);
        let service = Service::start(&chart).await;
        let mut world = World { chart, options, pods: BTreeMap::new(), service, ended: Vec::new() };
        world.scale_up(world.chart.replicas()).await;
        world
    }

    /// All at once, as podManagementPolicy says.
    async fn scale_up(&mut self, replicas: u32) {
        let new: Vec<u32> = (0..replicas).filter(|ordinal| !self.pods.contains_key(ordinal)).collect();
        for ordinal in &new {
            self.start_pod(*ordinal);
        }
        for ordinal in new {
            self.pods[&ordinal].ready(READY_TIMEOUT).await;
            self.assert_votes(ordinal).await;
        }
    }

    /// Who restarts or drains pods counts those that are ready. A learner must not be one.
    async fn assert_votes(&self, ordinal: u32) {
        let address = format!("{}:{}", self.chart.host(ordinal), self.chart.port("client"));
        let client = Client::connect_with([address], self.options.clone()).unwrap();
        let status = leader_status(&client).await;
        let own = status.members.iter().find(|member| member.peer_address.starts_with(&self.chart.peer(ordinal)));
        assert!(own.is_some_and(|own| own.voter), "pod {ordinal} is ready, and has no vote: {status:?}");
    }

    fn start_pod(&mut self, ordinal: u32) {
        let pod = Pod::start(&self.chart, ordinal);
        self.service.add(&pod);
        self.pods.insert(ordinal, pod);
    }

    async fn delete(&mut self, ordinal: u32) {
        self.service.withdraw(ordinal);
        let before = self.service.connections(ordinal);
        let pod = self.pods.remove(&ordinal).unwrap();
        self.ended.push(pod.delete().await);
        assert_eq!(self.service.connections(ordinal), before, "a pod that is to stop was given connections");
    }

    /// One after the other, the last first, each when the one before is ready.
    async fn roll(&mut self) {
        for ordinal in (0..self.pods.len() as u32).rev() {
            self.delete(ordinal).await;
            self.start_pod(ordinal);
            self.pods[&ordinal].ready(READY_TIMEOUT).await;
        }
    }

    /// As an upgrade does: the Job, then the pods, then the Job.
    async fn scale_down(&mut self, replicas: u32) {
        self.prune(replicas).await;
        let going: Vec<u32> = self.pods.keys().copied().filter(|ordinal| *ordinal >= replicas).collect();
        for ordinal in going.into_iter().rev() {
            self.delete(ordinal).await;
        }
        self.prune(replicas).await;
    }

    async fn prune(&self, replicas: u32) {
        let job = self.chart.prune();
        assert!(job.arguments.contains(&format!("--replicas={replicas}")), "{job:?}");
        let done = Command::new(&job.path).args(&job.arguments).env_clear().envs(&job.environment).output();
        let done = done.await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        print!("{}", String::from_utf8_lossy(&done.stdout));
    }

    /// The members by their pods, as the leader knows them, when all are voters and there are so many.
    async fn members(&self, client: &Client, count: usize) -> BTreeMap<u32, u64> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let status = client.leader_status().await;
            if let Ok(status) = &status
                && status.members.len() == count
                && status.members.iter().all(|member| member.voter)
            {
                let by_host: BTreeMap<&str, u64> = status
                    .members
                    .iter()
                    .map(|member| (member.peer_address.rsplit_once(':').unwrap().0, member.node_id))
                    .collect();
                let ordinals = self.pods.keys().copied().take(count);
                return ordinals.map(|ordinal| (ordinal, by_host[self.chart.host(ordinal).as_str()])).collect();
            }
            assert!(Instant::now() < deadline, "there should be {count} voters: {status:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What the leader says, if not at once: it may change just then.
async fn leader_status(client: &Client) -> ClusterStatus {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        match client.leader_status().await {
            Ok(status) => return status,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Publishes and consumes until it is told to end.
struct Load {
    over: Arc<AtomicBool>,
    producing: JoinHandle<u64>,
    calling: JoinHandle<u64>,
    recorder: Recorder,
    /// Steps in which confirms paused for too long.
    late: Mutex<Vec<String>>,
}

impl Load {
    /// Messages go through the service, where the pods forward them, as for a client that knows no pod.
    fn start(through_service: Client, recorder: Recorder) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let (done, client, written) = (over.clone(), through_service.clone(), recorder.clone());
        let producing = tokio::spawn(async move {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                let production = Production {
                    queue: QUEUE.to_owned(),
                    first_id: sent,
                    messages: PORTION,
                    interval: INTERVAL,
                    delay_ms_max: 2_000,
                    body_bytes: 256,
                };
                production.run(client.clone(), written.clone()).await.unwrap();
                sent += PORTION;
            }
            sent
        });
        let (done, client) = (over.clone(), through_service);
        let calling = tokio::spawn(async move {
            let mut calls = 0;
            while !done.load(Ordering::Relaxed) {
                client.queue_counts(QUEUE).await.unwrap();
                calls += 1;
                tokio::time::sleep(CALL_INTERVAL).await;
            }
            calls
        });
        Load { over, producing, calling, recorder, late: Mutex::default() }
    }

    /// Runs a step, and says how long confirms paused in it.
    async fn during<T>(&self, what: &str, step: impl Future<Output = T>) -> T {
        let began_us = now_us();
        // Sessions move to another node: what was on its way may be delivered again.
        self.recorder.killed();
        let done = step.await;
        let (gap, took) = (longest_gap_us(&self.recorder.history(), began_us), now_us() - began_us);
        println!("{what}: {} s, longest confirm gap {}", took / 1_000_000, milliseconds(gap));
        if Duration::from_micros(gap) >= GAP_MAX {
            self.late.lock().push(format!("{what}: no confirm for {}", milliseconds(gap)));
        }
        done
    }

    /// How much was sent, and what took too long.
    async fn end(self) -> (u64, Vec<String>) {
        self.over.store(true, Ordering::Relaxed);
        let calls = self.calling.await.unwrap();
        println!("{calls} other calls through the service, none failed");
        (self.producing.await.unwrap(), self.late.into_inner())
    }
}

fn longest_gap_us(history: &History, began_us: u64) -> u64 {
    let mut times: Vec<u64> = history.published.values().filter_map(|published| published.confirmed_at_us).collect();
    times.retain(|at| *at >= began_us);
    times.extend([began_us, now_us()]);
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_the_chart_roll_scale_and_lose_a_volume_under_load_and_nothing_is_lost() {
    hold_in_time(roll_scale_and_lose_a_volume).await;
}

async fn roll_scale_and_lose_a_volume() -> Result<(), String> {
    let mut world = World::start("default").await;
    let seeds = [world.service.address.clone()];
    let client = Client::connect(seeds.clone()).unwrap();
    let through_service = Client::connect_with(seeds, ClientOptions::default().follow_leader(false)).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let founders = world.members(&client, 3).await;
    assert_eq!(founders, BTreeMap::from([(0, 1), (1, 2), (2, 3)]));
    let recorder = Recorder::default();
    let consumption = Consumption { queue: QUEUE.to_owned(), number: 0, credit: 100 };
    let consumer = consumption.start(&client, recorder.clone()).await.unwrap();
    let load = Load::start(through_service, recorder.clone());

    load.during("rolling 3 pods", world.roll()).await;
    assert_eq!(world.members(&client, 3).await, founders, "a node keeps its id with its data");

    load.during("scaling from 3 to 5", world.scale_up(5)).await;
    let five = world.members(&client, 5).await;
    assert_eq!(five.values().filter(|id| **id > 1000).count(), 2, "those that joined have ids of their own: {five:?}");

    load.during("scaling from 5 to 3", world.scale_down(3)).await;
    assert_eq!(world.members(&client, 3).await, founders);

    // A founder comes back without its data: no second cluster, and no id whose votes are forgotten.
    let lost = async {
        world.delete(0).await;
        world.chart.lose_volume(0);
        world.start_pod(0);
        world.pods[&0].ready(READY_TIMEOUT).await;
        world.assert_votes(0).await;
    };
    load.during("losing the volume of pod 0", lost).await;
    let replaced = world.members(&client, 3).await;
    assert!(replaced[&0] > 1000 && replaced[&1] == 2 && replaced[&2] == 3, "{replaced:?}");

    // A pod that was scaled away comes back to its volume.
    load.during("scaling from 3 to 4", world.scale_up(4)).await;
    let four = world.members(&client, 4).await;
    assert_eq!(four[&3], five[&3], "it goes on with its data, and so with its id");
    load.during("scaling from 4 to 3", world.scale_down(3)).await;
    world.members(&client, 3).await;

    let (sent, late) = load.end().await;
    let drained = wait_until_drained(&client, QUEUE, Duration::from_secs(60)).await;
    let verdict = recorder.history().check(&[]);
    println!("{verdict}");
    drained.unwrap();
    consumer.stop().await.unwrap();
    assert_eq!(verdict.violations, [], "lost, early or unexplained repeated messages");
    assert_eq!(verdict.confirmed as u64, sent);
    assert!(client.digest().await.unwrap().is_equal());
    assert_eq!(world.service.refused(), 0, "there was always a pod that took connections");
    let conditions: Vec<Condition> = world.pods.values().map(Pod::condition).chain(world.ended.clone()).collect();
    assert!(conditions.iter().all(|condition| condition.restarts == 0 && !condition.was_killed), "{conditions:?}");
    let logs: Vec<String> = (0..5).map(|ordinal| std::fs::read_to_string(world.chart.log(ordinal)).unwrap()).collect();
    assert!(logs.iter().any(|log| log.contains("handed over: node")), "no leader was stopped in order");
    if late.is_empty() { Ok(()) } else { Err(late.join("; ")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_waits_alive_and_not_ready_until_all_founders_are_there() {
    let chart = Arc::new(Chart::load("default"));
    let started: BTreeMap<u32, Pod> = [0, 1, 3].map(|ordinal| (ordinal, Pod::start(&chart, ordinal))).into();
    // Longer than the liveness probe's patience is not needed: it is asked as the startup probe is, and answers.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for ordinal in [0, 1, 3] {
        let address = format!("{}:{}", chart.host(ordinal), chart.port("http"));
        assert_eq!(dwell_local_cluster::http_get(&address, "/healthz").await.unwrap().0, 200);
        let (code, reason) = dwell_local_cluster::http_get(&address, "/readyz").await.unwrap();
        assert_eq!(code, 503);
        assert!(reason.contains(if ordinal == 3 { "a cluster to join" } else { "[2]" }), "{ordinal}: {reason}");
    }
    let third = Pod::start(&chart, 2);
    for pod in started.values().chain([&third]) {
        pod.ready(READY_TIMEOUT).await;
        assert_eq!(pod.condition(), Condition { is_ready: true, ..Condition::default() });
    }
    let client = Client::connect([format!("{}:{}", chart.host(1), chart.port("client"))]).unwrap();
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let status = leader_status(&client).await;
        if status.members.len() == 4 && status.members.iter().all(|member| member.voter) {
            let founders: BTreeSet<u64> = status.members.iter().map(|member| member.node_id).collect();
            assert!(founders.is_superset(&BTreeSet::from([1, 2, 3])), "{status:?}");
            break;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_with_tls_and_users_form_a_cluster_hand_over_join_and_leave() {
    const PASSWORD: &str = "the password of the secret";
    let chart = Chart::load("authentication");
    let authority = Authority::new().unwrap();
    let secrets = tempfile::tempdir().unwrap();
    let hosts: Vec<String> = (0..4).map(|ordinal| chart.host(ordinal)).chain([chart.service_host()]).collect();
    let files = authority.sign_for("dwell", &hosts, &[&authority], 2090, secrets.path()).unwrap();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let (certificate, key) = files.identity.clone().unwrap();
    chart.provide("tls/tls.crt", &read(&certificate));
    chart.provide("tls/tls.key", &read(&key));
    chart.provide("tls/ca.crt", &read(files.authority.as_ref().unwrap()));
    chart.provide("credentials/password", PASSWORD);
    // An issuer's, of the examples of RFC 7517.
    let public = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","kid":"1"}]}"#;
    chart.provide("jwks/jwks.json", public);
    let nobody = ClientOptions::default().tls(files).unwrap().retry_deadline(READY_TIMEOUT);
    let options = nobody.clone().login("admin", PASSWORD);
    let mut world = World::start_for(chart, options.clone()).await;
    let seeds = [world.service.address.clone()];
    let client = Client::connect_with(seeds.clone(), options).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let unknown = Client::connect_with(seeds, nobody).unwrap().list_queues("").await.unwrap_err();
    assert!(matches!(unknown, Error::Unauthenticated(_)), "{unknown}");

    // Whoever leads is stopped in order, by a call that its pod makes.
    let leader = leader_status(&client).await.node_id;
    let members = world.members(&client, 3).await;
    let (ordinal, _) = members.into_iter().find(|(_, node_id)| *node_id == leader).unwrap();
    world.delete(ordinal).await;
    let log = read(&world.chart.log(ordinal));
    assert!(log.contains("handed over: node"), "{log}");
    world.start_pod(ordinal);
    world.pods[&ordinal].ready(READY_TIMEOUT).await;
    world.scale_up(4).await;
    world.members(&client, 4).await;
    world.scale_down(3).await;
    world.members(&client, 3).await;
    client.describe_queue(QUEUE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pod_of_the_development_values_is_a_cluster() {
    let mut world = World::start("development").await;
    let client = Client::connect([world.service.address.clone()]).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    world.roll().await;
    client.describe_queue(QUEUE).await.unwrap();
    assert!(world.ended.iter().all(|condition| !condition.was_killed), "{:?}", world.ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_that_lost_their_volumes_form_no_second_cluster_while_a_node_of_the_first_is_there() {
    let mut world = World::start("default").await;
    let pods = std::mem::take(&mut world.pods);
    futures::future::join_all(pods.into_values().map(Pod::delete)).await;
    let ask = async |ordinal: u32, path: &str| {
        let address = format!("{}:{}", world.chart.host(ordinal), world.chart.port("http"));
        dwell_local_cluster::http_get(&address, path).await.unwrap_or_default()
    };
    let says = async |ordinal: u32, path: &str, wanted: &str| {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let (code, said) = ask(ordinal, path).await;
            if said.contains(wanted) {
                return code;
            }
            assert!(Instant::now() < deadline, "pod {ordinal} should say {wanted} at {path}: {code} {said}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let mut emptied = Vec::new();
    for ordinal in [0, 1] {
        world.chart.lose_volume(ordinal);
        emptied.push(Pod::start(&world.chart, ordinal));
    }
    for ordinal in [0, 1] {
        assert_eq!(says(ordinal, "/readyz", "waiting for the pods [2]").await, 503);
    }
    // The third has its data, and without the others no majority. It keeps them from beginning anew.
    let _third = Pod::start(&world.chart, 2);
    says(2, "/enrolment", "started").await;
    for ordinal in [0, 1] {
        assert_eq!(says(ordinal, "/readyz", "waiting for the cluster to take this node in").await, 503);
        assert_eq!(ask(ordinal, "/enrolment").await, (200, "empty\n".to_owned()));
    }
}
