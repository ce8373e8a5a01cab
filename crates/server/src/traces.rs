//! What this node does with messages that carry the context of a sampled trace, told to an OpenTelemetry collector.
//!
//! Clients' calls are answered where the leader is, so that is where spans are made: of a publication when it is answered,
//! of a delay and a delivery when the message is handed out, of a settlement when it is answered. All are children of the
//! span that the message was published in. Nothing of it is in the log or among the rows: a message is known to be traced
//! by its headers, and these are looked at when the message is in hand anyway.

mod delivering;
mod export;
mod publishing;
mod settling;
mod span;

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::Registry;

pub use self::export::{ExportError, collector};
pub use self::settling::Settling;

use self::delivering::Leases;
use self::export::Exporter;
use crate::config::Config;

/// Where traced messages are told of; cheap to clone. Without a collector every call of it is a look at nothing.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Tracer>>);

/// What there is with a collector.
struct Tracer {
    exporter: Exporter,
    /// Of traced messages, to know them when they are settled.
    leases: Mutex<Leases>,
}

impl Traces {
    /// Exports to the collector that is configured, if one is. Must be called within a tokio runtime.
    pub fn start(config: &Config, registry: &Registry) -> Result<Traces, ExportError> {
        let exporter = Exporter::start(config.otlp_endpoint(), config.node_id, registry)?;
        Ok(Traces(exporter.map(Traces::tracer)))
    }

    fn tracer(exporter: Exporter) -> Arc<Tracer> {
        Arc::new(Tracer { exporter, leases: Mutex::default() })
    }

    /// Exports what waits, and no more after that. Gives up after some seconds.
    pub async fn flush(&self) {
        if let Some(tracer) = &self.0 {
            tracer.exporter.flush().await;
        }
    }
}

#[cfg(test)]
mod tests;
