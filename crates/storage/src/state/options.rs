//! How RocksDB is set up, and what the databases of a node share.

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, Env, LogLevel, LruCacheOptions, Options, WriteBufferManager,
};

use super::family::Family;
use crate::damage::DamageSignal;

/// Settings of a node's state storage.
#[derive(Debug, Clone)]
pub struct StateOptions {
    /// Most memory that memtables, block cache, index and filter blocks take together, over all groups, in
    /// bytes. Half of it may be memtables.
    pub memory_bytes: usize,
    /// Most files that the database of one group keeps open.
    pub open_files_max: i32,
    /// Most flushes and compactions at a time, over all groups.
    pub background_jobs: i32,
    /// Messages from this size on go to blob files, where a compaction of their keys leaves them alone.
    pub blob_bytes_min: u64,
    /// Whether files are merged in the background. Without, nothing but flushes changes them, at moments that follow
    /// from what is asked for: for a simulation that is to be repeated.
    pub compacts: bool,
    /// Told of damage that a read or a write meets.
    pub damage: DamageSignal,
}

impl Default for StateOptions {
    fn default() -> Self {
        StateOptions {
            memory_bytes: 256 << 20,
            open_files_max: 512,
            background_jobs: 2,
            blob_bytes_min: 4 << 10,
            compacts: true,
            damage: DamageSignal::default(),
        }
    }
}

/// Memory in use by all databases of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateMemory {
    /// In the block cache: data, index and filter blocks, and what is reserved there for the memtables.
    pub block_cache_bytes: usize,
    /// In memtables.
    pub memtable_bytes: usize,
}

/// What the databases of all groups of a node share, so that their memory is bounded together.
#[derive(Clone)]
pub struct StateResources {
    options: StateOptions,
    cache: Cache,
    write_buffers: WriteBufferManager,
    env: Env,
}

impl StateResources {
    /// Sets up what is shared.
    pub fn new(options: StateOptions) -> Result<StateResources, rocksdb::Error> {
        let mut cache_options = LruCacheOptions::default();
        cache_options.set_capacity(options.memory_bytes);
        // 16 shards: enough for the threads of a node, and each large enough for the blocks of a big message.
        cache_options.set_num_shard_bits(4);
        let cache = Cache::new_lru_cache_opts(&cache_options);
        // Memtables are charged to the cache: the more of them, the fewer blocks, and the sum stays. Writers are
        // not stalled at the limit (a stall would hold up the apply of every group): it only hastens flushes.
        let write_buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(options.memory_bytes / 2, false, cache.clone());
        Ok(StateResources { options, cache, write_buffers, env: Env::new()? })
    }

    /// Memory in use now.
    pub fn memory(&self) -> StateMemory {
        StateMemory { block_cache_bytes: self.cache.get_usage(), memtable_bytes: self.write_buffers.get_usage() }
    }

    /// How much of what is committed may wait in memory, for each group, before it is written to its database. The more,
    /// the longer a message may wait for its consumer without costing a write; writing 4 MiB takes some milliseconds. Small
    /// beside the memtables that it goes to, so that these keep to their bound.
    pub(super) fn unwritten_bytes_max(&self) -> usize {
        (self.options.memory_bytes / 32).min(4 << 20)
    }

    /// Where damage is reported.
    pub fn damage(&self) -> &DamageSignal {
        &self.options.damage
    }

    /// Options of a database.
    pub(super) fn database_options(&self) -> Options {
        let mut options = Options::default();
        options.set_env(&self.env);
        options.set_write_buffer_manager(&self.write_buffers);
        options.create_missing_column_families(true);
        // The rows, their indexes and the applied record are in several column families and not in a write-ahead
        // log, so a flush must take all of them at the same position.
        options.set_atomic_flush(true);
        options.set_paranoid_checks(true);
        options.set_max_background_jobs(self.options.background_jobs);
        options.set_max_open_files(self.options.open_files_max);
        // Only one thread writes a group's state: what makes concurrent writers fast costs a lone one.
        options.set_allow_concurrent_memtable_write(false);
        options.set_enable_write_thread_adaptive_yield(false);
        // Files are written back as they grow, not in one burst at their end that the log's fsync must wait for.
        options.set_bytes_per_sync(1 << 20);
        // Obsolete files are deleted in the background, not by the reader that held them last.
        options.set_avoid_unnecessary_blocking_io(true);
        options.set_skip_stats_update_on_db_open(true);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_log_level(LogLevel::Warn);
        options.set_max_log_file_size(4 << 20);
        options.set_keep_log_file_num(2);
        options
    }

    /// Options of a column family.
    pub(super) fn family_options(&self, family: Family) -> Options {
        let mut options = Options::default();
        // A row that is deleted while it is still in a memtable never reaches the disk, so memtables are large.
        // Several may wait: the write buffer manager bounds the sum.
        options.set_write_buffer_size(if family == Family::Messages { 64 << 20 } else { 32 << 20 });
        options.set_max_write_buffer_number(4);
        options.set_disable_auto_compactions(!self.options.compacts);
        options.set_target_file_size_base(32 << 20);
        options.set_max_bytes_for_level_base(128 << 20);
        // Cheap enough for two cores, and keys with common beginnings shrink to a third.
        options.set_compression_type(DBCompressionType::Lz4);
        // Consumed rows leave tombstones that every later scan and get must step over. A file in which every
        // second of 8192 rows in a line is one is compacted soon, and not only when its level is full.
        options.add_compact_on_deletion_collector_factory(8192, 4096, 0.5);
        if family == Family::Messages {
            self.set_blob_options(&mut options);
        }
        options.set_block_based_table_factory(&self.block_options(family));
        options
    }

    fn set_blob_options(&self, options: &mut Options) {
        // Measured: without blob files a standing message of 1 KiB and more is written again by each level.
        options.set_enable_blob_files(true);
        options.set_min_blob_size(self.options.blob_bytes_min);
        options.set_blob_file_size(64 << 20);
        options.set_blob_compression_type(DBCompressionType::Lz4);
        // Messages die about in the order of their arrival, so the oldest blob files become garbage as a whole.
        // What lives on in the older half is moved once half of that is garbage.
        options.set_enable_blob_gc(true);
        options.set_blob_gc_age_cutoff(0.5);
        options.set_blob_gc_force_threshold(0.5);
        // A message is only read if it was stored, so the last level, nine tenths of the data, needs no filter.
        options.set_optimize_filters_for_hits(true);
    }

    fn block_options(&self, family: Family) -> BlockBasedOptions {
        let mut options = BlockBasedOptions::default();
        options.set_block_cache(&self.cache);
        // In the cache, so that they count; before data blocks, so that they stay.
        options.set_cache_index_and_filter_blocks(true);
        options.set_cache_index_and_filter_blocks_with_high_priority(true);
        options.set_pin_l0_filter_and_index_blocks_in_cache(true);
        options.set_format_version(6);
        options.set_block_size(if family == Family::Messages { 16 << 10 } else { 8 << 10 });
        // Indexes are scanned; a filter would help none of their reads but the rare repeated publish.
        if family != Family::Index {
            options.set_bloom_filter(10.0, false);
            options.set_optimize_filters_for_memory(true);
        }
        options
    }
}
