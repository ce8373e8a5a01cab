//! Limits at which a node refuses publishes, long before it is in trouble: memory, disk, and work in flight.
//!
//! Only publishes are refused: consumption, settlements, recalls and administration go on, by which room is made. What is
//! scheduled or dead-lettered goes its way, too. The leader decides, by its own figures and by what the members announce:
//! one whose disk fills would drop out, and could be spared no more.

mod figures;
mod metrics;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dwell_consensus::announcements::{Announcements, Announcer};
use dwell_consensus::types::NodeId;
use parking_lot::Mutex;
use prometheus::Registry;

pub use self::figures::memory_available_bytes;
use self::metrics::WatermarkMetrics;

/// How often memory and disk are looked at.
const INTERVAL: Duration = Duration::from_millis(250);

/// Where publishes are refused. 0: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatermarkLimits {
    /// Resident bytes of the process.
    pub memory_bytes: u64,
    /// Bytes that must be free where the data is.
    pub disk_free_bytes: u64,
    /// Bytes of bodies that wait to be committed.
    pub in_flight_bytes: u64,
    /// Publish calls that wait to be committed.
    pub in_flight: u64,
}

/// A watermark that is reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// Too much memory is in use.
    #[error("publishes are refused: `memory_watermark_bytes` is {limit}, and the process has {used} resident")]
    Memory {
        /// Resident bytes.
        used: u64,
        /// The limit.
        limit: u64,
    },
    /// Too little disk is free.
    #[error("publishes are refused: `disk_free_watermark_bytes` is {limit}, and {free} are free where the data is")]
    Disk {
        /// Free bytes.
        free: u64,
        /// The limit.
        limit: u64,
    },
    /// Another member says so.
    #[error("node {node_id}: {reason}")]
    Member {
        /// The member.
        node_id: NodeId,
        /// What it says.
        reason: String,
    },
    /// Too many bytes wait.
    #[error("publishes are refused: `publish_bytes_in_flight_max` is {limit}, and {waiting} wait to be committed")]
    BytesInFlight {
        /// Bytes that wait.
        waiting: u64,
        /// The limit.
        limit: u64,
    },
    /// Too many calls wait.
    #[error("publishes are refused: `publishes_in_flight_max` is {limit}, and as many wait to be committed")]
    InFlight {
        /// The limit.
        limit: u64,
    },
}

impl Exhausted {
    /// Whether it ends within a moment by itself, as soon as what waits is committed.
    pub fn is_momentary(&self) -> bool {
        matches!(self, Exhausted::BytesInFlight { .. } | Exhausted::InFlight { .. })
    }
}

/// The figures and limits of a node; cheap to clone.
#[derive(Clone)]
pub struct Watermarks {
    inner: Arc<Inner>,
}

struct Inner {
    limits: WatermarkLimits,
    in_flight_bytes: AtomicU64,
    in_flight: AtomicU64,
    /// What [`Self::reached`] holds something, without the lock.
    is_reached: AtomicBool,
    reached: Mutex<Option<Exhausted>>,
    metrics: WatermarkMetrics,
}

/// A publish that waits to be committed. To be kept until it is.
#[must_use]
pub struct InFlight {
    inner: Arc<Inner>,
    bytes: u64,
}

impl Watermarks {
    /// Nothing is reached and nothing in flight.
    pub fn new(limits: WatermarkLimits, registry: &Registry) -> Result<Watermarks, prometheus::Error> {
        let metrics = WatermarkMetrics::register(&limits, registry)?;
        let (in_flight_bytes, in_flight, is_reached, reached) = Default::default();
        let inner = Inner { limits, in_flight_bytes, in_flight, is_reached, reached, metrics };
        Ok(Watermarks { inner: Arc::new(inner) })
    }

    /// Admits a publish with so many bytes of bodies. One that is alone is admitted whatever its size.
    pub fn admit(&self, bytes: usize) -> Result<InFlight, Exhausted> {
        let inner = &self.inner;
        if inner.is_reached.load(Ordering::Relaxed)
            && let Some(reached) = inner.reached.lock().clone()
        {
            return Err(inner.refuse(reached));
        }
        let bytes = bytes as u64;
        let waiting = inner.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
        let others = inner.in_flight.fetch_add(1, Ordering::Relaxed);
        // Dropped, it is taken back.
        let in_flight = InFlight { inner: inner.clone(), bytes };
        let WatermarkLimits { in_flight_bytes, in_flight: in_flight_max, .. } = inner.limits;
        if in_flight_bytes != 0 && others > 0 && waiting + bytes > in_flight_bytes {
            return Err(inner.refuse(Exhausted::BytesInFlight { waiting, limit: in_flight_bytes }));
        }
        if in_flight_max != 0 && others >= in_flight_max {
            return Err(inner.refuse(Exhausted::InFlight { limit: in_flight_max }));
        }
        Ok(in_flight)
    }

