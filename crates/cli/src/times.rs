//! Times and durations as people write and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Parses `5s`, `1h 30m`, `250ms`, or `0`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write for instance 250ms, 5s or 1h 30m"))
}

/// Parses `2030-01-01T12:00:00Z`, or milliseconds since the Unix epoch, to the latter.
pub fn parse_time_ms(text: &str) -> Result<i64, String> {
    if let Ok(milliseconds) = text.parse() {
        return Ok(milliseconds);
    }
    let explain = |error| format!("{error}; write for instance 2030-01-01T12:00:00Z, or milliseconds since 1970");
    let time = humantime::parse_rfc3339_weak(text).map_err(explain)?;
    Ok(since_epoch_ms(time))
}

/// Milliseconds since the Unix epoch; negative before it.
pub fn since_epoch_ms(time: SystemTime) -> i64 {
    let microseconds = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let since_us = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => microseconds(after),
        Err(before) => -microseconds(before.duration()),
    };
    since_us.div_euclid(1000)
}

/// A time for people, in UTC, to the millisecond; `-` for zero, which means that there is none.
pub fn show_ms(milliseconds: i64) -> String {
    match u64::try_from(milliseconds) {
        Ok(0) | Err(_) => "-".into(),
        Ok(after) => match UNIX_EPOCH.checked_add(Duration::from_millis(after)) {
            // The year 10000 is the formatter's limit.
            Some(time) if after < 253_402_300_800_000 => humantime::format_rfc3339_millis(time).to_string(),
            _ => milliseconds.to_string(),
        },
    }
}

/// A duration for people.
pub fn show_duration_ms(milliseconds: i64) -> String {
    humantime::format_duration(Duration::from_millis(milliseconds.unsigned_abs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_or_milliseconds() {
        assert_eq!(parse_time_ms("1970-01-01T00:00:01Z"), Ok(1000));
        assert_eq!(parse_time_ms("1970-01-01 00:00:01.5"), Ok(1500));
        assert_eq!(parse_time_ms("1234"), Ok(1234));
        assert!(parse_time_ms("tomorrow").unwrap_err().contains("2030-01-01"));
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert!(parse_duration("5").unwrap_err().contains("5s"));
    }

    #[test]
    fn times_are_shown_to_the_millisecond() {
        assert_eq!(show_ms(1500), "1970-01-01T00:00:01.500Z");
        assert_eq!(show_ms(0), "-");
        assert_eq!(show_ms(i64::MAX), i64::MAX.to_string());
    }
}
