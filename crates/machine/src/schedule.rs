//! Recurring publications.

use std::sync::OnceLock;

use crate::command::{
    ControlSchedule, DeclareSchedule, DeleteSchedule, PublishMessage, ScheduleControl, ScheduleDefinition,
};
use crate::key::{self, Timer, TimerKind};
use crate::limits::{FIRINGS_MAX, FIRINGS_STEP_MAX, SCHEDULE_KEPT_MS, SCHEDULES_MAX};
use crate::machine::Step;
use crate::record::{self, FiringRecord, ScheduleRecord};
use crate::recurrence::{Timetable, jitter_of, next_due};
use crate::reply::{PublishResult, Refusal, Reply};
use crate::store::{Store, StoreError, Table};

/// Header of a fired message that names its schedule.
const SCHEDULE_HEADER: &str = "dwell-schedule";
/// Header of a fired message that holds its due time, in milliseconds since the Unix epoch.
const DUE_HEADER: &str = "dwell-schedule-due-ms";

/// A schedule.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub row: ScheduleRecord,
    /// Its times, read when they are first asked for: that takes some 100 us, and there may be many schedules.
    timetable: OnceLock<Option<Timetable>>,
}

impl Schedule {
    pub fn new(row: ScheduleRecord) -> Schedule {
        Schedule { row, timetable: OnceLock::new() }
    }

    fn next_after(&self, after_ms: u64) -> Option<u64> {
        // It was readable when it was declared.
        let timetable = self.timetable.get_or_init(|| timetable_of(&self.row.definition).ok());
        next_due(&self.row.definition, timetable.as_ref()?, after_ms)
    }

    /// The next due times, from the one that it waits for.
    pub fn upcoming(&self, limit: usize) -> Vec<u64> {
        let first = Some(self.row.next_due_ms).filter(|due_ms| *due_ms > 0);
        std::iter::successors(first, |due_ms| self.next_after(*due_ms)).take(limit).collect()
    }

    fn remember(&mut self, firing: FiringRecord) {
        let history = &mut self.row.history;
        history.push(firing);
        let excess = history.len().saturating_sub(FIRINGS_MAX);
        history.drain(..excess);
    }
}

fn timetable_of(definition: &ScheduleDefinition) -> Result<Timetable, Refusal> {
    Timetable::new(&definition.recurrence).map_err(|error| Refusal::BadRecurrence { reason: error.to_string() })
}

/// The first due times of a definition after a time.
pub fn preview(definition: &ScheduleDefinition, after_ms: u64, limit: usize) -> Result<Vec<u64>, Refusal> {
    let timetable = timetable_of(definition)?;
    let next = |after_ms: u64| next_due(definition, &timetable, after_ms);
    Ok(std::iter::successors(next(after_ms), |due_ms| next(*due_ms)).take(limit).collect())
}

