//! What happened to each message: one byte for each.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

const CONFIRMED: u8 = 1;
const RECEIVED: u8 = 2;
/// The publish failed in a way that leaves open whether it is stored, or was refused.
const FAILED: u8 = 4;

/// The account of a run. Shared by all producers and consumers.
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
    pub fn new(producers: u32) -> Ledger {
        Ledger {
            producers: (0..producers).map(|_| Mutex::default()).collect(),
            confirmed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            received: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            outstanding: AtomicU64::new(0),
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
    pub fn fail(&self, producer: u32, number: u64) {
        self.mark(producer, number, FAILED);
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The message was delivered.
    pub fn receive(&self, producer: u32, number: u64) {
        let before = self.mark(producer, number, RECEIVED);
        if before & RECEIVED != 0 {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.received.fetch_add(1, Ordering::Relaxed);
        // A message may come before its confirm: then it never counts as outstanding.
        if before & CONFIRMED != 0 {
            self.outstanding.fetch_sub(1, Ordering::Relaxed);
        }
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

    pub fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

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
        ledger.fail(1, 6);
        assert_eq!((ledger.lost(), ledger.outstanding(), ledger.confirmed(), ledger.failed()), (1, 1, 2, 1));
        ledger.receive(0, 0);
        assert_eq!((ledger.lost(), ledger.outstanding(), ledger.received()), (0, 0, 2));
    }

    #[test]
    fn a_message_may_come_before_its_confirm_and_may_come_twice() {
        let ledger = Ledger::new(1);
        ledger.receive(0, 3);
        ledger.confirm(0, 3);
        ledger.receive(0, 3);
        assert_eq!((ledger.lost(), ledger.outstanding()), (0, 0));
        assert_eq!((ledger.received(), ledger.duplicates()), (1, 1));
    }
}
