//! The recent end of a log, decoded.

use std::collections::VecDeque;
use std::ops::Range;

use openraft::EntryPayload;

use crate::types::Entry;

/// The recent end of a group's log, bounded in bytes: replication and apply find fresh entries here, without
/// decoding them again. A proposal's bytes are shared with whoever else holds the entry.
#[derive(Debug)]
pub(super) struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub fn new(bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Notes what was appended. Entries that are there from its position on are replaced.
    pub fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.log_id.index) else { return };
        self.truncate(first);
        if self.end() != Some(first) {
            self.clear();
        }
        for entry in entries {
            self.bytes += weight(&entry);
            self.entries.push_back(entry);
        }
        while self.bytes > self.bytes_max {
            self.pop_front();
        }
    }

    /// Forgets the entries from `index` on.
    pub fn truncate(&mut self, index: u64) {
        while let Some(entry) = self.entries.back().filter(|entry| entry.log_id.index >= index) {
            self.bytes -= weight(entry);
            self.entries.pop_back();
        }
    }

    /// Forgets the entries up to and including `index`.
    pub fn purge(&mut self, index: u64) {
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= index) {
            self.pop_front();
        }
    }

    /// The entries of `range`, if all of them are here. Stops when there would be more than `bytes_max` of
    /// them, but not before the first.
    pub fn get(&self, range: Range<u64>, bytes_max: usize) -> Option<Vec<Entry>> {
        let begin = self.entries.front()?.log_id.index;
        if range.start < begin || range.end > self.end()? {
            return None;
        }
        let (from, to) = ((range.start - begin) as usize, (range.end - begin) as usize);
        let mut bytes = 0;
        let within = self.entries.range(from..to).take_while(|entry| {
            let is_first = bytes == 0;
            bytes += weight(entry);
            is_first || bytes <= bytes_max
        });
        Some(within.cloned().collect())
    }

    fn end(&self) -> Option<u64> {
        self.entries.back().map(|entry| entry.log_id.index + 1)
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= weight(&entry);
        }
    }
}

/// What an entry takes in memory, about (bytes).
fn weight(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.len(),
        EntryPayload::Blank => 0,
        // A few addresses.
        EntryPayload::Membership(membership) => 128 * membership.nodes().count(),
    };
    size_of::<Entry>() + payload
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::log_id_of;
    use crate::types::Proposal;

    fn entry(term: u64, index: u64) -> Entry {
        let payload = EntryPayload::Normal(Proposal(Bytes::from(vec![0; 100])));
        Entry { log_id: log_id_of(term, 1, index), payload }
    }

    fn entries(term: u64, range: Range<u64>) -> Vec<Entry> {
        range.map(|index| entry(term, index)).collect()
    }

    #[test]
    fn a_range_is_served_whole_or_not_at_all() {
        let mut tail = Tail::new(usize::MAX);
        tail.append(entries(1, 5..10));
        assert_eq!(tail.get(5..10, usize::MAX), Some(entries(1, 5..10)));
        assert_eq!(tail.get(7..9, usize::MAX), Some(entries(1, 7..9)));
        assert_eq!(tail.get(4..9, usize::MAX), None);
        assert_eq!(tail.get(7..11, usize::MAX), None);
    }

    #[test]
    fn a_byte_limit_shortens_a_range_to_no_less_than_one_entry() {
        let mut tail = Tail::new(usize::MAX);
        tail.append(entries(1, 0..10));
        let one = weight(&entry(1, 0));
        assert_eq!(tail.get(3..10, 3 * one), Some(entries(1, 3..6)));
        assert_eq!(tail.get(3..10, 1), Some(entries(1, 3..4)));
    }

    #[test]
    fn the_oldest_entries_go_when_the_tail_is_full() {
        let one = weight(&entry(1, 0));
        let mut tail = Tail::new(3 * one);
        tail.append(entries(1, 0..2));
        tail.append(entries(1, 2..5));
        assert_eq!(tail.get(1..5, usize::MAX), None);
        assert_eq!(tail.get(2..5, usize::MAX), Some(entries(1, 2..5)));
        assert_eq!(tail.bytes, 3 * one);
    }

    #[test]
    fn truncation_purge_and_replacement_keep_the_tail_consecutive() {
        let mut tail = Tail::new(usize::MAX);
        tail.append(entries(1, 0..10));
        tail.truncate(8);
        tail.purge(2);
        assert_eq!(tail.get(3..8, usize::MAX), Some(entries(1, 3..8)));
        tail.append(entries(2, 6..8));
        assert_eq!(tail.get(3..8, usize::MAX), Some([entries(1, 3..6), entries(2, 6..8)].concat()));
        // Behind a hole, after a snapshot was installed.
        tail.append(entries(3, 20..22));
        assert_eq!(tail.get(3..8, usize::MAX), None);
        assert_eq!(tail.get(20..22, usize::MAX), Some(entries(3, 20..22)));
        tail.purge(30);
        assert_eq!((tail.entries.len(), tail.bytes), (0, 0));
    }
}
