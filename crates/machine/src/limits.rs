//! The limits that hold for every namespace, whatever the configuration says.
//!
//! The front end refuses what breaks them with a message that names the field; the machine relies on them for
//! its bounds on memory and on the work of one step.

/// Longest name of a queue, consumer or producer, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest delay, and furthest absolute time from now in either direction: ten years.
pub const HORIZON_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;
/// Most messages in one publish command.
pub const PUBLISH_MESSAGES_MAX: usize = 1000;
/// Most headers of a message.
pub const HEADERS_MAX: usize = 256;
/// Most bytes in the keys and values of a message's headers together.
pub const HEADERS_BYTES_MAX: usize = 64 * 1024;
/// Most messages one consumer may hold unacknowledged.
pub const CREDIT_MAX: u32 = 10_000;
/// Most leases that one settling command may name.
pub const SETTLE_LEASES_MAX: usize = 10_000;
/// Most messages that one receive command may lease.
pub const RECEIVE_MESSAGES_MAX: u32 = 1000;
/// Longest wait of a receive call.
pub const RECEIVE_WAIT_MS_MAX: u64 = 60_000;
/// Shortest lease timeout and session timeout.
pub const TIMEOUT_MS_MIN: u64 = 100;
/// Longest lease timeout and session timeout.
pub const TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Used where a queue does not say.
pub const LEASE_TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// Used where a consumer does not say.
pub const SESSION_TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// Highest delivery limit a queue may set.
pub const DELIVERY_LIMIT_MAX: u32 = 1_000_000;
/// Most queues in a namespace: they are held in memory.
pub const QUEUES_MAX: usize = 100_000;
/// Most consumers in a namespace: they are held in memory.
pub const CONSUMERS_MAX: usize = 100_000;
/// Most leases in a namespace, promised as credit or granted to receive calls: they are held in memory, some
/// 150 bytes each.
pub const LEASES_MAX: usize = 1_000_000;
/// How many outcomes a namespace remembers for each producer, and so how many requests a producer may have in
/// flight.
pub const PRODUCER_WINDOW: u64 = 256;
/// Most due rows that one release step works through. More are left to the next step, so that other commands
/// come in between.
pub const RELEASE_STEP_MAX: usize = 1000;
