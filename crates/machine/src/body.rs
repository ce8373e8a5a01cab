//! Bodies that several messages share: what goes to many queues is stored once.

use bytes::Bytes;

use crate::key;
use crate::machine::Step;
use crate::record::{self, BodyRecord, CountRecord, MessageRecord};
use crate::store::{Store, StoreError, StoreRead, Table};

impl<S: Store> Step<'_, S> {
    /// Stores a body for so many messages. Named by the sequence that the next message gets.
    pub fn share_body(&mut self, body: Bytes, messages: usize) -> u64 {
        let id = self.machine.meta.last_sequence + 1;
        self.store.put(Table::Bodies, &key::id(id), record::encode(&BodyRecord { body }));
        self.write_shares(id, messages as u64);
        id
    }

    /// Adds messages to those that share a body; 0: there is none.
    pub fn add_shares(&mut self, id: u64, messages: usize) -> Result<(), StoreError> {
        if id != 0 && messages > 0 {
            let shares = self.read_shares(id)?;
            self.write_shares(id, shares + messages as u64);
        }
        Ok(())
    }

    /// Takes one message from those that share a body; 0: there is none. The last one takes the body along.
    pub fn drop_share(&mut self, id: u64) -> Result<(), StoreError> {
        if id == 0 {
            return Ok(());
        }
        match self.read_shares(id)? {
            0 | 1 => {
                self.store.delete(Table::BodyShares, &key::id(id));
                self.store.delete(Table::Bodies, &key::id(id));
            }
            shares => self.write_shares(id, shares - 1),
        }
        Ok(())
    }

    fn read_shares(&self, id: u64) -> Result<u64, StoreError> {
        match self.store.get(Table::BodyShares, &key::id(id))? {
            Some(value) => Ok(record::decode::<CountRecord>(Table::BodyShares, value)?.count),
            None => Err(StoreError::Corrupt {
                table: Table::BodyShares,
                reason: format!("nobody shares body {id}, though a message says so"),
            }),
        }
    }

    fn write_shares(&mut self, id: u64, count: u64) {
        self.store.put(Table::BodyShares, &key::id(id), record::encode(&CountRecord { count }));
    }
}

/// Reads a stored message as its row says, without a shared body. `None` if it is gone.
pub(crate) fn read_row(store: &impl StoreRead, queue: u64, sequence: u64) -> Result<Option<MessageRecord>, StoreError> {
    match store.get(Table::Messages, &key::message(queue, sequence))? {
        Some(value) => record::decode(Table::Messages, value).map(Some),
        None => Ok(None),
    }
}

/// Reads a stored message, with its body. `None` if it is gone.
pub fn read_message(store: &impl StoreRead, queue: u64, sequence: u64) -> Result<Option<MessageRecord>, StoreError> {
    let Some(mut message) = read_row(store, queue, sequence)? else { return Ok(None) };
    if message.shared_body == 0 {
        return Ok(Some(message));
    }
    // The message may go, and its body with it, between the two reads of a store that is written to.
    let Some(value) = store.get(Table::Bodies, &key::id(message.shared_body))? else { return Ok(None) };
    message.content.body = record::decode::<BodyRecord>(Table::Bodies, value)?.body;
    message.shared_body = 0;
    Ok(Some(message))
}
