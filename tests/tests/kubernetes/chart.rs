//! What the chart says of its pods, as `make kube-render` wrote it down, brought to this machine.
//!
//! What differs from a pod, and nothing else:
//! - a pod's host name is an address of its own on loopback, `127.A.B.N` for the pod N, and it listens there instead of on
//!   all addresses. The ports are the chart's.
//! - the paths of volumes are directories of the test, one for each claim; the binary's is where cargo built it.
//! - no user of its own, no read-only root file system, no limits: no container is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dwell_tests::environment::binary;
use serde_json::Value;
use tempfile::TempDir;

/// More pods than a test has.
const PODS_MAX: u32 = 16;
/// Of the service for clients: no pod's.
const SERVICE_HOST: u8 = 250;

/// The chart, with one of its value files.
pub struct Chart {
    objects: Vec<Value>,
    binary: PathBuf,
    /// The volumes, as long as the test lasts.
    volumes: TempDir,
    network: [u8; 2],
}

/// A process as a container would have it.
#[derive(Debug)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<String>,
    pub environment: BTreeMap<String, String>,
}

impl Chart {
    /// Reads what was rendered of `ci/CASE-values.yaml`.
    pub fn load(case: &str) -> Chart {
        let binary = binary().unwrap();
        // This test is in target/release/deps.
        let program = std::env::current_exe().unwrap();
        let path = program.ancestors().nth(3).unwrap().join("kubernetes").join(format!("{case}.json"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: `make kube-render` writes it", path.display()));
        Chart {
            objects: serde_json::from_str(&text).unwrap(),
            binary,
            volumes: TempDir::with_prefix("dwell-pods-").unwrap(),
            // Other tests have 127.0.0.1, and this one run at the same time has other numbers most likely.
            network: [rand::random_range(64..250), rand::random_range(1..250)],
        }
    }

    /// The one object of a kind.
    pub fn object(&self, kind: &str) -> &Value {
        let mut found = self.objects.iter().filter(|object| object["kind"] == kind);
        let object = found.next().unwrap_or_else(|| panic!("the chart has no {kind}"));
        assert!(found.next().is_none(), "more than one {kind}");
        object
    }

    /// How many pods there are at first.
    pub fn replicas(&self) -> u32 {
        self.object("StatefulSet")["spec"]["replicas"].as_u64().unwrap() as u32
    }

    /// How a pod is made.
    pub fn pod_spec(&self) -> &Value {
        &self.object("StatefulSet")["spec"]["template"]["spec"]
    }

    /// Its one container.
    pub fn container(&self) -> &Value {
        &self.pod_spec()["containers"][0]
    }

    /// A pod's address on loopback.
    pub fn host(&self, ordinal: u32) -> String {
        self.address(u8::try_from(ordinal).unwrap())
    }

    /// Where the other nodes reach a pod.
    pub fn peer(&self, ordinal: u32) -> String {
        format!("{}:{}", self.host(ordinal), self.port("peer"))
    }

    /// The client service's address.
    pub fn service_host(&self) -> String {
        self.address(SERVICE_HOST)
    }

    fn address(&self, host: u8) -> String {
        let [a, b] = self.network;
        format!("127.{a}.{b}.{host}")
    }

    /// A port of the container by its name.
    pub fn port(&self, name: &str) -> u16 {
        let ports = self.container()["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["name"] == name).unwrap();
        port["containerPort"].as_u64().unwrap() as u16
    }

    /// What a pod's claim holds.
    pub fn volume(&self, ordinal: u32) -> PathBuf {
        self.volumes.path().join(format!("data-{}", self.pod_name(ordinal)))
    }

    /// Where a pod's output goes.
    pub fn log(&self, ordinal: u32) -> PathBuf {
        self.volumes.path().join(format!("{}.log", self.pod_name(ordinal)))
    }

    pub fn pod_name(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.object("StatefulSet")["metadata"]["name"].as_str().unwrap())
    }

    /// The node's process.
    pub fn server(&self, ordinal: u32) -> Program {
        self.write_config();
        self.program(self.container(), &[], Some(ordinal))
    }

    /// What runs before the pod is stopped.
    pub fn pre_stop(&self, ordinal: u32) -> Program {
        let command = &self.container()["lifecycle"]["preStop"]["exec"]["command"];
        self.program(self.container(), command.as_array().unwrap(), Some(ordinal))
    }

    /// What runs before and after an upgrade to fewer pods.
    pub fn prune(&self) -> Program {
        self.program(&self.object("Job")["spec"]["template"]["spec"]["containers"][0], &[], None)
    }

    /// A command of a container, or the container's own.
    fn program(&self, container: &Value, command: &[Value], ordinal: Option<u32>) -> Program {
        let environment = self.environment(container, ordinal);
        let mut words: Vec<String> = match command {
            [] => ["command", "args"].iter().flat_map(|key| container[*key].as_array().unwrap()).cloned().collect(),
            command => command.to_vec(),
        }
        .iter()
        .map(|word| self.localize(&expand(word.as_str().unwrap(), &environment), ordinal))
        .collect();
        assert_eq!(words.remove(0), "/usr/local/bin/dwell");
        Program { path: self.binary.clone(), arguments: words, environment }
    }

    fn environment(&self, container: &Value, ordinal: Option<u32>) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        for variable in container["env"].as_array().unwrap() {
            let value = match variable["value"].as_str() {
                Some(value) => self.localize(&expand(value, &environment), ordinal),
                None => {
                    assert_eq!(variable["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name", "{variable}");
                    self.pod_name(ordinal.unwrap())
                }
            };
            environment.insert(variable["name"].as_str().unwrap().to_owned(), value);
        }
        environment
    }

    /// Names and paths of the cluster become this machine's.
    fn localize(&self, text: &str, ordinal: Option<u32>) -> String {
        let set = self.object("StatefulSet");
        let (name, namespace) = (set["metadata"]["name"].as_str().unwrap(), &set["metadata"]["namespace"]);
        let suffix = format!(
            ".{}.{}.svc.cluster.local",
            set["spec"]["serviceName"].as_str().unwrap(),
            namespace.as_str().unwrap()
        );
        let [a, b] = self.network;
        let mut text = text.replace(&format!("{name}-{{ordinal}}{suffix}"), &format!("127.{a}.{b}.{{ordinal}}"));
        for other in 0..PODS_MAX {
            text = text.replace(&format!("{name}-{other}{suffix}"), &self.host(other));
        }
        if let Some(ordinal) = ordinal {
            text = text.replace("0.0.0.0", &self.host(ordinal));
            text = text.replace("/var/lib/dwell", &self.volume(ordinal).to_string_lossy());
        }
        text.replace("/etc/dwell", &self.config_directory().to_string_lossy())
    }

    fn config_directory(&self) -> PathBuf {
        self.volumes.path().join("config")
    }

    fn write_config(&self) {
        for (name, contents) in self.object("ConfigMap")["data"].as_object().unwrap() {
            let localized =
                contents.as_str().unwrap().replace("/etc/dwell", &self.config_directory().to_string_lossy());
            self.provide(name, &localized);
        }
    }

    /// Puts a file where a mounted secret or config map has it, below `/etc/dwell`.
    pub fn provide(&self, path: &str, content: &str) {
        let path = self.config_directory().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Loses a pod's claim.
    pub fn lose_volume(&self, ordinal: u32) {
        let volume: &Path = &self.volume(ordinal);
        std::fs::remove_dir_all(volume).unwrap();
    }
}

/// `$(NAME)`, as the kubelet does.
fn expand(text: &str, environment: &BTreeMap<String, String>) -> String {
    let mut text = text.to_owned();
    for (name, value) in environment {
        text = text.replace(&format!("$({name})"), value);
    }
    assert!(!text.contains("$("), "{text} asks for a variable that there is not");
    text
}
