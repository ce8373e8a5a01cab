//! When a schedule is due.
//!
//! A [`Timetable`] is a [`Recurrence`] that was checked and parsed once; asking it for a due time parses nothing,
//! and reads no clock. Every replica computes due times on its own, so they depend on nothing but the definition
//! and the time-zone database that is compiled in.

mod calendar;

use crate::command::{Pattern, Recurrence, ScheduleDefinition};
use crate::limits::{DATES_MAX, INTERVAL_MS_MIN};

use calendar::Calendar;

/// Longest cron expression, in bytes.
const EXPRESSION_BYTES_MAX: usize = 1024;

/// Why a [`Recurrence`] cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecurrenceError {
    /// It says nothing.
    #[error("the recurrence is empty: set one of `cron`, `interval` and `dates`")]
    Empty,
    /// The cron expression is too long.
    #[error("`cron.expression` has {bytes} bytes, the limit is {EXPRESSION_BYTES_MAX}: shorten its lists to ranges")]
    ExpressionLong {
        /// Its length.
        bytes: usize,
    },
    /// The cron expression has too few or too many fields.
    #[error(
        "`cron.expression` has {fields} fields: write five (minute, hour, day of month, month, day of week), or six \
         with the second in front"
    )]
    ExpressionFields {
        /// How many it has.
        fields: usize,
    },
    /// The cron expression does not parse.
    #[error("`cron.expression` is malformed: {reason}")]
    ExpressionMalformed {
        /// What is wrong with it.
        reason: String,
    },
    /// No time matches the cron expression.
    #[error("`cron.expression` never matches: name a day that exists in one of its months")]
    ExpressionNever,
    /// The time zone is unknown.
    #[error("`cron.time_zone` is `{name}`, which is unknown: write an IANA name, such as `Europe/Vienna` or `UTC`")]
    TimeZone {
        /// What it says.
        name: String,
    },
    /// The interval is too short.
    #[error("`interval.every_ms` is {every_ms}: write at least {INTERVAL_MS_MIN}")]
    IntervalShort {
        /// What it says.
        every_ms: u64,
    },
    /// There are no dates.
    #[error("`dates` is empty: write at least one")]
    DatesEmpty,
    /// There are too many dates.
    #[error("`dates` has {count} entries, the limit is {DATES_MAX}: split them among several schedules")]
    DatesMany {
        /// How many there are.
        count: usize,
    },
    /// A date is not later than the one before it.
    #[error("`dates[{index}]` is not later than the one before it: sort them, and write each once")]
    DatesUnsorted {
        /// Its index, counted from 0.
        index: usize,
    },
}

/// A recurrence, checked and parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Cron(Box<Calendar>),
    Interval {
        every_ms: u64,
        /// Due times leave this remainder when divided by the interval.
        phase_ms: u64,
    },
    Dates(Box<[u64]>),
}

impl Timetable {
    /// Checks and parses a recurrence.
    pub fn new(recurrence: &Recurrence) -> Result<Timetable, RecurrenceError> {
        let rule = match &recurrence.pattern {
            None => return Err(RecurrenceError::Empty),
            Some(Pattern::Cron(cron)) => Rule::Cron(Box::new(Calendar::new(cron)?)),
            Some(Pattern::Interval(interval)) => {
                let every_ms = interval.every_ms;
                if every_ms < INTERVAL_MS_MIN {
                    return Err(RecurrenceError::IntervalShort { every_ms });
                }
                Rule::Interval { every_ms, phase_ms: interval.anchor_ms % every_ms }
            }
            Some(Pattern::Dates(dates)) => Rule::Dates(ascending(&dates.at_ms)?.into()),
        };
        Ok(Timetable { rule })
    }

    /// The first due time after `after_ms`, not at it. `None` if there is none any more: the dates are past, or a
    /// cron expression does not match within a hundred years.
    pub fn next_after(&self, after_ms: u64) -> Option<u64> {
        match &self.rule {
            Rule::Cron(calendar) => calendar.next_after(after_ms),
            Rule::Interval { every_ms, phase_ms } => {
                let passed_ms = after_ms % every_ms;
                let left_ms =
                    if *phase_ms > passed_ms { phase_ms - passed_ms } else { every_ms - (passed_ms - phase_ms) };
                after_ms.checked_add(left_ms)
            }
            Rule::Dates(dates) => dates.get(dates.partition_point(|date| *date <= after_ms)).copied(),
        }
    }
}

fn ascending(dates: &[u64]) -> Result<&[u64], RecurrenceError> {
    if dates.is_empty() {
        return Err(RecurrenceError::DatesEmpty);
    }
    if dates.len() > DATES_MAX {
        return Err(RecurrenceError::DatesMany { count: dates.len() });
    }
    match dates.windows(2).position(|pair| pair[0] >= pair[1]) {
        Some(before) => Err(RecurrenceError::DatesUnsorted { index: before + 1 }),
        None => Ok(dates),
    }
}

/// The schedule's first due time after `after_ms`, not at it: not before its start, and before its end.
pub fn next_due(definition: &ScheduleDefinition, timetable: &Timetable, after_ms: u64) -> Option<u64> {
    let due_ms = timetable.next_after(after_ms.max(definition.start_at_ms.saturating_sub(1)))?;
    (definition.end_at_ms == 0 || due_ms < definition.end_at_ms).then_some(due_ms)
}

