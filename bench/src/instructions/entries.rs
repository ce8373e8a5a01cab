//! Log entries, from commands to bytes and back.

use std::hint::black_box;
use std::mem::forget;

use bytes::Bytes;
use dwell_consensus::codec::{decode_entry, encode_entry, log_id_of};
use dwell_consensus::types::{Entry, Proposal};
use dwell_machine::{Batch, Command};
use openraft::EntryPayload;

use super::machine::{BATCH, batches};

const AT_MS: u64 = 1_800_000_000_000;

/// Encodes entries, as the proposer and the log do.
pub fn encode(prepared: u64, messages: u64) -> anyhow::Result<()> {
    let mut commands = batches(prepared, |_| 0).into_iter();
    for (index, command) in (1..).zip(commands.by_ref().take((messages / BATCH) as usize)) {
        black_box(encoded(index, command));
    }
    forget(commands);
    Ok(())
}

/// Decodes entries, as the log and the state machine do.
pub fn decode(prepared: u64, messages: u64) -> anyhow::Result<()> {
    let mut entries = (1..).zip(batches(prepared, |_| 0)).map(|(index, command)| encoded(index, command));
    let mut entries = entries.by_ref().collect::<Vec<Bytes>>().into_iter();
    for bytes in entries.by_ref().take((messages / BATCH) as usize) {
        if let EntryPayload::Normal(proposal) = decode_entry(bytes)?.payload {
            black_box(Batch::decode(proposal.0)?);
        }
    }
    forget(entries);
    Ok(())
}

fn encoded(index: u64, command: Command) -> Bytes {
    let proposal = Proposal(Batch::encode(AT_MS, [command]));
    encode_entry(&Entry { log_id: log_id_of(1, 1, index), payload: EntryPayload::Normal(proposal) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_can_be_encoded_and_decoded_in_part_and_to_the_end() {
        for messages in [BATCH, 3 * BATCH] {
            encode(3 * BATCH, messages).unwrap();
            decode(3 * BATCH, messages).unwrap();
        }
    }
}
