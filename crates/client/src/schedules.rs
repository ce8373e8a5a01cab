//! Recurring publications.

use std::time::{Duration, SystemTime};

use dwell_proto::v1;
use dwell_proto::v1::schedule_definition::Recurrence;
use dwell_proto::v1::schedules_client::SchedulesClient;

use crate::call::Policy;
use crate::client::{Client, PAGE};
use crate::connections::{Channel, MESSAGE_BYTES_MAX};
use crate::error::Error;
use crate::message::{PublishMessage, milliseconds, since_epoch_ms};

/// What to publish, and when. Limits are the server's, and named in its refusal.
///
/// ```
/// # use dwell_client::{PublishMessage, ScheduleDefinition};
/// let nightly = ScheduleDefinition::cron("30 2 * * *")
///     .time_zone("Europe/Vienna")
///     .message(PublishMessage::new("jobs", "clean up"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleDefinition(v1::ScheduleDefinition);

impl ScheduleDefinition {
    /// Due when the clock on the wall says so: minute, hour, day of month, month, day of week; or six fields, with
    /// the second in front. In UTC, unless [`ScheduleDefinition::time_zone`] is given.
    pub fn cron(expression: impl Into<String>) -> ScheduleDefinition {
        let cron = v1::Cron { expression: expression.into(), time_zone: String::new() };
        ScheduleDefinition::new(Recurrence::Cron(cron))
    }

    /// Due at regular intervals: 100 ms to 10 years, counted from [`ScheduleDefinition::anchor_ms`], or else from the
    /// start, or else from the declaration.
    pub fn every(interval: Duration) -> ScheduleDefinition {
        let interval = v1::Interval { every_ms: milliseconds(interval), anchor_ms: None };
        ScheduleDefinition::new(Recurrence::Interval(interval))
    }

    /// Due at these times, in milliseconds since the Unix epoch. 1 to 1000.
    pub fn dates_ms(dates: impl IntoIterator<Item = i64>) -> ScheduleDefinition {
        let mut at_ms: Vec<i64> = dates.into_iter().collect();
        at_ms.sort_unstable();
        ScheduleDefinition::new(Recurrence::Dates(v1::Dates { at_ms }))
    }

    /// The zone of a cron schedule's clock, such as `Europe/Vienna`. Others ignore it.
    pub fn time_zone(mut self, time_zone: impl Into<String>) -> ScheduleDefinition {
        if let Some(Recurrence::Cron(cron)) = &mut self.0.recurrence {
            cron.time_zone = time_zone.into();
        }
        self
    }

    /// A time at which an interval schedule is due, in milliseconds since the Unix epoch. Others ignore it.
    pub fn anchor_ms(mut self, at_ms: i64) -> ScheduleDefinition {
        if let Some(Recurrence::Interval(interval)) = &mut self.0.recurrence {
            interval.anchor_ms = Some(at_ms);
        }
        self
    }

    /// No due time before this.
    pub fn start_at(self, at: SystemTime) -> ScheduleDefinition {
        self.start_at_ms(since_epoch_ms(at))
    }

    /// The same in milliseconds since the Unix epoch.
    pub fn start_at_ms(mut self, at_ms: i64) -> ScheduleDefinition {
        self.0.start_at_ms = Some(at_ms);
        self
    }

    /// No due time at or after this.
    pub fn end_at(self, at: SystemTime) -> ScheduleDefinition {
        self.end_at_ms(since_epoch_ms(at))
    }

    /// The same in milliseconds since the Unix epoch.
    pub fn end_at_ms(mut self, at_ms: i64) -> ScheduleDefinition {
        self.0.end_at_ms = Some(at_ms);
        self
    }

    /// Each firing comes up to this much after its due time, always the same for the same due time. At most 24 h.
    pub fn jitter(mut self, jitter: Duration) -> ScheduleDefinition {
        self.0.jitter_ms = milliseconds(jitter);
        self
    }

    /// Due times that were missed are skipped.
    pub fn skip_missed(mut self) -> ScheduleDefinition {
        self.0.misfire = v1::Misfire::Skip.into();
        self
    }

    /// Of due times that were missed one after the other the first one fires: the default.
    pub fn fire_missed_once(mut self) -> ScheduleDefinition {
        self.0.misfire = v1::Misfire::Once.into();
        self
    }

    /// Of due times that were missed one after the other so many fire, the oldest ones. 1 to 1000.
    pub fn fire_all_missed(mut self, most: u32) -> ScheduleDefinition {
        self.0.misfire = v1::Misfire::All.into();
        self.0.misfires_max = most;
        self
    }

    /// A due time handled later than this after it was to fire is missed. At most 24 h. Default: 60 s.
    pub fn misfire_after(mut self, after: Duration) -> ScheduleDefinition {
        self.0.misfire_after_ms = milliseconds(after);
        self
    }

    /// What to publish. Its delay and TTL count from the firing; it gets the headers `dwell-schedule` and
    /// `dwell-schedule-due-ms`. Only a preview goes without.
    pub fn message(mut self, message: PublishMessage) -> ScheduleDefinition {
        self.0.message = Some(message.into_proto());
        self
    }

    fn new(recurrence: Recurrence) -> ScheduleDefinition {
        ScheduleDefinition(v1::ScheduleDefinition { recurrence: Some(recurrence), ..Default::default() })
    }
}

