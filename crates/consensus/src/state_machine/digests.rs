//! Digests of the state as of an index that the log has not reached yet.

use std::collections::BTreeMap;

use dwell_machine::StateDigest;
use dwell_storage::state::{Digester, StateStore};
use prometheus::{Histogram, HistogramOpts, Registry};
use tokio::sync::oneshot;

use crate::blocking;
use crate::digest::DigestError;

/// Digests that may be waited for at a time. Each one is a read of the whole state.
pub(crate) const WAITING_MAX: usize = 8;
/// How far ahead of the log a digest may be asked for: as many pulses an idle leader may have to propose.
pub(crate) const AHEAD_MAX: u64 = 100_000;

/// A digest that was asked for.
pub struct PendingDigest {
    /// The index that it is to be of.
    pub(crate) index: u64,
    /// Resolves when the index is reached; an error if the digest will not be made.
    pub(crate) begun: oneshot::Receiver<()>,
    /// The digest.
    pub(crate) answer: oneshot::Receiver<Result<StateDigest, DigestError>>,
}

/// Who waits for a digest.
struct Waiting {
    begun: oneshot::Sender<()>,
    answer: oneshot::Sender<Result<StateDigest, DigestError>>,
}

/// The digests that are waited for, by index.
pub(super) struct Digests {
    waiting: BTreeMap<u64, Vec<Waiting>>,
    seconds: Histogram,
}

/// Resolves when what is committed from now on is not in the digest any more.
pub(super) type Begun = oneshot::Receiver<()>;

impl Digests {
    pub fn register(registry: &Registry) -> Result<Digests, prometheus::Error> {
        let seconds = Histogram::with_opts(
            HistogramOpts::new("dwell_state_digest_seconds", "Time to hash all rows of the state")
                .buckets(prometheus::exponential_buckets(0.001, 4.0, 10)?),
        )?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Digests { waiting: BTreeMap::new(), seconds })
    }

    /// The first index at which a chunk must end.
    pub fn next_index(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(index, _)| *index)
    }

    /// Asks for the digest as of `index`, or of the next entry; `applied` is the index of the last one.
    pub fn request(&mut self, index: Option<u64>, applied: u64) -> Result<PendingDigest, DigestError> {
        let index = index.unwrap_or(applied + 1);
        if index < applied {
            return Err(DigestError::Passed { index, applied });
        }
        if index - applied > AHEAD_MAX {
            return Err(DigestError::TooFarAhead { index, applied });
        }
        self.waiting.retain(|_, waiting| {
            waiting.retain(|waiting| !waiting.answer.is_closed());
            !waiting.is_empty()
        });
        if self.waiting.values().map(Vec::len).sum::<usize>() >= WAITING_MAX {
            return Err(DigestError::TooManyWaiting);
        }
        let (begun, begun_receiver) = oneshot::channel();
        let (answer, answer_receiver) = oneshot::channel();
        self.waiting.entry(index).or_default().push(Waiting { begun, answer });
        Ok(PendingDigest { index, begun: begun_receiver, answer: answer_receiver })
    }

    /// The state is as of `applied` now, and committed. Nothing may be committed until what is returned resolves.
    pub fn reached(&mut self, applied: u64, store: &StateStore) -> Option<Begun> {
        if self.next_index().is_none_or(|index| index > applied) {
            return None;
        }
        let later = self.waiting.split_off(&(applied + 1));
        let mut reached = std::mem::replace(&mut self.waiting, later);
        let wanted = reached.remove(&applied);
        // The state went over these in one step: by a snapshot.
        for (index, waiting) in reached {
            for waiting in waiting {
                let _ = waiting.answer.send(Err(DigestError::Passed { index, applied }));
            }
        }
        wanted.map(|waiting| begin(applied, waiting, store.digester(), self.seconds.clone()))
    }
}

