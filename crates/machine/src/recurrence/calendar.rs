//! Cron expressions, on the wall clock of a time zone.
//!
//! An expression has five fields, minute, hour, day of month, month and day of week, or six with the second in
//! front. A field is `*` or a list of numbers, ranges (`9-17`) and steps (`*/5`, `10-50/20`); months and days of
//! week have English names (`JAN`, `MON`), and Sunday is 0 or 7. Beyond that, `L`, `15W` and `LW` are days of
//! month (the last; the working day nearest to the 15th; the last working day), `5#2` and `5L` days of week (the
//! second and the last Friday), and `?` stands for `*` in both.
//!
//! Day of month and day of week follow Vixie's cron: if both are restricted, a day that matches either of them
//! matches. If one begins with `*`, a day has to match both: for `*` alone this is what the other says, and
//! `0 0 */2 * MON` means Mondays of uneven date.
//!
//! # When the clock is changed
//!
//! If the hour field has a `*` in it (`*/15 * * * *`, `0 */2 * * *`), the expression goes on in real time: every
//! instant matches whose wall time does. It fires in both of two repeated hours, and not for the missing one.
//!
//! Otherwise the expression names times of day (`30 2 * * *`, `0 9-17 * * *`, `*/15 2 * * *`), and each of them
//! comes once. One that the clock jumps over fires at the first instant after the gap; several in one gap fire once
//! there. One that occurs twice fires the first time.
//!
//! The time-zone database knows the changes of the clock up to 2099. After that the last one stays.

use chrono::{
    DateTime, Datelike, LocalResult, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone, Timelike,
};
use chrono_tz::{GapInfo, Tz};
use croner::parser::{CronParser, Seconds, Year};
use croner::{CronComponent, CronPattern, Weekday};

use super::{EXPRESSION_BYTES_MAX, RecurrenceError};
use crate::command::Cron;

/// How far ahead a match is looked for. The rarest, such as a fifth Monday in February, come within 40 years.
const YEARS_MAX: i32 = 100;
/// No due time is looked for after this year, lest a date overflows.
const YEAR_MAX: i32 = 9999;

/// A cron expression as the set of its times, and the zone on whose wall they show. Bit `n` of a set stands for `n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Calendar {
    zone: Tz,
    seconds: u64,
    minutes: u64,
    hours: u64,
    months: u64,
    /// The days of a month, by its length from 28 and by the weekday of its first, from Sunday.
    days: [[u64; 7]; 4],
    /// The hour field has a `*` in it.
    any_hour: bool,
}

impl Calendar {
    pub fn new(cron: &Cron) -> Result<Calendar, RecurrenceError> {
        let pattern = parse(&cron.expression)?;
        let zone = cron.time_zone.parse().map_err(|_| RecurrenceError::TimeZone { name: cron.time_zone.clone() })?;
        let calendar = Calendar {
            zone,
            seconds: bits(&pattern.seconds),
            minutes: bits(&pattern.minutes),
            hours: bits(&pattern.hours),
            months: bits(&pattern.months),
            days: days(&pattern)?,
            any_hour: pattern.hours.from_wildcard,
        };
        // The hundred years have every kind of year, leap or not and beginning on each weekday: what does not match
        // in them never does.
        calendar.first_wall_at(DateTime::UNIX_EPOCH.naive_utc()).ok_or(RecurrenceError::ExpressionNever)?;
        Ok(calendar)
    }

    /// The first due time after `after_ms`.
    pub fn next_after(&self, after_ms: u64) -> Option<u64> {
        // Due times are whole seconds, so that one after this second is one after this millisecond.
        let after = DateTime::from_timestamp(i64::try_from(after_ms / 1000).ok()?, 0)?;
        if after.year() > YEAR_MAX {
            return None;
        }
        let due = self.next_instant(after.with_timezone(&self.zone))?;
        u64::try_from(due.timestamp()).ok()?.checked_mul(1000)
    }

