//! What happened to each message: one byte for each.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

const CONFIRMED: u8 = 1;
const RECEIVED: u8 = 2;

/// The account of a load. Shared by all producers and consumers.
#[derive(Debug)]
pub struct Ledger {
    producers: Vec<Mutex<Vec<u8>>>,
    confirmed: AtomicU64,
    failed: AtomicU64,
    received: AtomicU64,
    duplicates: AtomicU64,
    /// Confirmed messages that have not been received.
    outstanding: AtomicU64,
}

impl Ledger {
    /// An account of what these producers will publish.
    pub fn new(producers: u32) -> Ledger {
        Ledger::expecting(&vec![0; producers as usize])
    }

    /// An account that begins with so many messages of each producer, confirmed by an earlier load.
    pub fn expecting(messages: &[u64]) -> Ledger {
        Ledger {
            producers: messages.iter().map(|count| Mutex::new(vec![CONFIRMED; *count as usize])).collect(),
            confirmed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            received: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            outstanding: AtomicU64::new(messages.iter().sum()),
        }
    }

    /// The publish was confirmed.
    pub fn confirm(&self, producer: u32, number: u64) {
        let before = self.mark(producer, number, CONFIRMED);
        self.confirmed.fetch_add(1, Ordering::Relaxed);
        if before & RECEIVED == 0 {
            self.outstanding.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The publish was not confirmed, and will not be.
    pub fn fail(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The message was delivered. True if for the first time.
    pub fn receive(&self, producer: u32, number: u64) -> bool {
        let before = self.mark(producer, number, RECEIVED);
        if before & RECEIVED != 0 {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.received.fetch_add(1, Ordering::Relaxed);
        // A message may come before its confirm: then it never counts as outstanding.
        if before & CONFIRMED != 0 {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    fn mark(&self, producer: u32, number: u64, what: u8) -> u8 {
        let Some(messages) = self.producers.get(producer as usize) else { return 0 };
        let mut messages = messages.lock();
        let position = number as usize;
        if position >= messages.len() {
            messages.resize(position + 1, 0);
        }
        let before = messages[position];
        messages[position] = before | what;
        before
    }

    /// Publishes that were confirmed.
    pub fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// Publishes that were refused, or whose outcome is unknown.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Messages received, each counted once.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Messages received again.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Confirmed messages that have not been received.
    pub fn outstanding(&self) -> u64 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Messages that were confirmed and never came, counted one by one.
    pub fn lost(&self) -> u64 {
        let lost = |messages: &Mutex<Vec<u8>>| {
            messages.lock().iter().filter(|state| **state & (CONFIRMED | RECEIVED) == CONFIRMED).count() as u64
        };
        self.producers.iter().map(lost).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmed_message_that_does_not_come_is_lost() {
        let ledger = Ledger::new(2);
        ledger.confirm(0, 0);
        ledger.confirm(1, 5);
        ledger.receive(1, 5);
        ledger.fail();
        assert_eq!((ledger.lost(), ledger.outstanding(), ledger.confirmed(), ledger.failed()), (1, 1, 2, 1));
        ledger.receive(0, 0);
        assert_eq!((ledger.lost(), ledger.outstanding(), ledger.received()), (0, 0, 2));
    }

    #[test]
    fn a_message_may_come_before_its_confirm_and_may_come_twice() {
        let ledger = Ledger::new(1);
        assert!(ledger.receive(0, 3));
        ledger.confirm(0, 3);
        assert!(!ledger.receive(0, 3));
        assert_eq!((ledger.lost(), ledger.outstanding()), (0, 0));
        assert_eq!((ledger.received(), ledger.duplicates()), (1, 1));
    }

    #[test]
    fn what_an_earlier_load_confirmed_is_expected() {
        let ledger = Ledger::expecting(&[2, 1]);
        assert_eq!((ledger.outstanding(), ledger.confirmed()), (3, 0));
        ledger.receive(0, 1);
        assert_eq!((ledger.lost(), ledger.outstanding()), (2, 2));
    }
}