/// Hashes for all who asked, where it keeps nobody waiting.
fn begin(index: u64, waiting: Vec<Waiting>, digester: Digester, seconds: Histogram) -> Begun {
    let (begun, begun_receiver) = oneshot::channel();
    let hash = move || {
        let _span = tracing::info_span!("state_digest", index).entered();
        let timer = seconds.start_timer();
        let (begun_senders, answers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.begun, waiting.answer)).unzip();
        let tell = || {
            // Whoever does not wait any more need not be told.
            std::iter::once(begun).chain(begun_senders).for_each(|begun| {
                let _ = begun.send(());
            });
        };
        let is_wanted = || answers.iter().any(|answer| !answer.is_closed());
        let digest = match digester.digest(tell, is_wanted) {
            Ok(Some(digest)) => Ok(digest),
            Ok(None) => {
                timer.stop_and_discard();
                return;
            }
            Err(error) => Err(DigestError::Unreadable(error.to_string())),
        };
        let elapsed = timer.stop_and_record();
        match &digest {
            Ok(digest) => tracing::info!(%digest, rows = digest.rows, bytes = digest.bytes, elapsed, "state digest"),
            Err(error) => tracing::error!(%error, "state digest"),
        }
        for answer in answers {
            let _ = answer.send(digest.clone());
        }
    };
    // If the runtime is shutting down, those who wait see their channels closed.
    tokio::spawn(blocking::apart(hash));
    begun_receiver
}

#[cfg(test)]
mod tests {
    use dwell_machine::{Store, Table};
    use dwell_storage::state::{StateOptions, StateResources};

    use super::*;

    fn digests() -> Digests {
        Digests::register(&Registry::new()).unwrap()
    }

    fn store(directory: &tempfile::TempDir) -> StateStore {
        StateStore::open(directory.path(), &StateResources::new(StateOptions::default()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn everybody_who_waits_for_an_index_gets_its_digest_once_it_is_reached() {
        let directory = tempfile::tempdir().unwrap();
        let (mut digests, mut store) = (digests(), store(&directory));
        let pending = [digests.request(Some(7), 5), digests.request(Some(7), 5), digests.request(None, 5)];
        let [first, second, next] = pending.map(Result::unwrap);
        assert_eq!((next.index, digests.next_index()), (6, Some(6)));
        assert!(digests.reached(5, &store).is_none());

        let of_nothing = dwell_machine::MemoryStore::default().digest();
        digests.reached(6, &store).unwrap().await.unwrap();
        assert_eq!(next.answer.await.unwrap().unwrap(), of_nothing);
        store.put(Table::Queues, b"key", b"value"[..].into());
        store.commit(b"7").unwrap();
        digests.reached(7, &store).unwrap().await.unwrap();
        store.put(Table::Queues, b"key", b"later"[..].into());
        store.commit(b"8").unwrap();
        first.begun.await.unwrap();
        let digest = first.answer.await.unwrap().unwrap();
        assert_eq!((digest.rows, digest.bytes), (1, 8));
        assert_eq!(second.answer.await.unwrap().unwrap(), digest);
        assert_ne!(digest, of_nothing);
        assert_eq!(digests.next_index(), None);
    }

    #[tokio::test]
    async fn an_index_that_was_passed_is_refused_also_if_a_snapshot_passes_it() {
        let directory = tempfile::tempdir().unwrap();
        let (mut digests, store) = (digests(), store(&directory));
        assert!(matches!(digests.request(Some(4), 5), Err(DigestError::Passed { index: 4, applied: 5 })));
        let now = digests.request(Some(5), 5).unwrap();
        digests.reached(5, &store).unwrap().await.unwrap();
        assert!(now.answer.await.unwrap().is_ok());
        let pending = digests.request(Some(6), 5).unwrap();
        assert!(digests.reached(9, &store).is_none());
        assert!(pending.begun.await.is_err());
        assert_eq!(pending.answer.await.unwrap(), Err(DigestError::Passed { index: 6, applied: 9 }));
    }

    #[test]
    fn those_who_wait_are_bounded_and_those_who_left_do_not_count() {
        let mut digests = digests();
        assert!(matches!(digests.request(Some(AHEAD_MAX + 1), 0), Err(DigestError::TooFarAhead { .. })));
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| digests.request(Some(1), 0).unwrap()).collect();
        assert!(matches!(digests.request(Some(2), 0), Err(DigestError::TooManyWaiting)));
        waiting.pop();
        assert!(digests.request(Some(2), 0).is_ok());
    }
}
