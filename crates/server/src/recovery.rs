//! What a node does about damage of its files: it refuses to go on with them, and begins anew from its peers.

use std::path::Path;
use std::sync::Arc;

use dwell_consensus::group::Group;
use dwell_consensus::peer::PeerLinks;
use dwell_consensus::recovery::{self, RecoveryGate};
use dwell_consensus::types::DEFAULT_GROUP;
use dwell_storage::damage::{Damage, DamageSignal, DamagedPart};
use dwell_storage::log::{GroupLogs, Log, LogError, LogOptions, read_votes};
use dwell_storage::recovery::{DataDirectory, DataDirectoryError};
use dwell_storage::state::{StateOptions, StateResources, StateStore};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use crate::config::Config;
use crate::node::{Environment, ServerError};

/// Why a node with damaged files cannot begin anew by itself.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Nobody else has the data.
    #[error(
        "{damage}; this node is configured as its cluster's only member, so there is nobody to recover the data from. \
         Move all that is in the data directory {directory} away; then begin anew with a backup \
         (`dwell backup restore`), or, without one, with nothing"
    )]
    Alone {
        /// What was found.
        damage: Damage,
        /// The data directory.
        directory: String,
    },
    /// It might vote twice in a term.
    #[error(
        "{damage}; and no copy of this node's vote in {directory} is readable: beginning anew, the node might vote \
         twice in one election. Remove it from the cluster and add a new one, with an id that was never used, and an \
         empty data directory"
    )]
    NoVote {
        /// What was found.
        damage: Damage,
        /// Where the votes are kept.
        directory: String,
    },
    /// A backup was being restored, and what is there may be a part of it, or nothing.
    #[error(
        "{directory} holds the beginning of a backup's restoration, which did not end: empty it, and restore the backup again"
    )]
    HalfRestored {
        /// The data directory.
        directory: String,
    },
    /// The marks could not be read or written, or stores not moved.
    #[error("recovering from damage: {0}")]
    Directory(#[from] DataDirectoryError),
}

/// A node's open stores.
pub struct Stores {
    /// The logs of all groups.
    pub logs: Arc<dyn GroupLogs>,
    /// The state of the one group.
    pub state: StateStore,
    /// Whether what is there is sound.
    pub recovery: Recovery,
}

/// Damage of a node's files, and what the node does about it.
pub struct Recovery {
    /// Where damage is reported.
    pub damage: DamageSignal,
    /// Closed while the node recovers.
    pub gate: RecoveryGate,
    recovering: IntGauge,
    corruption: IntCounterVec,
}

impl Stores {
    /// Opens the stores. Damaged ones are set aside, if the cluster has other members, and empty ones opened in their
    /// place.
    pub fn open(config: &Config, environment: &Environment, registry: &Registry) -> Result<Stores, ServerError> {
        let directory = DataDirectory::new(&config.data_dir);
        if directory.is_staged() {
            return Err(RecoveryError::HalfRestored { directory: config.data_dir.display().to_string() }.into());
        }
        let mut recovery = Recovery::new(&config.data_dir, registry)?;
        let open = |damage: &DamageSignal| {
            let state = open_state(config, environment, &directory, damage)?;
            let logs = match &environment.logs {
                Some(logs) => logs.clone(),
                None => open_log(&directory, registry, damage)?,
            };
            Ok((logs, state))
        };
        let opened = match directory.damage().map_err(RecoveryError::from)? {
            Some(noted) => Err(OpenError::Damaged(noted)),
            None => open(&recovery.damage),
        };
        let (logs, state) = match opened {
            Ok(stores) => stores,
            Err(OpenError::Other(error)) => return Err(error),
            Err(OpenError::Damaged(found)) => {
                recovery.count(&found);
                begin_anew(config, &directory, found)?;
                open(&recovery.damage).map_err(OpenError::into_error)?
            }
        };
        if let Some(begun) = directory.recovery().map_err(RecoveryError::from)? {
            tracing::warn!(reason = %begun.damage, aside = %begun.aside.display(), "recovering from the other nodes");
            recovery.recovering.set(1);
            recovery.gate = RecoveryGate::recovering();
        }
        Ok(Stores { logs, state, recovery })
    }
}