    fn next_instant(&self, after: DateTime<Tz>) -> Option<DateTime<Tz>> {
        let second = TimeDelta::seconds(1);
        let mut from = after.naive_local() + second;
        if let LocalResult::Ambiguous(first, again) = self.zone.from_local_datetime(&after.naive_local()) {
            let change = change_between(first, again);
            let end_of_first = (change - second).naive_local() + second;
            if !self.any_hour && after != first {
                // These wall times had their turn.
                from = end_of_first;
            } else if self.any_hour && after == first {
                let wall = self.first_wall_at(from)?;
                if wall < end_of_first {
                    return Some(after + (wall - after.naive_local()));
                }
                from = change.naive_local();
            }
        }
        loop {
            let wall = self.first_wall_at(from)?;
            match self.zone.from_local_datetime(&wall) {
                LocalResult::Single(instant) => return Some(instant),
                LocalResult::Ambiguous(first, again) => return Some(if first > after { first } else { again }),
                LocalResult::None => match GapInfo::new(&wall, &self.zone).and_then(|gap| gap.end) {
                    Some(end) if self.any_hour => from = end.naive_local(),
                    Some(end) => return Some(end),
                    None => from = wall + second,
                },
            }
        }
    }

    /// The first wall time at or after `from` that matches.
    fn first_wall_at(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        let tomorrow = from.date().succ_opt()?;
        if self.days_of_month(from.date()) & (1 << from.day()) != 0
            && let Some(seconds) = self.first_time_at(from.num_seconds_from_midnight())
        {
            return Some(from.date().and_time(NaiveTime::MIN) + TimeDelta::seconds(seconds.into()));
        }
        let midnight = self.first_time_at(0)?;
        let mut date = tomorrow;
        while date.year() <= from.year() + YEARS_MAX {
            if let Some(day) = first_bit_from(self.days_of_month(date), date.day()) {
                let day = date.with_day(day)?;
                return Some(day.and_time(NaiveTime::MIN) + TimeDelta::seconds(midnight.into()));
            }
            date = date.with_day(1)?.checked_add_months(Months::new(1))?;
        }
        None
    }

    /// The days that match in the month of `date`.
    fn days_of_month(&self, date: NaiveDate) -> u64 {
        if self.months & (1 << date.month()) == 0 {
            return 0;
        }
        let first_weekday = (date.weekday().num_days_from_sunday() + 35 - date.day0()) % 7;
        self.days[usize::from(date.num_days_in_month()) - 28][first_weekday as usize]
    }

    /// The first time of day at or after `from` that matches, in seconds since midnight.
    fn first_time_at(&self, from: u32) -> Option<u32> {
        let (hour, minute, second) = (from / 3600, from / 60 % 60, from % 60);
        let first_second = first_bit_from(self.seconds, 0)?;
        if self.hours & (1 << hour) != 0 {
            if self.minutes & (1 << minute) != 0
                && let Some(second) = first_bit_from(self.seconds, second)
            {
                return Some(hour * 3600 + minute * 60 + second);
            }
            if let Some(minute) = first_bit_from(self.minutes, minute + 1) {
                return Some(hour * 3600 + minute * 60 + first_second);
            }
        }
        let hour = first_bit_from(self.hours, hour + 1)?;
        Some(hour * 3600 + first_bit_from(self.minutes, 0)? * 60 + first_second)
    }
}

fn parse(expression: &str) -> Result<CronPattern, RecurrenceError> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(RecurrenceError::ExpressionLong { bytes: expression.len() });
    }
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let ([_, _, day_of_month, _, day_of_week] | [_, _, _, day_of_month, _, day_of_week]) = fields[..] else {
        return Err(RecurrenceError::ExpressionFields { fields: fields.len() });
    };
    if day_of_week.starts_with('+') {
        let reason = format!("day of week is `{day_of_week}`: leave out the `+`");
        return Err(RecurrenceError::ExpressionMalformed { reason });
    }
    // Without this the parser would take `*/2` for a restriction like any other, unlike Vixie's cron.
    let both = [day_of_month, day_of_week].iter().any(|field| field.starts_with(['*', '?']));
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).dom_and_dow(both).build();
    Ok(parser.parse(expression).map_err(malformed)?.pattern)
}

fn malformed(error: croner::errors::CronError) -> RecurrenceError {
    RecurrenceError::ExpressionMalformed { reason: error.to_string() }
}

