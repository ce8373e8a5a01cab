//! Declaring and deleting exchanges and bindings.

use crate::command::{Binding, DeclareExchange, DeleteExchange, DestinationKind, Unbind};
use crate::key;
use crate::limits::{BINDINGS_MAX, EXCHANGES_MAX};
use crate::machine::Step;
use crate::record::{self, ExchangeRecord};
use crate::reply::{Refusal, Reply};
use crate::routing::Destination;
use crate::store::{Store, Table};
use crate::topology::Bound;

impl<S: Store> Step<'_, S> {
    pub fn declare_exchange(&mut self, command: DeclareExchange) -> Reply {
        let topology = &self.machine.topology;
        if let Some(exchange) = topology.find(&command.exchange).and_then(|id| topology.exchanges.get(&id)) {
            let field = if exchange.record.declaration.kind != command.kind {
                "kind"
            } else if exchange.record.declaration.alternate != command.alternate {
                "alternate"
            } else {
                return Reply::ExchangeDeclared { created: false };
            };
            return Reply::Refused(Refusal::ExchangeDiffers { exchange: command.exchange, field });
        }
        if topology.exchanges.len() >= EXCHANGES_MAX {
            return Reply::Refused(Refusal::TooManyExchanges { limit: EXCHANGES_MAX });
        }
        self.machine.meta.last_exchange += 1;
        let id = self.machine.meta.last_exchange;
        let row = ExchangeRecord { declaration: command, created_at_ms: self.now_ms() };
        self.store.put(Table::Exchanges, &key::id(id), record::encode(&row));
        self.machine.topology.add_exchange(id, row);
        Reply::ExchangeDeclared { created: true }
    }

    pub fn delete_exchange(&mut self, command: &DeleteExchange) -> Reply {
        let topology = &self.machine.topology;
        let Some(id) = topology.find(&command.exchange) else {
            return Reply::Refused(Refusal::ExchangeNotFound { exchange: command.exchange.clone() });
        };
        let bindings = topology.exchanges.get(&id).map_or(0, |exchange| exchange.bindings.len() as u64);
        if command.if_unused && bindings > 0 {
            return Reply::Refused(Refusal::ExchangeInUse { exchange: command.exchange.clone(), bindings });
        }
        self.unbind_all(Destination::Exchange(id));
        self.machine.topology.remove_exchange(id);
        self.store.delete(Table::Exchanges, &key::id(id));
        Reply::Done
    }

    /// Removes all bindings from and to something that is going.
    pub fn unbind_all(&mut self, end: Destination) {
        for id in self.machine.topology.bindings_of(end) {
            self.remove_binding(id);
        }
    }

    fn remove_binding(&mut self, id: u64) {
        self.machine.topology.remove_binding(id);
        self.store.delete(Table::Bindings, &key::id(id));
    }

    pub fn bind(&mut self, binding: Binding) -> Reply {
        let bound = match self.resolve(binding) {
            Ok(bound) => bound,
            Err(refusal) => return Reply::Refused(refusal),
        };
        let topology = &mut self.machine.topology;
        if topology.binding_id(&bound.binding).is_some() {
            return Reply::Bound { created: false };
        }
        if topology.bindings.len() >= BINDINGS_MAX {
            return Reply::Refused(Refusal::TooManyBindings { limit: BINDINGS_MAX });
        }
        self.machine.meta.last_binding += 1;
        let id = self.machine.meta.last_binding;
        self.store.put(Table::Bindings, &key::id(id), record::encode(&bound.binding));
        topology.add_binding(id, bound);
        Reply::Bound { created: true }
    }

    pub fn unbind(&mut self, command: Unbind) -> Reply {
        let bound = match self.resolve(command.binding) {
            Ok(bound) => bound,
            Err(refusal) => return Reply::Refused(refusal),
        };
        let id = self.machine.topology.binding_id(&bound.binding);
        if let Some(id) = id {
            self.remove_binding(id);
        }
        Reply::Unbound { existed: id.is_some() }
    }

    fn resolve(&self, binding: Binding) -> Result<Bound, Refusal> {
        self.machine.resolve_binding(binding)
    }
}

impl crate::machine::Machine {
    /// Looks up the ends of a binding.
    pub(crate) fn resolve_binding(&self, binding: Binding) -> Result<Bound, Refusal> {
        let exchange = |name: &String| {
            self.topology.find(name).ok_or_else(|| Refusal::ExchangeNotFound { exchange: name.clone() })
        };
        let source = exchange(&binding.exchange)?;
        let destination = match Bound::kind(&binding) {
            DestinationKind::Exchange => Destination::Exchange(exchange(&binding.destination)?),
            DestinationKind::Queue => match self.queue_names.get(&binding.destination) {
                Some(id) => Destination::Queue(*id),
                None => return Err(Refusal::QueueNotFound { queue: binding.destination }),
            },
        };
        Ok(Bound { binding, source, destination })
    }
}
