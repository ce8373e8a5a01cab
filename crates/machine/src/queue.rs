//! Declaring and deleting queues.

use crate::command::{DeclareQueue, DeleteQueue};
use crate::key;
use crate::limits::QUEUES_MAX;
use crate::machine::Step;
use crate::reply::{CloseReason, Effect, Refusal, Reply};
use crate::state::Queue;
use crate::store::{Store, Table};

impl<S: Store> Step<'_, S> {
    pub fn declare_queue(&mut self, command: DeclareQueue) -> Reply {
        if let Some(existing) = self.machine.queue(&command.queue) {
            let field = if existing.settings.lease_timeout_ms != command.settings.lease_timeout_ms {
                "lease_timeout_ms"
            } else if existing.settings.delivery_limit != command.settings.delivery_limit {
                "delivery_limit"
            } else {
                return Reply::QueueDeclared { created: false };
            };
            return Reply::Refused(Refusal::QueueDiffers { queue: command.queue, field });
        }
        // Deleted queues count until they are swept: they are in memory as well.
        if self.machine.queues.len() >= QUEUES_MAX {
            return Reply::Refused(Refusal::TooManyQueues { limit: QUEUES_MAX });
        }
        self.machine.meta.last_queue += 1;
        let id = self.machine.meta.last_queue;
        let queue = Queue::new(id, command.queue.clone(), command.settings, self.now_ms());
        self.machine.queues.insert(id, queue);
        self.machine.queue_names.insert(command.queue, id);
        self.machine.changed_queues.insert(id);
        Reply::QueueDeclared { created: true }
    }

    pub fn delete_queue(&mut self, command: &DeleteQueue) -> Reply {
        let Some(id) = self.machine.queue_names.get(&command.queue).copied() else {
            return Reply::Refused(Refusal::QueueNotFound { queue: command.queue.clone() });
        };
        let queue = self.queue(id);
        let messages = queue.counts.scheduled + queue.counts.ready + queue.counts.leased;
        let consumers = queue.consumers.len() as u64;
        if command.if_empty && messages > 0 {
            return Reply::Refused(Refusal::QueueNotEmpty { queue: command.queue.clone(), messages });
        }
        if command.if_unused && consumers > 0 {
            return Reply::Refused(Refusal::QueueInUse { queue: command.queue.clone(), consumers });
        }
        queue.deleted = true;
        self.machine.queue_names.remove(&command.queue);
        self.machine.sweeps.insert(id);
        self.close_consumers_of(id);
        Reply::QueueDeleted { messages }
    }

    fn close_consumers_of(&mut self, queue_id: u64) {
        for consumer_key in std::mem::take(&mut self.queue(queue_id).consumers) {
            self.queue(queue_id).remove_consumer(consumer_key);
            if let Some(consumer) = self.forget_consumer(consumer_key) {
                // Its leases are nobody's until they are swept.
                self.machine.leases_received += consumer.held.len();
                if consumer.is_attached() {
                    self.effect(Effect::CloseConsumer {
                        consumer: consumer_key,
                        attachment: consumer.attachment,
                        reason: CloseReason::QueueDeleted,
                    });
                }
            }
        }
    }

    /// Removes a consumer from the namespace's tables; its queue and leases are the caller's affair.
    pub fn forget_consumer(&mut self, consumer_key: u64) -> Option<crate::state::Consumer> {
        let consumer = self.machine.consumers.remove(&consumer_key)?;
        self.machine.consumer_ids.remove(&consumer.consumer_id);
        self.machine.session_deadlines.remove(&(consumer.session_deadline_ms, consumer_key));
        self.machine.leases_of_consumers -= consumer.promised();
        self.store.delete(Table::Consumers, &key::id(consumer_key));
        Some(consumer)
    }
}