/// How much later than `due_ms` a schedule fires: from 0 to `jitter_ms`, the same each time it is asked for.
pub fn jitter_of(schedule: u64, due_ms: u64, jitter_ms: u64) -> u64 {
    let hash = mix(mix(schedule) ^ due_ms);
    match jitter_ms.checked_add(1) {
        Some(choices) => hash % choices,
        None => hash,
    }
}

/// One step of splitmix64: neighbouring numbers come out unrelated.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::command::{Cron, Dates, Interval};

    fn interval(every_ms: u64, anchor_ms: u64) -> Result<Timetable, RecurrenceError> {
        Timetable::new(&Recurrence { pattern: Some(Pattern::Interval(Interval { every_ms, anchor_ms })) })
    }

    fn dates(at_ms: &[u64]) -> Result<Timetable, RecurrenceError> {
        Timetable::new(&Recurrence { pattern: Some(Pattern::Dates(Dates { at_ms: at_ms.to_vec() })) })
    }

    fn cron(expression: &str, time_zone: &str) -> Result<Timetable, RecurrenceError> {
        let cron = Cron { expression: expression.to_owned(), time_zone: time_zone.to_owned() };
        Timetable::new(&Recurrence { pattern: Some(Pattern::Cron(cron)) })
    }

    #[test]
    fn what_cannot_be_followed_is_refused_with_the_field_and_the_remedy() {
        let many: Vec<u64> = (0..=DATES_MAX as u64).collect();
        let long = format!("{}1 * * * *", "0,".repeat(600));
        let refused = [
            (Timetable::new(&Recurrence { pattern: None }), "the recurrence is empty"),
            (interval(INTERVAL_MS_MIN - 1, 0), "`interval.every_ms` is 99: write at least 100"),
            (dates(&[]), "`dates` is empty"),
            (dates(&many), "`dates` has 1001 entries, the limit is 1000"),
            (dates(&[1, 3, 2]), "`dates[2]` is not later"),
            (dates(&[1, 1]), "`dates[1]` is not later"),
            (cron("* * * *", "UTC"), "`cron.expression` has 4 fields: write five"),
            (cron("0 0 * * * * 2030", "UTC"), "`cron.expression` has 7 fields: write five"),
            (cron("@daily", "UTC"), "`cron.expression` has 1 fields: write five"),
            (cron("", "UTC"), "`cron.expression` has 0 fields: write five"),
            (cron(&long, "UTC"), "`cron.expression` has 1209 bytes, the limit is 1024"),
            (cron("60 * * * *", "UTC"), "`cron.expression` is malformed"),
            (cron("0 0 * * +1", "UTC"), "`cron.expression` is malformed"),
            (cron("0 0 30 2 *", "UTC"), "`cron.expression` never matches"),
            (cron("0 0 31 2,4,6,9,11 *", "UTC"), "`cron.expression` never matches"),
            (cron("0 , * * *", "UTC"), "`cron.expression` never matches"),
            (cron("0 0 * * *", "Vienna"), "`cron.time_zone` is `Vienna`"),
            (cron("0 0 * * *", ""), "`cron.time_zone` is ``"),
        ];
        for (outcome, message) in refused {
            let error = outcome.unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn an_interval_is_due_before_and_after_its_anchor() {
        let timetable = interval(1000, 5300).unwrap();
        let due: Vec<_> = [0, 299, 300, 301, 5299, 5300].map(|after| timetable.next_after(after).unwrap()).into();
        assert_eq!(due, [300, 300, 1300, 1300, 5300, 6300]);
        assert_eq!(timetable.next_after(u64::MAX), None);
        assert_eq!(interval(u64::MAX, u64::MAX - 1).unwrap().next_after(7), Some(u64::MAX - 1));
    }

    #[test]
    fn dates_are_due_one_after_the_other() {
        let timetable = dates(&[10, 20]).unwrap();
        let due = [0, 9, 10, 19, 20].map(|after| timetable.next_after(after));
        assert_eq!(due, [Some(10), Some(10), Some(20), Some(20), None]);
    }

    #[test]
    fn the_start_is_inclusive_and_the_end_exclusive() {
        let timetable = dates(&[10, 20, 30]).unwrap();
        let definition = ScheduleDefinition { start_at_ms: 20, end_at_ms: 30, ..ScheduleDefinition::default() };
        assert_eq!([0, 19, 20].map(|after| next_due(&definition, &timetable, after)), [Some(20), Some(20), None]);
        let open = ScheduleDefinition::default();
        assert_eq!([0, 20, 30].map(|after| next_due(&open, &timetable, after)), [Some(10), Some(30), None]);
    }

    #[test]
    fn the_jitter_is_spread_over_its_whole_range() {
        assert_eq!(jitter_of(1, 2, 0), 0);
        let drawn: BTreeSet<u64> = (0..1000).map(|due| jitter_of(7, due * 60_000, 9)).collect();
        assert_eq!(drawn, (0..=9).collect());
        // Stored due times depend on these: they never change.
        assert_eq!((jitter_of(1, 1_700_000_000_000, 60_000), jitter_of(0, 0, u64::MAX)), (43971, 12035550249420947055));
    }

    proptest! {
        #[test]
        fn an_interval_gives_the_first_due_time_after(every in 100u64..5000, anchor: u64, after in 0u64..1 << 60) {
            let due = interval(every, anchor).unwrap().next_after(after).unwrap();
            prop_assert!(due > after && due - after <= every);
            prop_assert_eq!(due % every, anchor % every);
        }
    }
}
