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
/// Most exchanges in a namespace: they are held in memory.
pub const EXCHANGES_MAX: usize = 10_000;
/// Most bindings in a namespace: they are held in memory, some 500 bytes each and more with long patterns.
pub const BINDINGS_MAX: usize = 200_000;
/// Most queues that one message may be routed to.
pub const TARGETS_MAX: usize = 1000;
/// Most copies that the messages of one publish command may be stored as: storing them takes some 10 us each, for
/// which the commands of others wait.
pub const COPIES_MAX: usize = 10_000;
/// Most exchanges that a message goes through on its way to the queues.
pub const HOPS_MAX: usize = 100;
/// Most deaths that a dead letter remembers, the newest.
pub const DEATHS_MAX: usize = 32;
/// How many messages one newcomer to a full queue may push out. More are pushed out by the newcomers after it.
pub const OVERFLOW_STEP_MAX: usize = 64;
/// Used where a queue does not say.
pub const DEDUPE_WINDOW_MS_DEFAULT: u64 = 5 * 60 * 1000;
/// Longest dedupe window.
pub const DEDUPE_WINDOW_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;
/// Most `dedupe_id`s that a queue remembers: a newcomer with another one is rejected until some are over.
pub const DEDUPE_ENTRIES_MAX: u64 = 1_000_000;
/// A producer that was not heard of for this long is forgotten, with its outcomes.
pub const PRODUCER_IDLE_MS: u64 = 24 * 60 * 60 * 1000;
/// Most messages that one step of a revision looks at.
pub const REVISE_STEP_MAX: usize = 2000;
/// Most handles that one revision may name, and most messages of one id that one step revises.
pub const REVISE_HANDLES_MAX: usize = 1000;
/// Most settling commands in a transaction.
pub const TRANSACT_ACKS_MAX: usize = 100;
/// Most schedules in a namespace: they are held in memory.
pub const SCHEDULES_MAX: usize = 100_000;
/// Largest body and headers of a schedule's message: they are held in memory, and written anew at each firing.
pub const SCHEDULE_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most dates of a schedule.
pub const DATES_MAX: usize = 1000;
/// Shortest interval of a schedule.
pub const INTERVAL_MS_MIN: u64 = 100;
/// Most misfires that a schedule catches up with.
pub const MISFIRES_MAX: u32 = 1000;
/// Longest jitter of a schedule.
pub const SCHEDULE_JITTER_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Used where a schedule does not say when a due time counts as missed.
pub const MISFIRE_AFTER_MS_DEFAULT: u64 = 60_000;
/// Firings that a schedule remembers.
pub const FIRINGS_MAX: usize = 20;
/// How long a firing is remembered, and a schedule that has no due time any more.
pub const SCHEDULE_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Most due times of schedules that one release step works through for one schedule.
pub const FIRINGS_STEP_MAX: usize = 100;
/// Shortest time of becoming one priority higher by waiting.
pub const AGING_MS_MIN: u64 = 100;
/// Most messages in one page of a browse.
pub const BROWSE_PAGE_MAX: usize = 1000;
/// Most users: they are held in memory, each with three compiled patterns.
pub const USERS_MAX: usize = 1000;
/// Longest pattern of a permission, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1000;
/// Most horizons of a forecast.
pub const HORIZONS_MAX: usize = 100;

/// Most nodes that are remembered to hold, or to have held, data of the cluster.
pub const HOLDERS_MAX: usize = 1000;
