//! The reference machine's rules for schedules, but for cron patterns, which have tests of their own.

use dwell_machine::{
    ControlSchedule, DeclareSchedule, DeleteSchedule, FiringRecord, Pattern, PublishResult, Refusal, Reply,
    ScheduleControl, ScheduleDefinition, limits::FIRINGS_MAX,
};

use crate::reference::{Reference, Schedule};

impl Reference {
    pub fn declare_schedule(&mut self, declare: &DeclareSchedule) -> Result<Reply, Refusal> {
        let next_due_ms = next_after(&declare.definition, self.now_ms);
        let (name, finished_at_ms) = (declare.schedule.clone(), self.now_ms);
        let definition = declare.definition.clone();
        if let Some(schedule) = self.schedules.get_mut(&name) {
            if schedule.definition == definition {
                return Ok(Reply::ScheduleDeclared { created: false });
            }
            if !declare.replace {
                return Err(Refusal::ScheduleDiffers { schedule: name });
            }
            let next_due_ms = if schedule.paused { None } else { next_due_ms };
            let before = schedule.clone();
            *schedule = Schedule { definition, next_due_ms, finished_at_ms, misfires: 0, ..before };
            return Ok(Reply::ScheduleDeclared { created: false });
        }
        self.last_schedule += 1;
        let schedule = Schedule {
            id: self.last_schedule,
            definition,
            paused: false,
            next_due_ms,
            finished_at_ms,
            misfires: 0,
            fired: 0,
            skipped: 0,
            history: Vec::new(),
        };
        self.schedules.insert(name, schedule);
        Ok(Reply::ScheduleDeclared { created: true })
    }

    pub fn delete_schedule(&mut self, delete: &DeleteSchedule) -> Result<Reply, Refusal> {
        let schedule = delete.schedule.clone();
        let deleted = self.schedules.remove(&schedule);
        deleted.map(|_| Reply::Done).ok_or(Refusal::ScheduleNotFound { schedule })
    }

    pub fn control_schedule(&mut self, control: &ControlSchedule) -> Result<Reply, Refusal> {
        let (now_ms, name) = (self.now_ms, control.schedule.clone());
        let Some(schedule) = self.schedules.get_mut(&name) else {
            return Err(Refusal::ScheduleNotFound { schedule: name });
        };
        match control.control() {
            ScheduleControl::Pause => {
                schedule.paused = true;
                schedule.next_due_ms = None;
            }
            ScheduleControl::Resume if !schedule.paused => {}
            ScheduleControl::Resume => {
                schedule.paused = false;
                schedule.next_due_ms = next_after(&schedule.definition, now_ms);
                schedule.finished_at_ms = now_ms;
                schedule.misfires = 0;
            }
            ScheduleControl::Trigger => return Ok(Reply::Triggered { firing: self.fire(&name, 0) }),
        }
        Ok(Reply::Done)
    }

    /// Fires what is due of a schedule, or drops it.
    pub fn release_schedule(&mut self, id: u64) {
        let now_ms = self.now_ms;
        let named = self.schedules.iter().find(|(_, schedule)| schedule.id == id);
        let name = named.map(|(name, _)| name.clone()).expect("its timer goes with it");
        if self.schedules[&name].next_due_ms.is_none() {
            self.schedules.remove(&name);
            return;
        }
        while let Some(due_ms) = self.schedules[&name].next_due_ms.filter(|due_ms| *due_ms <= now_ms) {
            let Schedule { definition, misfires, .. } = self.schedules[&name].clone();
            let is_missed = now_ms - due_ms > definition.misfire_after_ms;
            let mut after_ms = due_ms;
            if is_missed && misfires >= definition.misfires_max {
                after_ms = due_ms.max(now_ms - definition.misfire_after_ms - 1);
                self.remember(&name, FiringRecord { due_ms, fired_ms: now_ms, skipped: true, ..Default::default() });
            } else {
                self.fire(&name, due_ms);
            }
            let schedule = self.schedules.get_mut(&name).expect("a firing does not delete schedules");
            schedule.misfires = match is_missed {
                true if misfires < definition.misfires_max => misfires + 1,
                true => misfires,
                false => 0,
            };
            schedule.next_due_ms = next_after(&definition, after_ms);
            schedule.finished_at_ms = now_ms;
        }
    }

    /// Publishes the schedule's message; a due time of 0: because it was triggered.
    fn fire(&mut self, name: &str, due_ms: u64) -> FiringRecord {
        let mut message = self.schedules[name].definition.message.clone();
        message.content.headers.insert("dwell-schedule".into(), name.into());
        if due_ms != 0 {
            message.content.headers.insert("dwell-schedule-due-ms".into(), due_ms.to_string());
        }
        let (sequences, problem) = match self.publish_own(&message) {
            Ok(PublishResult::Stored { sequence }) => (vec![sequence], String::new()),
            Ok(PublishResult::Routed(copies)) => {
                let stored = copies.iter().filter(|copy| !copy.duplicate);
                (stored.map(|copy| copy.sequence).collect(), String::new())
            }
            Ok(PublishResult::Unroutable) => (Vec::new(), "unroutable".into()),
            Ok(PublishResult::Rejected { queue }) => (Vec::new(), format!("queue `{queue}` is full")),
            Err(refusal) => (Vec::new(), refusal.to_string()),
        };
        let firing = FiringRecord { due_ms, fired_ms: self.now_ms, sequences, problem, skipped: false };
        self.remember(name, firing.clone());
        firing
    }

    fn remember(&mut self, name: &str, firing: FiringRecord) {
        let schedule = self.schedules.get_mut(name).expect("it is there when it fires");
        schedule.fired += u64::from(!firing.skipped);
        schedule.skipped += u64::from(firing.skipped);
        schedule.history.push(firing);
        schedule.history.drain(..schedule.history.len().saturating_sub(FIRINGS_MAX));
    }
}

/// The first due time after another.
pub fn next_after(definition: &ScheduleDefinition, after_ms: u64) -> Option<u64> {
    assert_eq!(definition.jitter_ms, 0, "chance is the machine's own");
    let from_ms = (after_ms + 1).max(definition.start_at_ms);
    let next_ms = match definition.recurrence.pattern.as_ref()? {
        Pattern::Interval(interval) => {
            let missing_ms = match interval.anchor_ms.checked_sub(from_ms) {
                Some(ahead_ms) => ahead_ms % interval.every_ms,
                None => (interval.every_ms - (from_ms - interval.anchor_ms) % interval.every_ms) % interval.every_ms,
            };
            from_ms + missing_ms
        }
        Pattern::Dates(dates) => dates.at_ms.iter().copied().filter(|at_ms| *at_ms >= from_ms).min()?,
        Pattern::Cron(_) => panic!("cron patterns are not generated"),
    };
    (definition.end_at_ms == 0 || next_ms < definition.end_at_ms).then_some(next_ms)
}