/// Schedules.
impl Client {
    /// Makes a schedule. False if it existed with this definition. Errors: [`Error::AlreadyExists`] if it exists
    /// with another one; [`Error::InvalidArgument`].
    pub async fn declare_schedule(
        &self,
        schedule: impl Into<String>,
        definition: ScheduleDefinition,
    ) -> Result<bool, Error> {
        self.put_schedule(schedule.into(), definition, false).await
    }

    /// Makes a schedule, or gives it another definition, which holds from now on. False if it existed.
    pub async fn replace_schedule(
        &self,
        schedule: impl Into<String>,
        definition: ScheduleDefinition,
    ) -> Result<bool, Error> {
        self.put_schedule(schedule.into(), definition, true).await
    }

    async fn put_schedule(
        &self,
        schedule: String,
        definition: ScheduleDefinition,
        replace: bool,
    ) -> Result<bool, Error> {
        let definition = Some(definition.0);
        let message = v1::DeclareScheduleRequest { namespace: String::new(), schedule, definition, replace };
        let outcome = self.core.call(Policy::DECLARE, |channel| {
            let request = message.clone();
            async move { schedules(channel).declare_schedule(request).await }
        });
        Ok(outcome.await.result?.created)
    }

    /// Deletes a schedule. Errors: [`Error::NotFound`]; [`Error::Unknown`] if an answer was lost and the schedule is
    /// gone now.
    pub async fn delete_schedule(&self, schedule: impl Into<String>) -> Result<(), Error> {
        let message = v1::DeleteScheduleRequest { namespace: String::new(), schedule: schedule.into() };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { schedules(channel).delete_schedule(request).await }
        });
        outcome.await.deleted().map(drop)
    }

    /// Stops a schedule from firing until it is resumed. Errors: [`Error::NotFound`].
    pub async fn pause_schedule(&self, schedule: impl Into<String>) -> Result<(), Error> {
        let message = v1::PauseScheduleRequest { namespace: String::new(), schedule: schedule.into() };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { schedules(channel).pause_schedule(request).await }
        });
        outcome.await.result.map(drop)
    }

    /// Lets a schedule fire again, from the next due time on. Errors: [`Error::NotFound`].
    pub async fn resume_schedule(&self, schedule: impl Into<String>) -> Result<(), Error> {
        let message = v1::ResumeScheduleRequest { namespace: String::new(), schedule: schedule.into() };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { schedules(channel).resume_schedule(request).await }
        });
        outcome.await.result.map(drop)
    }

    /// Publishes the schedule's message now, besides its due times, paused or not, and says what became of it. Errors:
    /// [`Error::NotFound`]; [`Error::Unknown`] if the answer was lost: to repeat the call might publish it twice,
    /// which is left to the caller.
    pub async fn trigger_schedule(&self, schedule: impl Into<String>) -> Result<v1::Firing, Error> {
        let message = v1::TriggerScheduleRequest { namespace: String::new(), schedule: schedule.into() };
        let outcome = self.core.call(Policy::ONCE, |channel| {
            let request = message.clone();
            async move { schedules(channel).trigger_schedule(request).await }
        });
        Ok(outcome.await.result?.firing.unwrap_or_default())
    }

    /// One schedule with its last firings, the newest last, and its next due times, as many as asked for (at most
    /// 1000). Errors: [`Error::NotFound`].
    pub async fn describe_schedule(
        &self,
        schedule: impl Into<String>,
        next_max: u32,
    ) -> Result<v1::DescribeScheduleResponse, Error> {
        let message = v1::DescribeScheduleRequest { namespace: String::new(), schedule: schedule.into(), next_max };
        let outcome = self.core.call(Policy::READ, |channel| {
            let request = self.read_request(message.clone());
            async move { schedules(channel).describe_schedule(request).await }
        });
        outcome.await.result
    }

    /// All schedules whose names begin with `prefix`, by name.
    pub async fn list_schedules(&self, prefix: impl Into<String>) -> Result<Vec<v1::Schedule>, Error> {
        let mut message = v1::ListSchedulesRequest { prefix: prefix.into(), page_size: PAGE, ..Default::default() };
        let mut found = Vec::new();
        loop {
            let outcome = self.core.call(Policy::READ, |channel| {
                let request = self.read_request(message.clone());
                async move { schedules(channel).list_schedules(request).await }
            });
            let page = outcome.await.result?;
            found.extend(page.schedules);
            if page.next_page_token.is_empty() {
                return Ok(found);
            }
            message.page_token = page.next_page_token;
        }
    }

    /// The next due times of a definition that need not be declared, in milliseconds since the Unix epoch: 1 to 1000
    /// of them. Errors: [`Error::InvalidArgument`].
    pub async fn preview_schedule(&self, definition: ScheduleDefinition, next_max: u32) -> Result<Vec<i64>, Error> {
        let message = v1::PreviewScheduleRequest { definition: Some(definition.0), next_max };
        let outcome = self.core.call(Policy::READ, |channel| {
            let request = self.read_request(message.clone());
            async move { schedules(channel).preview_schedule(request).await }
        });
        Ok(outcome.await.result?.next_due_ms)
    }
}

fn schedules(channel: Channel) -> SchedulesClient<Channel> {
    SchedulesClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}
