//! Memory of the state's databases, as metrics.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Registry};

use super::StateResources;

/// Asks RocksDB at each scrape.
struct StateMemoryCollector {
    resources: StateResources,
    block_cache_bytes: IntGauge,
    memtable_bytes: IntGauge,
}

impl StateResources {
    /// Registers `dwell_state_block_cache_bytes` and `dwell_state_memtable_bytes`, which are asked for at each
    /// scrape.
    pub fn register_metrics(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(StateMemoryCollector {
            resources: self.clone(),
            block_cache_bytes: IntGauge::new(
                "dwell_state_block_cache_bytes",
                "Bytes in the block cache of the state's databases, memtables included",
            )?,
            memtable_bytes: IntGauge::new(
                "dwell_state_memtable_bytes",
                "Bytes in the memtables of the state's databases",
            )?,
        }))
    }
}

impl Collector for StateMemoryCollector {
    fn desc(&self) -> Vec<&Desc> {
        [self.block_cache_bytes.desc(), self.memtable_bytes.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let memory = self.resources.memory();
        self.block_cache_bytes.set(i64::try_from(memory.block_cache_bytes).unwrap_or(i64::MAX));
        self.memtable_bytes.set(i64::try_from(memory.memtable_bytes).unwrap_or(i64::MAX));
        [self.block_cache_bytes.collect(), self.memtable_bytes.collect()].concat()
    }
}
