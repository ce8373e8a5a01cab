//! Acknowledging and publishing in one step, all or nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::capacity::Load;
use crate::command::{Ack, Overflow, PublishMessage, Transact};
use crate::machine::Step;
use crate::producer::Outcome;
use crate::publish::Route;
use crate::reply::{Refusal, Reply};
use crate::store::{Store, StoreError};

impl<S: Store> Step<'_, S> {
    pub fn transact(&mut self, command: Transact) -> Result<Reply, StoreError> {
        let Transact { acks, publish } = command;
        self.once(publish.producer, |step| step.ack_and_publish(acks, publish.messages))
    }

    fn ack_and_publish(&mut self, acks: Vec<Ack>, messages: Vec<PublishMessage>) -> Result<Outcome, StoreError> {
        let (leaving, routes) = match self.check_acks(&acks).and_then(|leaving| {
            let routes = self.route_all(&messages)?;
            Ok((leaving, routes))
        }) {
            Ok(checked) => checked,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let coming = self.load_of(&messages, &routes)?;
        if let Err(refusal) = self.check_room(&leaving, &coming) {
            return Ok(Err(refusal));
        }
        for ack in &acks {
            self.ack(ack)?;
        }
        self.in_transaction = true;
        let outcome = self.publish_messages(messages);
        self.in_transaction = false;
        outcome
    }

    /// What the acks take away from each queue, if all their leases are held.
    fn check_acks(&self, acks: &[Ack]) -> Result<BTreeMap<u64, Load>, Refusal> {
        let mut named = BTreeSet::new();
        let mut leaving: BTreeMap<u64, Load> = BTreeMap::new();
        for ack in acks {
            let Some(queue_id) = self.machine.queue_names.get(&ack.queue).copied() else {
                return Err(Refusal::QueueNotFound { queue: ack.queue.clone() });
            };
            for lease in &ack.leases {
                let row = self.held(queue_id, lease).filter(|_| named.insert((queue_id, lease.sequence)));
                let Some(row) = row else {
                    return Err(Refusal::LeaseLost { queue: ack.queue.clone(), sequence: lease.sequence });
                };
                let load = leaving.entry(queue_id).or_default();
                load.messages += 1;
                load.bytes += row.ticket.bytes;
            }
        }
        Ok(leaving)
    }

    /// What the messages add to each queue.
    fn load_of(&self, messages: &[PublishMessage], routes: &[Route]) -> Result<BTreeMap<u64, Load>, StoreError> {
        let mut coming: BTreeMap<u64, Load> = BTreeMap::new();
        for (message, route) in messages.iter().zip(routes) {
            for queue_id in route.queues() {
                if self.find_duplicate(queue_id, &message.dedupe_id)?.is_none() {
                    let load = coming.entry(queue_id).or_default();
                    load.messages += 1;
                    load.bytes += message.content.body.len() as u64;
                }
            }
        }
        Ok(coming)
    }

    /// Only queues that reject must have room: the others make it.
    fn check_room(&self, leaving: &BTreeMap<u64, Load>, coming: &BTreeMap<u64, Load>) -> Result<(), Refusal> {
        for (queue_id, coming) in coming {
            let Some(queue) = self.machine.queues.get(queue_id) else { continue };
            let leaving = leaving.get(queue_id).copied().unwrap_or_default();
            if queue.settings.overflow() == Overflow::Reject && !queue.fits(*coming, leaving) {
                return Err(Refusal::QueueFull { queue: queue.name.clone() });
            }
        }
        Ok(())
    }
}