impl<S: Store> Step<'_, S> {
    pub fn declare_schedule(&mut self, command: DeclareSchedule) -> Reply {
        let DeclareSchedule { schedule: name, definition, replace } = command;
        let existing = self.machine.schedule_names.get(&name).copied();
        if let Some(schedule) = existing.and_then(|id| self.machine.schedules.get(&id)) {
            if schedule.row.definition == definition {
                return Reply::ScheduleDeclared { created: false };
            }
            if !replace {
                return Reply::Refused(Refusal::ScheduleDiffers { schedule: name });
            }
        } else if self.machine.schedules.len() >= SCHEDULES_MAX {
            return Reply::Refused(Refusal::TooManySchedules { limit: SCHEDULES_MAX });
        }
        if let Err(refusal) = timetable_of(&definition) {
            return Reply::Refused(refusal);
        }
        let id = existing.unwrap_or_else(|| self.new_schedule(&name));
        let row = match self.machine.schedules.remove(&id) {
            Some(before) => ScheduleRecord { definition, misfires: 0, ..before.row },
            None => ScheduleRecord { name, definition, created_at_ms: self.now_ms(), ..ScheduleRecord::default() },
        };
        self.machine.schedules.insert(id, Schedule::new(row));
        self.plan(id, self.now_ms());
        Reply::ScheduleDeclared { created: existing.is_none() }
    }

    fn new_schedule(&mut self, name: &str) -> u64 {
        self.machine.meta.last_schedule += 1;
        let id = self.machine.meta.last_schedule;
        self.machine.schedule_names.insert(name.to_owned(), id);
        id
    }

    pub fn delete_schedule(&mut self, command: &DeleteSchedule) -> Reply {
        let Some(id) = self.machine.schedule_names.get(&command.schedule).copied() else {
            return Reply::Refused(Refusal::ScheduleNotFound { schedule: command.schedule.clone() });
        };
        self.drop_schedule(id);
        Reply::Done
    }

    fn drop_schedule(&mut self, id: u64) {
        if let Some(schedule) = self.machine.schedules.remove(&id) {
            self.machine.schedule_names.remove(&schedule.row.name);
            self.cancel_timer(schedule_timer(id, schedule.row.timer_ms));
            self.store.delete(Table::Schedules, &key::id(id));
        }
    }

    pub fn control_schedule(&mut self, command: &ControlSchedule) -> Result<Reply, StoreError> {
        let id = self.machine.schedule_names.get(&command.schedule).copied();
        let Some((id, schedule)) = id.and_then(|id| Some((id, self.machine.schedules.get_mut(&id)?))) else {
            return Ok(Reply::Refused(Refusal::ScheduleNotFound { schedule: command.schedule.clone() }));
        };
        match command.control() {
            ScheduleControl::Trigger => {
                let firing = self.fire(id, 0)?;
                self.write_schedule(id);
                return Ok(Reply::Triggered { firing });
            }
            ScheduleControl::Pause => schedule.row.paused = true,
            // Resuming what was not paused changes no plan.
            ScheduleControl::Resume if !schedule.row.paused => return Ok(Reply::Done),
            ScheduleControl::Resume => schedule.row.paused = false,
        }
        schedule.row.misfires = 0;
        self.plan(id, self.now_ms());
        Ok(Reply::Done)
    }

    /// Sets a schedule's next due time to the first one after a time, and its timer.
    fn plan(&mut self, id: u64, after_ms: u64) {
        let now_ms = self.now_ms();
        let Some(schedule) = self.machine.schedules.get_mut(&id) else { return };
        let next = if schedule.row.paused { None } else { schedule.next_after(after_ms) };
        schedule.row.next_due_ms = next.unwrap_or(0);
        let at_ms = match next {
            Some(due_ms) => due_ms.saturating_add(jitter_of(id, due_ms, schedule.row.definition.jitter_ms)),
            None if schedule.row.paused => 0,
            // Nothing will happen any more: it is dropped.
            None => now_ms.saturating_add(SCHEDULE_KEPT_MS),
        };
        self.set_timer(id, at_ms);
    }

    /// Sets when a schedule's timer fires, at once if that has passed; 0: never.
    fn set_timer(&mut self, id: u64, at_ms: u64) {
        // Timers stand in the future, so that none is put where the timer service has been.
        let at_ms = if at_ms == 0 { 0 } else { at_ms.max(self.now_ms().saturating_add(1)) };
        let Some(schedule) = self.machine.schedules.get_mut(&id) else { return };
        let before_ms = std::mem::replace(&mut schedule.row.timer_ms, at_ms);
        self.cancel_timer(schedule_timer(id, before_ms));
        if at_ms > 0 {
            self.put_timer(schedule_timer(id, at_ms), bytes::Bytes::new());
        }
        self.write_schedule(id);
    }

    fn write_schedule(&mut self, id: u64) {
        if let Some(schedule) = self.machine.schedules.get(&id) {
            self.store.put(Table::Schedules, &key::id(id), record::encode(&schedule.row));
        }
    }

    /// Fires what is due of a schedule, or drops it if it is long finished.
    pub fn fire_schedule(&mut self, id: u64) -> Result<(), StoreError> {
        let now_ms = self.now_ms();
        let Some(schedule) = self.machine.schedules.get_mut(&id) else { return Ok(()) };
        schedule.row.timer_ms = 0;
        if schedule.row.next_due_ms == 0 {
            if !schedule.row.paused {
                self.drop_schedule(id);
            }
            return Ok(());
        }
        let oldest_ms = now_ms.saturating_sub(SCHEDULE_KEPT_MS);
        schedule.row.history.retain(|firing| firing.fired_ms >= oldest_ms);
        for _ in 0..FIRINGS_STEP_MAX {
            let Some(schedule) = self.machine.schedules.get(&id) else { return Ok(()) };
            let due_ms = schedule.row.next_due_ms;
            let at_ms = due_ms.saturating_add(jitter_of(id, due_ms, schedule.row.definition.jitter_ms));
            if due_ms == 0 || at_ms > now_ms {
                break;
            }
            self.pass_due_time(id, due_ms, now_ms - at_ms)?;
        }
        let due_ms = self.machine.schedules.get(&id).map_or(0, |schedule| schedule.row.next_due_ms);
        // Planned again from just before its due time, it gets its timer.
        self.plan(id, if due_ms == 0 { now_ms } else { due_ms - 1 });
        Ok(())
    }

    /// Fires or skips one due time, and moves on to the next.
    fn pass_due_time(&mut self, id: u64, due_ms: u64, late_ms: u64) -> Result<(), StoreError> {
        let now_ms = self.now_ms();
        let Some(schedule) = self.machine.schedules.get_mut(&id) else { return Ok(()) };
        let (misfire_after_ms, misfires_max) =
            (schedule.row.definition.misfire_after_ms, schedule.row.definition.misfires_max);
        let is_missed = late_ms > misfire_after_ms;
        if is_missed && schedule.row.misfires >= misfires_max {
            schedule.row.skipped += 1;
            schedule.remember(FiringRecord { due_ms, fired_ms: now_ms, skipped: true, ..FiringRecord::default() });
            let after_ms = now_ms.saturating_sub(misfire_after_ms).saturating_sub(1).max(due_ms);
            schedule.row.next_due_ms = schedule.next_after(after_ms).unwrap_or(0);
            return Ok(());
        }
        schedule.row.misfires = if is_missed { schedule.row.misfires + 1 } else { 0 };
        schedule.row.next_due_ms = schedule.next_after(due_ms).unwrap_or(0);
        self.fire(id, due_ms)?;
        Ok(())
    }

    /// Publishes a schedule's message, for a due time or, if that is 0, because it is asked for.
    fn fire(&mut self, id: u64, due_ms: u64) -> Result<FiringRecord, StoreError> {
        let fired_ms = self.now_ms();
        let Some(message) = self.machine.schedules.get(&id).map(|schedule| message_of(&schedule.row, due_ms)) else {
            return Ok(FiringRecord::default());
        };
        let outcome = self.publish_messages(vec![message])?;
        let (sequences, problem) = match outcome.map(|mut results| results.pop()) {
            Ok(Some(PublishResult::Stored { sequence })) => (vec![sequence], String::new()),
            Ok(Some(PublishResult::Routed(copies))) => {
                let stored = copies.iter().filter(|copy| !copy.duplicate);
                (stored.map(|copy| copy.sequence).collect(), String::new())
            }
            Ok(Some(PublishResult::Rejected { queue })) => (Vec::new(), Refusal::QueueFull { queue }.to_string()),
            Ok(Some(PublishResult::Unroutable) | None) => (Vec::new(), "unroutable".to_owned()),
            Err(refusal) => (Vec::new(), refusal.to_string()),
        };
        let firing = FiringRecord { due_ms, fired_ms, sequences, problem, skipped: false };
        if let Some(schedule) = self.machine.schedules.get_mut(&id) {
            schedule.row.fired += 1;
            schedule.remember(firing.clone());
        }
        Ok(firing)
    }
}

fn message_of(row: &ScheduleRecord, due_ms: u64) -> PublishMessage {
    let mut message = row.definition.message.clone();
    message.content.headers.insert(SCHEDULE_HEADER.to_owned(), row.name.clone());
    if due_ms > 0 {
        message.content.headers.insert(DUE_HEADER.to_owned(), due_ms.to_string());
    }
    message
}

fn schedule_timer(id: u64, at_ms: u64) -> Timer {
    Timer { at_ms, kind: TimerKind::Schedule, queue: id, sequence: 0 }
}