    /// Looks at memory and disk again and again, announces what it finds, and takes what other members announce.
    pub async fn watch(self, data_directory: PathBuf, own_id: NodeId, announcer: Announcer, members: Announcements) {
        let mut own: Option<Exhausted> = None;
        loop {
            let directory = data_directory.clone();
            // A disk that hangs must not hold up the node.
            let read = tokio::task::spawn_blocking(move || figures::read(&directory)).await;
            if let Ok(figures) = read {
                self.inner.metrics.set(&figures);
                let now = own_reached(&figures, &self.inner.limits, own.as_ref());
                if now.as_ref().map(std::mem::discriminant) != own.as_ref().map(std::mem::discriminant) {
                    match &now {
                        Some(reached) => tracing::warn!(%reached, "watermark reached"),
                        None => tracing::info!("no watermark is reached any more"),
                    }
                }
                announcer.set_exhausted(now.as_ref().map(ToString::to_string));
                own = now;
            }
            let member = || {
                let (node_id, reason) = members.exhausted_besides(own_id)?;
                Some(Exhausted::Member { node_id, reason })
            };
            self.inner.set_reached(own.clone().or_else(member));
            self.inner.metrics.set_in_flight(
                self.inner.in_flight.load(Ordering::Relaxed),
                self.inner.in_flight_bytes.load(Ordering::Relaxed),
            );
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Inner {
    fn refuse(&self, reached: Exhausted) -> Exhausted {
        self.metrics.refused(&reached);
        reached
    }

    fn set_reached(&self, reached: Option<Exhausted>) {
        self.metrics.set_reached(reached.as_ref());
        self.is_reached.store(reached.is_some(), Ordering::Relaxed);
        *self.reached.lock() = reached;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.inner.in_flight_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.inner.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What this node's own figures reach. What was reached before ends a little later than it began, lest publishes be
/// admitted and refused in turn.
fn own_reached(figures: &figures::Figures, limits: &WatermarkLimits, before: Option<&Exhausted>) -> Option<Exhausted> {
    let WatermarkLimits { memory_bytes, disk_free_bytes, .. } = *limits;
    let memory_limit = match before {
        Some(Exhausted::Memory { .. }) => memory_bytes - memory_bytes / 20,
        _ => memory_bytes,
    };
    let disk_limit = match before {
        Some(Exhausted::Disk { .. }) => disk_free_bytes + disk_free_bytes / 10,
        _ => disk_free_bytes,
    };
    if let Some(free) = figures.disk_free_bytes.filter(|free| *free < disk_limit) {
        return Some(Exhausted::Disk { free, limit: disk_free_bytes });
    }
    let used = figures.resident_bytes.filter(|used| memory_bytes != 0 && *used > memory_limit)?;
    Some(Exhausted::Memory { used, limit: memory_bytes })
}

#[cfg(test)]
mod tests {
    use super::figures::Figures;
    use super::*;

    fn figures(resident: u64, free: u64) -> Figures {
        Figures { resident_bytes: Some(resident), disk_free_bytes: Some(free) }
    }

    #[test]
    fn memory_and_disk_are_reached_at_their_limits_and_left_a_little_later() {
        let limits = WatermarkLimits { memory_bytes: 1000, disk_free_bytes: 500, ..WatermarkLimits::default() };
        let reached = |figures: Figures, before: Option<&Exhausted>| own_reached(&figures, &limits, before);
        assert_eq!(reached(figures(1000, 500), None), None);
        let disk = reached(figures(0, 499), None);
        assert_eq!(disk, Some(Exhausted::Disk { free: 499, limit: 500 }));
        assert_eq!(reached(figures(0, 549), disk.as_ref()), Some(Exhausted::Disk { free: 549, limit: 500 }));
        assert_eq!(reached(figures(0, 550), disk.as_ref()), None);
        let memory = reached(figures(1001, 500), None);
        assert_eq!(memory, Some(Exhausted::Memory { used: 1001, limit: 1000 }));
        assert!(reached(figures(951, 500), memory.as_ref()).is_some());
        assert_eq!(reached(figures(950, 500), memory.as_ref()), None);
    }

    #[test]
    fn a_limit_of_zero_is_none_and_what_is_not_known_reaches_nothing() {
        assert_eq!(own_reached(&figures(u64::MAX, 0), &WatermarkLimits::default(), None), None);
        let limits = WatermarkLimits { memory_bytes: 1, disk_free_bytes: 1, ..WatermarkLimits::default() };
        assert_eq!(own_reached(&Figures::default(), &limits, None), None);
    }

    #[test]
    fn work_in_flight_is_bounded_by_bytes_and_by_count_and_one_alone_always_passes() {
        let limits = WatermarkLimits { in_flight_bytes: 100, in_flight: 2, ..WatermarkLimits::default() };
        let watermarks = Watermarks::new(limits, &Registry::new()).unwrap();
        let large = watermarks.admit(1000).unwrap();
        let refused = watermarks.admit(1).err().unwrap();
        assert_eq!(refused, Exhausted::BytesInFlight { waiting: 1000, limit: 100 });
        drop(large);
        let two = [watermarks.admit(1).unwrap(), watermarks.admit(1).unwrap()];
        assert_eq!(watermarks.admit(1).err(), Some(Exhausted::InFlight { limit: 2 }));
        drop(two);
        assert!(watermarks.admit(100).is_ok());
    }

    #[test]
    fn what_a_member_announces_refuses_publishes() {
        let watermarks = Watermarks::new(WatermarkLimits::default(), &Registry::new()).unwrap();
        let member = Exhausted::Member { node_id: 3, reason: "full".into() };
        watermarks.inner.set_reached(Some(member.clone()));
        assert_eq!(watermarks.admit(1).err(), Some(member));
        watermarks.inner.set_reached(None);
        assert!(watermarks.admit(1).is_ok());
    }
}
