//! Commands about schedules.

use super::PublishMessage;

/// Makes a recurring publication, or changes it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeclareSchedule {
    /// The schedule's name.
    #[prost(string, tag = "1")]
    pub schedule: String,
    /// With the defaults filled in.
    #[prost(message, required, tag = "2")]
    pub definition: ScheduleDefinition,
    /// If it exists with another definition: change it, instead of refusing.
    #[prost(bool, tag = "3")]
    pub replace: bool,
}

/// A recurring publication.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScheduleDefinition {
    /// When.
    #[prost(message, required, tag = "1")]
    pub recurrence: Recurrence,
    /// No due time before this; 0: not set.
    #[prost(uint64, tag = "2")]
    pub start_at_ms: u64,
    /// No due time at or after this; 0: not set.
    #[prost(uint64, tag = "3")]
    pub end_at_ms: u64,
    /// Each firing comes up to this much after its due time.
    #[prost(uint64, tag = "4")]
    pub jitter_ms: u64,
    /// A due time handled later than this after it has been missed.
    #[prost(uint64, tag = "5")]
    pub misfire_after_ms: u64,
    /// How many due times missed in a row fire nevertheless, the oldest first: 0 skips them all.
    #[prost(uint32, tag = "6")]
    pub misfires_max: u32,
    /// What to publish; a delay or absolute time in it is counted from the firing.
    #[prost(message, required, tag = "7")]
    pub message: PublishMessage,
}

/// When a schedule is due.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Recurrence {
    /// Absent only in what a newer node wrote.
    #[prost(oneof = "Pattern", tags = "1, 2, 3")]
    pub pattern: Option<Pattern>,
}

/// See [`Recurrence`].
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
#[allow(missing_docs, reason = "documented at the structs")]
pub enum Pattern {
    #[prost(message, tag = "1")]
    Cron(Cron),
    #[prost(message, tag = "2")]
    Interval(Interval),
    #[prost(message, tag = "3")]
    Dates(Dates),
}

/// Due when the clock on the wall of a time zone says so.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Cron {
    /// Five fields, or six with seconds in front.
    #[prost(string, tag = "1")]
    pub expression: String,
    /// IANA name, such as `Europe/Vienna`.
    #[prost(string, tag = "2")]
    pub time_zone: String,
}

/// Due at regular intervals.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Interval {
    /// The interval.
    #[prost(uint64, tag = "1")]
    pub every_ms: u64,
    /// Due at this time and at whole intervals before and after it.
    #[prost(uint64, tag = "2")]
    pub anchor_ms: u64,
}

/// Due at certain times.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Dates {
    /// Ascending.
    #[prost(uint64, repeated, tag = "1")]
    pub at_ms: Vec<u64>,
}

/// Removes a schedule.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteSchedule {
    /// The schedule's name.
    #[prost(string, tag = "1")]
    pub schedule: String,
}

/// Pauses, resumes or triggers a schedule.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControlSchedule {
    /// The schedule's name.
    #[prost(string, tag = "1")]
    pub schedule: String,
    /// What to do.
    #[prost(enumeration = "ScheduleControl", tag = "2")]
    pub control: i32,
}

/// See [`ControlSchedule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ScheduleControl {
    /// No firing until it is resumed.
    Pause = 0,
    /// Due times from now on fire again; those of the pause do not.
    Resume = 1,
    /// Publish now, besides the due times, paused or not.
    Trigger = 2,
}