fn bits(field: &CronComponent) -> u64 {
    field.values().into_iter().fold(0, |bits, value| bits | 1 << value)
}

fn days(pattern: &CronPattern) -> Result<[[u64; 7]; 4], RecurrenceError> {
    let mut days = [[0; 7]; 4];
    // One month of each length.
    for (row, (year, month, length)) in [(2001, 2, 28), (2000, 2, 29), (2000, 4, 30), (2000, 1, 31)].iter().enumerate()
    {
        for first_weekday in 0..7 {
            for day in 1..=*length {
                let weekday = Weekday::from_days_from_sunday(first_weekday + day - 1);
                if pattern.day_match(*year, *month, day, weekday).map_err(malformed)? {
                    days[row][first_weekday as usize] |= 1 << day;
                }
            }
        }
    }
    Ok(days)
}

/// The lowest of the set's bits that is not below `from`.
fn first_bit_from(bits: u64, from: u32) -> Option<u32> {
    let rest = bits >> from << from;
    (rest != 0).then(|| rest.trailing_zeros())
}

/// The first second with another offset than `first` has, up to `again`, which has one.
fn change_between(first: DateTime<Tz>, again: DateTime<Tz>) -> DateTime<Tz> {
    let offset = first.offset().fix();
    let (mut before, mut change) = (first, again);
    loop {
        let middle = before + TimeDelta::seconds((change - before).num_seconds() / 2);
        if middle == before {
            return change;
        }
        if middle.offset().fix() == offset {
            before = middle;
        } else {
            change = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn calendar(expression: &str, zone: &str) -> Calendar {
        Calendar::new(&Cron { expression: expression.to_owned(), time_zone: zone.to_owned() }).unwrap()
    }

    fn instant(text: &str) -> u64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis() as u64
    }

    /// The due times after `from` and before `to`, with the wall's day, time and offset.
    fn due(expression: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
        let calendar = calendar(expression, zone);
        let mut found = Vec::new();
        let mut after = instant(from);
        while let Some(due) = calendar.next_after(after).filter(|due| *due < instant(to)) {
            assert!(due > after, "{due} does not come after {after}");
            let wall = DateTime::from_timestamp_millis(due as i64).unwrap().with_timezone(&calendar.zone);
            let text = format!("{:02} {} {}", wall.day(), wall.time(), wall.offset().fix());
            found.push(text.replace(":00 ", " "));
            after = due;
        }
        found
    }

    fn vienna_spring(expression: &str) -> Vec<String> {
        due(expression, "Europe/Vienna", "2025-03-29T23:30:00Z", "2025-03-30T03:30:00Z")
    }

    fn vienna_autumn(expression: &str) -> Vec<String> {
        due(expression, "Europe/Vienna", "2025-10-25T22:30:00Z", "2025-10-26T03:30:00Z")
    }

    #[test]
    fn a_time_of_day_that_the_clock_jumps_over_fires_once_after_the_gap() {
        assert_eq!(vienna_spring("30 2 * * *"), ["30 03:00 +02:00"]);
        assert_eq!(vienna_spring("*/15 2 * * *"), ["30 03:00 +02:00"]);
        assert_eq!(vienna_spring("0,30 2-3 * * *"), ["30 03:00 +02:00", "30 03:30 +02:00"]);
        assert_eq!(vienna_spring("* * 2 * * *"), ["30 03:00 +02:00"]);
        let york = due("30 2 * * *", "America/New_York", "2025-03-08T12:00:00Z", "2025-03-10T12:00:00Z");
        assert_eq!(york, ["09 03:00 -04:00", "10 02:30 -04:00"]);
        let howe = due("15 2 * * *", "Australia/Lord_Howe", "2025-10-04T00:00:00Z", "2025-10-06T00:00:00Z");
        assert_eq!(howe, ["05 02:30 +11:00", "06 02:15 +11:00"]);
        // The gap of Havana begins at midnight, that of Apia was a whole day.
        let havana = due("15 0 * * *", "America/Havana", "2025-03-08T12:00:00Z", "2025-03-10T12:00:00Z");
        assert_eq!(havana, ["09 01:00 -04:00", "10 00:15 -04:00"]);
        let apia = due("0 12 30 * *", "Pacific/Apia", "2011-12-01T00:00:00Z", "2012-02-01T00:00:00Z");
        assert_eq!(apia, ["31 00:00 +14:00", "30 12:00 +14:00"]);
    }

    #[test]
    fn a_time_of_day_that_comes_twice_fires_the_first_time() {
        assert_eq!(vienna_autumn("30 2 * * *"), ["26 02:30 +02:00"]);
        assert_eq!(vienna_autumn("*/30 2 * * *"), ["26 02:00 +02:00", "26 02:30 +02:00"]);
        assert_eq!(vienna_autumn("0 2-3 * * *"), ["26 02:00 +02:00", "26 03:00 +01:00"]);
        let york = due("30 1 * * *", "America/New_York", "2025-11-01T12:00:00Z", "2025-11-03T12:00:00Z");
        assert_eq!(york, ["02 01:30 -04:00", "03 01:30 -05:00"]);
        let howe = due("45 1 * * *", "Australia/Lord_Howe", "2025-04-05T00:00:00Z", "2025-04-07T00:00:00Z");
        assert_eq!(howe, ["06 01:45 +11:00", "07 01:45 +10:30"]);
    }

    #[test]
    fn with_a_wildcard_in_the_hours_it_goes_on_in_real_time() {
        let spring = ["30 01:00 +01:00", "30 03:00 +02:00", "30 04:00 +02:00", "30 05:00 +02:00"];
        assert_eq!(vienna_spring("0 * * * *"), spring);
        assert_eq!(vienna_spring("0 */2 * * *"), ["30 04:00 +02:00"]);
        let autumn = ["26 01:30 +02:00", "26 02:30 +02:00", "26 02:30 +01:00", "26 03:30 +01:00"];
        assert_eq!(vienna_autumn("30 * * * *"), autumn);
        assert_eq!(vienna_autumn("0 */2 * * *"), ["26 02:00 +02:00", "26 02:00 +01:00", "26 04:00 +01:00"]);
        let calendar = calendar("*/15 * * * *", "Europe/Vienna");
        for start in [instant("2025-03-29T20:00:00Z"), instant("2025-10-25T20:00:00Z")] {
            for quarter in 0..40 {
                let after = start + quarter * 900_000;
                assert_eq!(calendar.next_after(after), Some(after + 900_000));
            }
        }
        let howe = due("*/20 * * * *", "Australia/Lord_Howe", "2025-04-05T14:35:00Z", "2025-04-05T15:35:00Z");
        assert_eq!(howe, ["06 01:40 +11:00", "06 01:40 +10:30", "06 02:00 +10:30"]);
    }

    #[test]
    fn days_follow_vixies_rule() {
        let september = |expression| due(expression, "UTC", "2025-08-31T23:59:59Z", "2025-10-01T00:00:00Z");
        let days =
            |expression| september(expression).iter().map(|wall| wall[..2].to_owned()).collect::<Vec<_>>().join(" ");
        assert_eq!(days("0 0 13 * FRI"), "05 12 13 19 26");
        assert_eq!(days("0 0 13 * *"), "13");
        assert_eq!(days("0 0 ? * 5"), "05 12 19 26");
        assert_eq!(days("0 0 */2 * MON"), "01 15 29");
        assert_eq!(days("0 0 1-7 * */2"), "02 04 06 07");
        assert_eq!(days("0 0 * * 7,SAT#1"), "06 07 14 21 28");
        assert_eq!(days("0 0 L,14W * *"), "15 30");
        assert_eq!(days("0 0 LW * 5L"), "26 30");
    }

    #[test]
    fn seconds_stand_in_front() {
        let found = due("15,45 59 23 * * *", "UTC", "2025-08-31T23:59:15Z", "2025-09-01T23:59:45Z");
        assert_eq!(found, ["31 23:59:45 +00:00", "01 23:59:15 +00:00"]);
    }

    #[test]
    fn rare_days_are_found_far_ahead_and_the_end_of_time_is_none() {
        let leap = calendar("0 0 29 2 *", "UTC");
        assert_eq!(leap.next_after(instant("2096-02-29T00:00:00Z")), Some(instant("2104-02-29T00:00:00Z")));
        let monday = calendar("0 0 * 2 MON#5", "UTC");
        assert_eq!(monday.next_after(instant("2072-02-29T00:00:00Z")), Some(instant("2112-02-29T00:00:00Z")));
        for after in [u64::MAX, i64::MAX as u64, instant("9999-12-31T23:59:59Z") + 1000] {
            assert_eq!(leap.next_after(after), None);
        }
    }

    fn expression() -> impl Strategy<Value = String> {
        let minute = prop::sample::select(vec!["0", "30", "*", "*/20", "7,45", "10-50/15"]);
        let hour = prop::sample::select(vec!["*", "*/2", "*/3,1", "0", "1", "2", "1-3", "23", "0-23", "3,0"]);
        let days = prop::sample::select(vec!["* *", "* *", "*/2 *", "1-15 *", "* SUN", "8 SAT", "L *", "*/3 MON-FRI"]);
        (minute, hour, days).prop_map(|(minute, hour, days)| {
            let (day, weekday) = days.split_once(' ').unwrap();
            format!("{minute} {hour} {day} * {weekday}")
        })
    }

    /// Every due time on a full minute of `from..to`, found by asking the parser's own matcher at each minute.
    fn all_due(expression: &str, zone: Tz, from: u64, to: u64) -> Vec<u64> {
        let pattern = parse(expression).unwrap();
        let matches = |wall: &NaiveDateTime| croner::Cron { pattern: pattern.clone() }.is_time_matching(wall).unwrap();
        let minute = TimeDelta::minutes(1);
        let is_due = |at: &u64| {
            let at = DateTime::from_timestamp_millis(*at as i64).unwrap().with_timezone(&zone);
            let wall = at.naive_local();
            if pattern.hours.from_wildcard {
                return matches(&wall);
            }
            let skipped = std::iter::successors(Some(wall - minute), |wall| Some(*wall - minute))
                .take_while(|wall| zone.from_local_datetime(wall) == LocalResult::None)
                .any(|wall| matches(&wall));
            skipped || matches(&wall) && zone.from_local_datetime(&wall).earliest() == Some(at)
        };
        (from..to).step_by(60_000).filter(is_due).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn due_times_are_those_of_an_exhaustive_search(
            expression in expression(),
            change in prop::sample::select(vec![
                ("Europe/Vienna", "2025-03-30T01:00:00Z"), ("Europe/Vienna", "2031-10-26T01:00:00Z"),
                ("America/New_York", "2025-03-09T07:00:00Z"), ("America/New_York", "2025-11-02T06:00:00Z"),
                ("Australia/Lord_Howe", "2025-10-04T15:30:00Z"), ("Australia/Lord_Howe", "2025-04-05T15:00:00Z"),
                ("America/Havana", "2025-03-09T05:00:00Z"), ("America/Havana", "2025-11-02T05:00:00Z"),
                ("Antarctica/Troll", "2025-03-30T01:00:00Z"), ("Antarctica/Troll", "2025-10-26T01:00:00Z"),
                ("Pacific/Apia", "2011-12-30T10:00:00Z"), ("UTC", "2024-02-29T00:00:00Z"),
            ]),
            starts in prop::collection::vec((-36 * 3_600_000i64..36 * 3_600_000, any::<bool>()), 50),
        ) {
            let (zone, change) = change;
            let calendar = calendar(&expression, zone);
            let (change, day) = (instant(change), 86_400_000);
            let all = all_due(&expression, calendar.zone, change - 2 * day, change + 2 * day);
            for (start, whole) in starts {
                let start = change.checked_add_signed(if whole { start / 60_000 * 60_000 } else { start }).unwrap();
                let expected = all.iter().find(|due| **due > start).copied();
                let found = calendar.next_after(start).filter(|due| *due < change + 2 * day);
                prop_assert_eq!(found, expected, "{} in {} after {}", expression, zone, start);
            }
            let first = all.first().copied();
            let found = std::iter::successors(first, |due| calendar.next_after(*due)).take(all.len());
            prop_assert_eq!(found.collect::<Vec<_>>(), all);
        }
    }
}
