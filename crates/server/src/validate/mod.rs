//! From requests to commands, checking every limit on the way.
//!
//! A file for each family of requests; what they share is here. Each refusal names the field by its path in the
//! request, and the limit.

mod consume;
mod exchanges;
#[cfg(test)]
mod hostile_bytes;
mod inventory;
mod membership;
mod publish;
mod scaling;
mod schedules;
mod settings;
mod settle;
mod users;

pub use consume::{attach, credit, receive};
pub use exchanges::{binding, declare_exchange};
pub use inventory::{Named, Selected, browse, forecast, new_time, selection, target};
pub use membership::{add_member, node_id};
pub use publish::{publish, transact};
pub use scaling::{Scaling, scaling};
pub use schedules::{declare_schedule, next_max, preview};
pub use settings::{queue_settings, update_queue};
pub use settle::{ack, extend, nack};
pub use users::{add_user, password, set_password, set_permission, user_name};

use std::collections::BTreeMap;

use dwell_machine::limits::{HEADERS_BYTES_MAX, HEADERS_MAX, HORIZON_MS, NAME_BYTES_MAX};
use dwell_machine::limits::{TIMEOUT_MS_MAX, TIMEOUT_MS_MIN};

use crate::status::Invalid;

/// The only namespace there is so far.
pub const NAMESPACE: &str = "default";
/// Page size of a listing, where the request does not say.
const PAGE_SIZE_DEFAULT: u32 = 100;
const PAGE_SIZE_MAX: u32 = 1000;

/// What requests are checked against.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest body of a message, in bytes.
    pub body_bytes_max: usize,
}

type Checked<T> = Result<T, Invalid>;

fn invalid<T>(field: &str, problem: impl Into<String>) -> Checked<T> {
    Err(Invalid { field: field.to_owned(), problem: problem.into() })
}

/// Puts the path of what was checked before the fields that it found wrong.
fn under<T>(path: impl std::fmt::Display, checked: Checked<T>) -> Checked<T> {
    checked.map_err(|error| Invalid { field: format!("{path}.{}", error.field), ..error })
}

/// Checks a namespace's name.
pub fn namespace(name: &str) -> Checked<()> {
    if name.is_empty() || name == NAMESPACE {
        return Ok(());
    }
    invalid("namespace", format!("must be empty or `{NAMESPACE}`"))
}

/// Checks the name of a queue, consumer, producer, exchange or schedule.
pub fn name(field: &str, name: &str) -> Checked<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return invalid(field, format!("must have 1 to {NAME_BYTES_MAX} bytes, not {}", name.len()));
    }
    if name.chars().any(char::is_control) {
        return invalid(field, "must not contain control characters");
    }
    Ok(())
}

/// Checks a name that may be left empty.
fn optional_name(field: &str, text: &str) -> Checked<()> {
    if text.is_empty() { Ok(()) } else { name(field, text) }
}

/// Checks the length of a text that may be empty.
fn text(field: &str, text: &str) -> Checked<()> {
    if text.len() > NAME_BYTES_MAX {
        return invalid(field, format!("must have at most {NAME_BYTES_MAX} bytes, not {}", text.len()));
    }
    Ok(())
}

/// Checks a message's headers, or what is asked of them.
fn headers(field: &str, headers: &BTreeMap<String, String>) -> Checked<()> {
    if headers.len() > HEADERS_MAX {
        return invalid(field, format!("must be at most {HEADERS_MAX}, not {}", headers.len()));
    }
    if headers.keys().any(|key| key.is_empty() || key.len() > NAME_BYTES_MAX) {
        return invalid(field, format!("must have keys of 1 to {NAME_BYTES_MAX} bytes"));
    }
    let bytes: usize = headers.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > HEADERS_BYTES_MAX {
        return invalid(field, format!("must have at most {HEADERS_BYTES_MAX} bytes, not {bytes}"));
    }
    Ok(())
}

/// Checks that a number lies within its limits.
fn within(field: &str, value: i64, min: u64, max: u64) -> Checked<u64> {
    match u64::try_from(value) {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => invalid(field, format!("must be {min} to {max}, not {value}")),
    }
}

/// Checks how many there are of something.
fn count(field: &str, count: usize, min: usize, max: usize) -> Checked<()> {
    if (min..=max).contains(&count) {
        return Ok(());
    }
    let least = if min == 0 { "at most".to_owned() } else { format!("{min} to") };
    invalid(field, format!("must be {least} {max}, not {count}"))
}

/// A timeout, or the default where it is 0.
fn timeout(field: &str, value: i64, default: u64) -> Checked<u64> {
    if value == 0 { Ok(default) } else { within(field, value, TIMEOUT_MS_MIN, TIMEOUT_MS_MAX) }
}

/// An absolute time near enough to `now_ms`; 0 is left to the caller.
fn time(field: &str, value: i64, now_ms: u64) -> Checked<u64> {
    within(field, value, now_ms.saturating_sub(HORIZON_MS).max(1), now_ms + HORIZON_MS)
        .map_err(|error| Invalid { problem: format!("{} (ten years from now)", error.problem), ..error })
}

/// An absolute time that may be left out: then 0.
fn optional_time(field: &str, value: Option<i64>, now_ms: u64) -> Checked<u64> {
    value.map_or(Ok(0), |value| time(field, value, now_ms))
}

/// A message's priority, or a bound of it.
fn priority(field: &str, priority: u32) -> Checked<u32> {
    if priority > u8::MAX.into() {
        return invalid(field, format!("must be 0 to {}, not {priority}", u8::MAX));
    }
    Ok(priority)
}

/// How many things a page of a listing has.
pub fn page_size(size: u32) -> Checked<usize> {
    match size {
        0 => Ok(PAGE_SIZE_DEFAULT as usize),
        size if size <= PAGE_SIZE_MAX => Ok(size as usize),
        size => invalid("page_size", format!("must be 0 to {PAGE_SIZE_MAX}, not {size}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_1_to_255_bytes_and_no_control_characters() {
        assert!(name("queue", "").is_err());
        assert!(name("queue", &"x".repeat(255)).is_ok());
        assert!(name("queue", &"x".repeat(256)).is_err());
        assert!(name("queue", "a\nb").is_err());
    }

    #[test]
    fn a_page_has_100_things_unless_told_and_at_most_1000() {
        assert_eq!(page_size(0), Ok(100));
        assert_eq!(page_size(1000), Ok(1000));
        assert_eq!(page_size(1001).unwrap_err().to_string(), "`page_size` must be 0 to 1000, not 1001");
    }

    #[test]
    fn a_count_is_refused_with_its_bounds() {
        assert_eq!(count("leases", 0, 1, 9).unwrap_err().to_string(), "`leases` must be 1 to 9, not 0");
        assert_eq!(count("holding", 10, 0, 9).unwrap_err().to_string(), "`holding` must be at most 9, not 10");
    }
}
