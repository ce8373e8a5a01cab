//! Which cluster this is, and who holds its data.

use std::collections::BTreeSet;

use crate::command::Identify;
use crate::key;
use crate::limits::HOLDERS_MAX;
use crate::machine::{Machine, Step};
use crate::migrate::LAYOUT;
use crate::record::{self, MetaRecord};
use crate::reply::Reply;
use crate::store::{Store, StoreError, Table};

impl<S: Store> Step<'_, S> {
    /// The first id stays. Whoever holds data once is remembered for ever, since ids of nodes are not used again.
    pub(crate) fn identify(&mut self, command: &Identify) -> Reply {
        let meta = &mut self.machine.meta;
        if meta.cluster_id == 0 {
            meta.cluster_id = command.cluster_id;
        }
        for holder in &command.holders {
            if let Err(place) = meta.holders.binary_search(holder)
                && meta.holders.len() < HOLDERS_MAX
            {
                meta.holders.insert(place, *holder);
            }
        }
        Reply::Done
    }
}

impl Machine {
    /// The cluster's id; none before it was given one.
    pub fn cluster_id(&self) -> Option<u64> {
        Some(self.meta.cluster_id).filter(|id| *id != 0)
    }

    /// Nodes that hold, or held, data of the cluster, in order.
    pub fn holders(&self) -> &[u64] {
        &self.meta.holders
    }
}

/// Makes rows that were another cluster's those of a new one, with its id and the nodes that hold its data. All else stays,
/// machine time included. No machine may be open on the rows.
///
/// # Errors
/// [`StoreError::Corrupt`] if the rows have a layout that this version does not know, or are not readable.
pub fn found_anew(store: &mut impl Store, cluster_id: u64, holders: BTreeSet<u64>) -> Result<(), StoreError> {
    let meta: MetaRecord = match store.get(Table::Meta, key::META)? {
        Some(value) => record::decode(Table::Meta, value)?,
        None => MetaRecord { layout: LAYOUT, ..MetaRecord::default() },
    };
    if meta.layout > LAYOUT {
        let reason = format!("the rows have layout {}, this version knows those up to {LAYOUT}", meta.layout);
        return Err(StoreError::Corrupt { table: Table::Meta, reason });
    }
    let holders = holders.into_iter().take(HOLDERS_MAX).collect();
    store.put(Table::Meta, key::META, record::encode(&MetaRecord { cluster_id, holders, ..meta }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::store::{MemoryStore, StoreRead as _};

    #[test]
    fn the_first_id_stays_and_holders_are_remembered_through_a_restart() {
        let mut store = MemoryStore::default();
        let mut machine = Machine::open(&store).unwrap();
        assert_eq!((machine.cluster_id(), machine.holders()), (None, &[][..]));
        for (cluster_id, holders) in [(0, vec![]), (7, vec![3, 1]), (8, vec![2, 3])] {
            machine.apply(&mut store, 1, vec![Command::Identify(Identify { cluster_id, holders })]).unwrap();
        }
        let reopened = Machine::open(&store).unwrap();
        for machine in [machine, reopened] {
            assert_eq!((machine.cluster_id(), machine.holders()), (Some(7), &[1, 2, 3][..]));
        }
    }

    #[test]
    fn no_more_holders_are_remembered_than_there_is_room_for() {
        let mut store = MemoryStore::default();
        let mut machine = Machine::open(&store).unwrap();
        let holders = (1..=HOLDERS_MAX as u64 + 5).collect();
        machine.apply(&mut store, 1, vec![Command::Identify(Identify { cluster_id: 1, holders })]).unwrap();
        assert_eq!(machine.holders().len(), HOLDERS_MAX);
    }

    #[test]
    fn rows_of_one_cluster_become_those_of_another_with_all_else_as_it_was() {
        let mut store = MemoryStore::default();
        let mut machine = Machine::open(&store).unwrap();
        let identify = Command::Identify(Identify { cluster_id: 7, holders: vec![1, 2, 3] });
        machine.apply(&mut store, 99, vec![identify]).unwrap();
        let before: MetaRecord =
            record::decode(Table::Meta, store.get(Table::Meta, key::META).unwrap().unwrap()).unwrap();
        found_anew(&mut store, 8, [5, 4].into()).unwrap();
        let after: MetaRecord =
            record::decode(Table::Meta, store.get(Table::Meta, key::META).unwrap().unwrap()).unwrap();
        assert_eq!(after, MetaRecord { cluster_id: 8, holders: vec![4, 5], ..before });
        let mut machine = Machine::open(&store).unwrap();
        assert_eq!((machine.now_ms(), machine.cluster_id()), (99, Some(8)));
        // The former members are nobody to it.
        machine.apply(&mut store, 1, vec![Command::Identify(Identify { cluster_id: 7, holders: vec![1] })]).unwrap();
        assert_eq!((machine.cluster_id(), machine.holders()), (Some(8), &[1, 4, 5][..]));
    }

    #[test]
    fn rows_of_a_newer_version_are_refused() {
        let mut store = MemoryStore::default();
        let newer = MetaRecord { layout: LAYOUT + 1, ..MetaRecord::default() };
        store.put(Table::Meta, key::META, record::encode(&newer));
        let refused = found_anew(&mut store, 8, BTreeSet::new()).unwrap_err().to_string();
        assert!(refused.contains("layout 2"), "{refused}");
    }
}
