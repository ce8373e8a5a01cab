//! Exchanges and bindings in memory, and the way of a message through them.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Binding, DestinationKind, ExchangeKind};
use crate::limits::{HOPS_MAX, TARGETS_MAX};
use crate::record::ExchangeRecord;
use crate::reply::Refusal;
use crate::routing::{Destination, Router};

/// All exchanges of a namespace, and what is bound to them.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    pub exchanges: BTreeMap<u64, Exchange>,
    pub names: BTreeMap<String, u64>,
    /// By id, in the order of their making.
    pub bindings: BTreeMap<u64, Bound>,
    /// To find a binding by what it says.
    ids: BTreeMap<Binding, u64>,
    /// Bindings by what they lead to.
    to: BTreeMap<Destination, BTreeSet<u64>>,
}

/// An exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub record: ExchangeRecord,
    router: Router,
    /// Ids of the bindings from it.
    pub bindings: BTreeSet<u64>,
}

/// A binding and the ids of its ends.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub binding: Binding,
    pub source: u64,
    pub destination: Destination,
}

impl Topology {
    /// The exchange of this name.
    pub fn find(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    pub fn add_exchange(&mut self, id: u64, record: ExchangeRecord) {
        let kind = ExchangeKind::try_from(record.declaration.kind).unwrap_or(ExchangeKind::Direct);
        self.names.insert(record.declaration.exchange.clone(), id);
        self.exchanges.insert(id, Exchange { record, router: Router::new(kind), bindings: BTreeSet::new() });
    }

    pub fn remove_exchange(&mut self, id: u64) {
        if let Some(exchange) = self.exchanges.remove(&id) {
            self.names.remove(&exchange.record.declaration.exchange);
        }
    }

    /// The id of a binding that says exactly this.
    pub fn binding_id(&self, binding: &Binding) -> Option<u64> {
        self.ids.get(binding).copied()
    }

    /// Ids of the bindings from and to an exchange, or to a queue.
    pub fn bindings_of(&self, end: Destination) -> BTreeSet<u64> {
        let mut found = self.to.get(&end).cloned().unwrap_or_default();
        if let Destination::Exchange(id) = end
            && let Some(exchange) = self.exchanges.get(&id)
        {
            found.extend(&exchange.bindings);
        }
        found
    }

    pub fn add_binding(&mut self, id: u64, bound: Bound) {
        let Bound { binding, source, destination } = &bound;
        let Some(exchange) = self.exchanges.get_mut(source) else { return };
        exchange.bindings.insert(id);
        exchange.router.bind(*destination, &binding.routing_key, &binding.headers, binding.match_any);
        self.to.entry(*destination).or_default().insert(id);
        self.ids.insert(binding.clone(), id);
        self.bindings.insert(id, bound);
    }

    pub fn remove_binding(&mut self, id: u64) {
        let Some(Bound { binding, source, destination }) = self.bindings.remove(&id) else { return };
        self.ids.remove(&binding);
        if let Some(ids) = self.to.get_mut(&destination) {
            ids.remove(&id);
            if ids.is_empty() {
                self.to.remove(&destination);
            }
        }
        if let Some(exchange) = self.exchanges.get_mut(&source) {
            exchange.bindings.remove(&id);
            exchange.router.unbind(destination, &binding.routing_key, &binding.headers, binding.match_any);
        }
    }

    /// Ids of the queues that a message reaches from an exchange. Each exchange is gone through once, so that
    /// circles of bindings end.
    pub fn route(
        &self,
        exchange: &str,
        routing_key: &str,
        headers: &BTreeMap<String, String>,
    ) -> Result<BTreeSet<u64>, Refusal> {
        let Some(first) = self.find(exchange) else {
            return Err(Refusal::ExchangeNotFound { exchange: exchange.to_owned() });
        };
        let mut queues = BTreeSet::new();
        let mut seen = BTreeSet::from([first]);
        let mut to_visit = vec![first];
        while let Some(id) = to_visit.pop() {
            let Some(exchange) = self.exchanges.get(&id) else { continue };
            let mut found = BTreeSet::new();
            exchange.router.route(routing_key, headers, &mut found);
            if found.is_empty() {
                found.extend(self.find(&exchange.record.declaration.alternate).map(Destination::Exchange));
            }
            for destination in found {
                match destination {
                    Destination::Queue(queue) => {
                        queues.insert(queue);
                    }
                    Destination::Exchange(next) if seen.len() < HOPS_MAX && seen.insert(next) => to_visit.push(next),
                    Destination::Exchange(_) => {}
                }
            }
            if queues.len() > TARGETS_MAX {
                return Err(Refusal::TooManyTargets { limit: TARGETS_MAX });
            }
        }
        Ok(queues)
    }
}

impl Bound {
    /// What a binding's destination is.
    pub fn kind(binding: &Binding) -> DestinationKind {
        DestinationKind::try_from(binding.destination_kind).unwrap_or(DestinationKind::Queue)
    }
}
