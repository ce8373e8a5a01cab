//! TLS of the client port and the peer port: opened at the start, and kept up with its files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dwell_transport::{Tcp, Tls, TlsFiles, Transport};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use tokio::task::AbortHandle;

use crate::config::Config;
use crate::node::ServerError;

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// How clients and peers reach this node.
pub(crate) struct TlsPorts {
    ports: Vec<(&'static str, Tls)>,
    metrics: Metrics,
    /// See [`TlsPorts::keep_up`].
    task: Option<AbortHandle>,
}

#[derive(Clone)]
struct Metrics {
    expiry: IntGaugeVec,
    reloads: IntCounterVec,
    handshake_failures: IntCounterVec,
}

const CLIENTS: &str = "clients";
const PEERS: &str = "peers";

impl TlsPorts {
    /// Reads the files that are configured.
    pub fn open(config: &Config) -> Result<TlsPorts, ServerError> {
        let metrics = Metrics::new()?;
        let configured = [(CLIENTS, config.client_tls()), (PEERS, config.peer_tls())];
        let mut ports = Vec::new();
        for (port, files) in configured {
            let Some(files) = files else { continue };
            let failures = metrics.handshake_failures.with_label_values(&[port]);
            let tls = Tls::open(files)?.on_handshake_failure(Arc::new(move || failures.inc()));
            metrics.reloads.with_label_values(&[port, "done"]);
            metrics.reloads.with_label_values(&[port, "failed"]);
            ports.push((port, tls));
        }
        let tls = TlsPorts { ports, metrics, task: None };
        tls.tell_expiry();
        Ok(tls)
    }

    /// How clients come in.
    pub fn clients(&self) -> Arc<dyn Transport> {
        self.transport(CLIENTS)
    }

    /// How peers are reached, and come in.
    pub fn peers(&self) -> Arc<dyn Transport> {
        self.transport(PEERS)
    }

    fn transport(&self, wanted: &str) -> Arc<dyn Transport> {
        match self.ports.iter().find(|(port, _)| *port == wanted) {
            Some((_, tls)) => Arc::new(tls.clone()),
            None => Arc::new(Tcp),
        }
    }

    /// Shows the metrics, and looks at the files from now on, until this is dropped.
    pub fn keep_up(&mut self, registry: &Registry) -> Result<(), prometheus::Error> {
        if self.ports.is_empty() {
            return Ok(());
        }
        self.metrics.register(registry)?;
        let follower = TlsPorts { ports: self.ports.clone(), metrics: self.metrics.clone(), task: None };
        let watching = tokio::spawn(async move {
            let mut last_problem = None;
            loop {
                tokio::time::sleep(RELOAD_INTERVAL).await;
                follower.reload(&mut last_problem);
            }
        });
        self.task = Some(watching.abort_handle());
        Ok(())
    }

    /// Files are written one after the other, so that a key may not fit its certificate for a moment: what is wrong is told
    /// once.
    fn reload(&self, last_problem: &mut Option<String>) {
        let mut problems = Vec::new();
        for (port, tls) in &self.ports {
            match tls.reload() {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(port, "new certificates are in use");
                    self.metrics.reloads.with_label_values(&[*port, "done"]).inc();
                }
                Err(error) => problems.push((*port, error.to_string())),
            }
        }
        let problem =
            problems.iter().map(|(port, error)| format!("{port}: {error}")).reduce(|all, one| all + "; " + &one);
        if problem != *last_problem {
            for (port, error) in problems {
                tracing::error!(port, error, "the certificates are not reloaded: the old ones stay in use");
                self.metrics.reloads.with_label_values(&[port, "failed"]).inc();
            }
        }
        *last_problem = problem;
        self.tell_expiry();
    }

    fn tell_expiry(&self) {
        for (port, tls) in &self.ports {
            if let Some(expiry) = tls.expires_at_unix() {
                self.metrics.expiry.with_label_values(&[*port]).set(expiry);
            }
        }
    }
}

impl Drop for TlsPorts {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Metrics {
    fn new() -> Result<Metrics, prometheus::Error> {
        Ok(Metrics {
            expiry: IntGaugeVec::new(
                Opts::new("dwell_tls_certificate_expiry_timestamp_seconds", "When a port's certificate expires."),
                &["port"],
            )?,
            reloads: IntCounterVec::new(
                Opts::new(
                    "dwell_tls_reloads_total",
                    "Changed certificate files that were taken over, or could not be.",
                ),
                &["port", "outcome"],
            )?,
            handshake_failures: IntCounterVec::new(
                Opts::new("dwell_tls_handshake_failures_total", "Connections refused for want of proper TLS."),
                &["port"],
            )?,
        })
    }

    fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.expiry.clone()))?;
        registry.register(Box::new(self.reloads.clone()))?;
        registry.register(Box::new(self.handshake_failures.clone()))
    }
}

/// The files of a port; none without a certificate.
pub(crate) fn files(
    certificate: &Option<PathBuf>,
    key: &Option<PathBuf>,
    authority: &Option<PathBuf>,
) -> Option<TlsFiles> {
    let identity = certificate.clone().zip(key.clone())?;
    Some(TlsFiles { identity: Some(identity), authority: authority.clone() })
}
