//! The file that remembers a cluster's members, so that a restart over its directory finds the same ones.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::LocalClusterError;
use crate::options::LocalClusterOptions;
use crate::ports;

const VERSION: u32 = 1;
const FILE_NAME: &str = "cluster.json";
/// Between the ports of one node and the next, when they are taken from a preferred first one.
const PORT_STRIDE: u16 = 10;

/// The ports of one node, all on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePorts {
    /// For clients, gRPC.
    pub client: u16,
    /// For the other nodes, gRPC.
    pub peer: u16,
    /// Metrics and health, HTTP.
    pub http: u16,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u32,
    /// Of node 1, 2, and so on.
    pub(crate) nodes: Vec<NodePorts>,
}

impl Manifest {
    /// Reads the directory's members, or chooses ports for new ones and writes them down.
    pub(crate) fn load_or_create(options: &LocalClusterOptions) -> Result<Self, LocalClusterError> {
        if options.nodes == 0 || options.nodes > LocalClusterError::NODES_MAX {
            return Err(LocalClusterError::Nodes(options.nodes));
        }
        let path = options.directory.join(FILE_NAME);
        if !path.exists() {
            let manifest = Self { version: VERSION, nodes: choose_ports(options)? };
            manifest.write(&path)?;
            return Ok(manifest);
        }
        let manifest = Self::read(&path)?;
        if manifest.nodes.len() != options.nodes {
            return Err(LocalClusterError::OtherSize {
                directory: options.directory.clone(),
                found: manifest.nodes.len(),
                wanted: options.nodes,
            });
        }
        Ok(manifest)
    }

    fn read(path: &Path) -> Result<Self, LocalClusterError> {
        let text = std::fs::read_to_string(path).map_err(file_error("read", path))?;
        let broken = |reason: String| LocalClusterError::Manifest { path: path.to_owned(), reason };
        let manifest: Self = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        if manifest.version != VERSION {
            return Err(broken(format!("its version is {}, this program knows {VERSION}", manifest.version)));
        }
        Ok(manifest)
    }

    /// Writes beside the file and renames, so that a crash leaves no half of it.
    fn write(&self, path: &Path) -> Result<(), LocalClusterError> {
        let temporary = path.with_extension("json.new");
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| LocalClusterError::Manifest { path: path.to_owned(), reason: error.to_string() })?;
        std::fs::write(&temporary, text + "\n").map_err(file_error("write", &temporary))?;
        std::fs::rename(&temporary, path).map_err(file_error("write", path))
    }
}

pub(crate) fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LocalClusterError {
    let path: PathBuf = path.to_owned();
    move |source| LocalClusterError::File { action, path, source }
}

fn choose_ports(options: &LocalClusterOptions) -> Result<Vec<NodePorts>, LocalClusterError> {
    if let Some(nodes) = options.first_port.and_then(|first| preferred(first, options.nodes)) {
        return Ok(nodes);
    }
    let ports = ports::free_ports(options.nodes * 3)?;
    Ok(ports.chunks_exact(3).map(|ports| NodePorts { client: ports[0], peer: ports[1], http: ports[2] }).collect())
}

/// The ports counted from a first one, if all of them are free.
fn preferred(first: u16, nodes: usize) -> Option<Vec<NodePorts>> {
    (0..u16::try_from(nodes).ok()?)
        .map(|node| {
            let client = first.checked_add(node.checked_mul(PORT_STRIDE)?)?;
            let ports = NodePorts { client, peer: client.checked_add(1)?, http: client.checked_add(2)? };
            [ports.client, ports.peer, ports.http].into_iter().all(ports::is_free).then_some(ports)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(directory: &Path, nodes: usize) -> LocalClusterOptions {
        LocalClusterOptions::new("dwell", nodes, directory)
    }

    #[test]
    fn a_second_start_finds_the_same_members() {
        let directory = tempfile::tempdir().unwrap();
        let first = Manifest::load_or_create(&options(directory.path(), 3)).unwrap();
        let second = Manifest::load_or_create(&options(directory.path(), 3)).unwrap();
        assert_eq!(first.nodes.len(), 3);
        assert_eq!(first, second);
    }

    #[test]
    fn another_number_of_nodes_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        Manifest::load_or_create(&options(directory.path(), 3)).unwrap();
        let error = Manifest::load_or_create(&options(directory.path(), 5)).unwrap_err();
        assert!(matches!(error, LocalClusterError::OtherSize { found: 3, wanted: 5, .. }), "{error}");
    }

    #[test]
    fn no_nodes_at_all_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = Manifest::load_or_create(&options(directory.path(), 0)).unwrap_err();
        assert!(matches!(error, LocalClusterError::Nodes(0)), "{error}");
    }

    #[test]
    fn a_damaged_file_is_named_and_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        std::fs::write(&path, "{ \"version\": 1, \"no").unwrap();
        let error = Manifest::load_or_create(&options(directory.path(), 3)).unwrap_err();
        assert!(error.to_string().contains(FILE_NAME), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{ \"version\": 1, \"no");
    }

    #[test]
    fn preferred_ports_are_used_when_they_are_free() {
        // Some of the ports next to a free one may be taken: a few tries find a place where none is.
        let nodes = (0..50).find_map(|_| preferred(ports::free_ports(1).ok()?[0], 2)).unwrap();
        assert_eq!(nodes[0].peer, nodes[0].client + 1);
        assert_eq!(nodes[0].http, nodes[0].client + 2);
        assert_eq!(nodes[1].client, nodes[0].client + PORT_STRIDE);
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert_eq!(preferred(taken.local_addr().unwrap().port(), 2), None);
    }
}
