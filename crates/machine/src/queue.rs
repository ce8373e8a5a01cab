//! Declaring and deleting queues.

use crate::command::{DeclareQueue, DeleteQueue, QueueSettings, UpdateQueue};
use crate::key::{self, Timer, TimerKind};
use crate::limits::QUEUES_MAX;
use crate::machine::Step;
use crate::reply::{CloseReason, Effect, Refusal, Reply};
use crate::routing::Destination;
use crate::state::Queue;
use crate::store::{Store, Table};

impl<S: Store> Step<'_, S> {
    pub fn declare_queue(&mut self, command: DeclareQueue) -> Reply {
        if let Some(id) = self.machine.queue_names.get(&command.queue).copied() {
            if let Some(field) = first_difference(&self.queue(id).settings, &command.settings) {
                return Reply::Refused(Refusal::QueueDiffers { queue: command.queue, field });
            }
            self.touch(id);
            return Reply::QueueDeclared { created: false };
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
        self.touch(id);
        Reply::QueueDeclared { created: true }
    }

    pub fn update_queue(&mut self, command: &UpdateQueue) -> Reply {
        let Some(id) = self.machine.queue_names.get(&command.queue).copied() else {
            return Reply::Refused(Refusal::QueueNotFound { queue: command.queue.clone() });
        };
        let mut settings = self.queue(id).settings.clone();
        for field in &command.fields {
            if let Err(refusal) = copy_setting(&mut settings, &command.settings, field) {
                return Reply::Refused(refusal);
            }
        }
        self.queue(id).settings = settings;
        self.touch(id);
        // It may have been paused.
        self.unsettled.insert(id);
        Reply::Done
    }

    /// Notes that somebody uses a queue, and sets the time at which it will have been idle for too long.
    pub fn touch(&mut self, queue_id: u64) {
        let now_ms = self.now_ms();
        let queue = self.queue(queue_id);
        let idle_at_ms = match queue.settings.idle_ttl_ms {
            0 => 0,
            idle_ttl_ms => now_ms.saturating_add(idle_ttl_ms),
        };
        if idle_at_ms != queue.idle_timer_ms {
            self.set_idle_timer(queue_id, idle_at_ms);
        }
    }

    fn set_idle_timer(&mut self, queue_id: u64, at_ms: u64) {
        let before_ms = std::mem::replace(&mut self.queue(queue_id).idle_timer_ms, at_ms);
        self.cancel_timer(idle_timer(queue_id, before_ms));
        if at_ms != 0 {
            self.put_timer(idle_timer(queue_id, at_ms), bytes::Bytes::new());
        }
    }

    /// Deletes a queue that nobody has used for as long as it may be idle: each use has put its timer off.
    pub fn fire_idle(&mut self, queue_id: u64) {
        if self.machine.queue_name(queue_id).is_none() {
            return;
        }
        let queue = self.queue(queue_id);
        queue.idle_timer_ms = 0;
        // When the last consumer goes, it gets a timer again.
        if queue.consumers.is_empty() {
            self.remove_queue(queue_id);
        }
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
        self.remove_queue(id);
        Reply::QueueDeleted { messages }
    }

    /// Takes a queue from sight; what is left of it is swept.
    fn remove_queue(&mut self, id: u64) {
        self.set_idle_timer(id, 0);
        let queue = self.queue(id);
        queue.deleted = true;
        let name = queue.name.clone();
        self.machine.queue_names.remove(&name);
        self.machine.sweeps.insert(id);
        self.unbind_all(Destination::Queue(id));
        self.close_consumers_of(id);
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

fn idle_timer(queue: u64, at_ms: u64) -> Timer {
    Timer { at_ms, kind: TimerKind::IdleQueue, queue, sequence: 0 }
}

/// Goes through all settings by name.
macro_rules! settings {
    ($visit:ident) => {
        $visit!(
            lease_timeout_ms,
            delivery_limit,
            default_delay_ms,
            message_ttl_ms,
            idle_ttl_ms,
            messages_max,
            bytes_max,
            overflow,
            dead_letter,
            priority_max,
            dedupe_window_ms,
            single_active_consumer,
            paused,
            backoff,
            aging_ms
        )
    };
}

/// The first setting, in their order, that two queues do not have in common.
fn first_difference(one: &QueueSettings, other: &QueueSettings) -> Option<&'static str> {
    macro_rules! compare {
        ($($field:ident),*) => {
            $(if one.$field != other.$field {
                return Some(stringify!($field));
            })*
        };
    }
    settings!(compare);
    None
}

fn copy_setting(to: &mut QueueSettings, from: &QueueSettings, name: &str) -> Result<(), Refusal> {
    macro_rules! copy {
        ($($field:ident),*) => {
            match name {
                // Messages stand in the order of their priorities, and consumers hold what they hold.
                "priority_max" | "single_active_consumer" => {
                    return Err(Refusal::SettingFixed { field: name.to_owned() });
                }
                $(stringify!($field) => to.$field.clone_from(&from.$field),)*
                _ => return Err(Refusal::SettingUnknown { field: name.to_owned() }),
            }
        };
    }
    settings!(copy);
    Ok(())
}
