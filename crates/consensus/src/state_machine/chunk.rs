//! Log entries that are applied and written together.

use std::io;

use futures::{FutureExt, Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::EntryResponder;

use crate::types::TypeConfig;

/// Most entries in a chunk: the effects and answers of the first wait for the last.
const ENTRIES_MAX: usize = 256;
/// A chunk is closed once its proposals have this many bytes: a bound on the rows that wait in memory.
const BYTES_FULL: usize = 2 << 20;

/// Entries taken from the stream together, at least one.
#[derive(Default)]
pub(super) struct Chunk {
    pub entries: Vec<EntryResponder<TypeConfig>>,
    /// Bytes of the proposals.
    pub bytes: usize,
}

impl Chunk {
    /// Waits for an entry, and takes along those that are there already, but none behind index `last`. None at the end
    /// of the stream.
    pub async fn next<S>(stream: &mut S, last: Option<u64>) -> io::Result<Option<Chunk>>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin,
    {
        let Some(first) = stream.next().await else {
            return Ok(None);
        };
        let mut chunk = Chunk::default();
        chunk.push(first?);
        while !chunk.is_full() && !chunk.ends_at(last) {
            match stream.next().now_or_never() {
                Some(Some(entry)) => chunk.push(entry?),
                Some(None) | None => break,
            }
        }
        Ok(Some(chunk))
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX || self.bytes >= BYTES_FULL
    }

    fn ends_at(&self, last: Option<u64>) -> bool {
        last.is_some() && self.entries.last().map(|(entry, _)| entry.log_id.index) == last
    }

    fn push(&mut self, entry: EntryResponder<TypeConfig>) {
        if let EntryPayload::Normal(proposal) = &entry.0.payload {
            self.bytes += proposal.0.len();
        }
        self.entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::log_id_of;
    use crate::types::{Entry, Proposal};

    fn entry(index: u64, bytes: usize) -> io::Result<EntryResponder<TypeConfig>> {
        let payload = EntryPayload::Normal(Proposal(vec![0; bytes].into()));
        Ok((Entry { log_id: log_id_of(1, 1, index), payload }, None))
    }

    async fn chunk_lengths(entries: Vec<io::Result<EntryResponder<TypeConfig>>>) -> Vec<usize> {
        let mut stream = futures::stream::iter(entries);
        let mut lengths = Vec::new();
        while let Some(chunk) = Chunk::next(&mut stream, None).await.unwrap() {
            lengths.push(chunk.entries.len());
        }
        lengths
    }

    #[tokio::test]
    async fn chunks_are_bounded_in_entries_and_in_bytes() {
        assert_eq!(chunk_lengths(Vec::new()).await, [0; 0]);
        assert_eq!(chunk_lengths((0..300).map(|index| entry(index, 1)).collect()).await, [256, 44]);
        assert_eq!(chunk_lengths((0..3).map(|index| entry(index, BYTES_FULL - 1)).collect()).await, [2, 1]);
        assert_eq!(chunk_lengths((0..2).map(|index| entry(index, 3 * BYTES_FULL)).collect()).await, [1, 1]);
    }

    #[tokio::test]
    async fn a_chunk_does_not_wait_for_entries_that_are_not_there() {
        let mut stream = futures::stream::iter([entry(1, 1), entry(2, 1)]).chain(futures::stream::pending());
        assert_eq!(Chunk::next(&mut stream, None).await.unwrap().unwrap().entries.len(), 2);
    }

    #[tokio::test]
    async fn a_chunk_ends_at_an_index_that_is_wanted_by_itself() {
        let mut stream = futures::stream::iter((5..9).map(|index| entry(index, 1)));
        let mut lengths = Vec::new();
        for last in [Some(6), Some(7), None] {
            lengths.push(Chunk::next(&mut stream, last).await.unwrap().unwrap().entries.len());
        }
        assert_eq!(lengths, [2, 1, 1]);
    }

    #[tokio::test]
    async fn an_entry_that_cannot_be_read_is_an_error() {
        let mut stream = futures::stream::iter([entry(1, 1), Err(io::Error::other("torn"))]);
        assert!(Chunk::next(&mut stream, None).await.is_err());
    }
}