impl Recovery {
    fn new(data_directory: &Path, registry: &Registry) -> Result<Recovery, prometheus::Error> {
        let recovering = IntGauge::new(
            "dwell_recovering",
            "1 while this node fetches from its peers what it lost by damage; it does not vote meanwhile.",
        )?;
        let corruption = IntCounterVec::new(
            Opts::new(
                "dwell_corruption_total",
                "Damage found in this node's files, by part; that of the last stop too.",
            ),
            &["where"],
        )?;
        registry.register(Box::new(recovering.clone()))?;
        registry.register(Box::new(corruption.clone()))?;
        for part in DamagedPart::ALL {
            corruption.with_label_values(&[part.name()]);
        }
        Ok(Recovery {
            damage: DamageSignal::new(data_directory),
            gate: RecoveryGate::default(),
            recovering,
            corruption,
        })
    }

    /// Counts damage.
    pub fn count(&self, damage: &Damage) {
        self.corruption.with_label_values(&[damage.part.name()]).inc();
    }

    /// Waits until a node that recovers holds again all that it had, notes so durably, and lets it vote. Returns at
    /// once if it does not recover.
    pub async fn complete(&self, config: &Config, group: &Group, links: &PeerLinks) -> Result<(), RecoveryError> {
        if !self.gate.is_recovering() {
            return Ok(());
        }
        recovery::caught_up(&group.raft, links, DEFAULT_GROUP, config.node_id).await;
        DataDirectory::new(&config.data_dir).end_recovery()?;
        self.gate.end(&group.raft);
        self.recovering.set(0);
        tracing::info!("recovered: this node holds again all that it had acknowledged, and votes");
        Ok(())
    }
}

fn begin_anew(config: &Config, directory: &DataDirectory, damage: Damage) -> Result<(), RecoveryError> {
    tracing::error!(part = damage.part.name(), reason = damage.reason, "this node's files are damaged");
    if !config.join && config.members.len() < 2 {
        return Err(RecoveryError::Alone { damage, directory: config.data_dir.display().to_string() });
    }
    let votes = read_votes(&directory.votes(), DEFAULT_GROUP);
    if !votes.is_ok_and(|votes| !votes.is_empty()) {
        return Err(RecoveryError::NoVote { damage, directory: directory.votes().display().to_string() });
    }
    let recovery = directory.begin_recovery(&damage)?;
    tracing::warn!(aside = %recovery.aside.display(), "set the damaged files aside");
    Ok(())
}

enum OpenError {
    Damaged(Damage),
    Other(ServerError),
}

impl OpenError {
    fn into_error(self) -> ServerError {
        match self {
            OpenError::Damaged(damage) => ServerError::Damaged(damage),
            OpenError::Other(error) => error,
        }
    }
}

fn open_log(
    directory: &DataDirectory,
    registry: &Registry,
    damage: &DamageSignal,
) -> Result<Arc<dyn GroupLogs>, OpenError> {
    let path = directory.log();
    let options = LogOptions {
        registry: registry.clone(),
        votes_directory: Some(directory.votes()),
        damage: damage.clone(),
        ..LogOptions::default()
    };
    match Log::open(&path, options) {
        Ok(log) => Ok(log),
        Err(source @ LogError::Corrupt(_)) => {
            Err(OpenError::Damaged(Damage { part: DamagedPart::Log, reason: source.to_string() }))
        }
        Err(source) => Err(OpenError::Other(ServerError::Log { directory: path.display().to_string(), source })),
    }
}

fn open_state(
    config: &Config,
    environment: &Environment,
    directory: &DataDirectory,
    damage: &DamageSignal,
) -> Result<StateStore, OpenError> {
    let path = directory.groups().join(DEFAULT_GROUP.to_string());
    let failed =
        |reason: String| OpenError::Other(ServerError::State { directory: path.display().to_string(), reason });
    let options = StateOptions {
        memory_bytes: config.state_memory_bytes,
        compacts: environment.state_compacts,
        damage: damage.clone(),
        ..StateOptions::default()
    };
    let resources = StateResources::new(options).map_err(|error| failed(error.to_string()))?;
    StateStore::open(&path, &resources).map_err(|error| match error.is_damage() {
        true => OpenError::Damaged(Damage { part: DamagedPart::State, reason: error.to_string() }),
        false => failed(error.to_string()),
    })
}
