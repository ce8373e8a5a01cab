//! Leases: acknowledging, returning, extending.

use dwell_machine as machine;
use dwell_machine::limits::{HORIZON_MS, SETTLE_LEASES_MAX};
use dwell_proto::v1;

use super::{Checked, count, invalid, name, timeout, within};

pub(super) fn lease(lease: v1::Lease) -> machine::Lease {
    machine::Lease { sequence: lease.sequence, token: lease.token }
}

/// The leases of a settling command.
fn leases(leases: Vec<v1::Lease>) -> Checked<Vec<machine::Lease>> {
    count("leases", leases.len(), 1, SETTLE_LEASES_MAX)?;
    Ok(leases.into_iter().map(lease).collect())
}

/// An ack command.
pub fn ack(queue: String, named: Vec<v1::Lease>) -> Checked<machine::Ack> {
    name("queue", &queue)?;
    Ok(machine::Ack { queue, leases: leases(named)? })
}

/// A nack command.
pub fn nack(queue: String, named: Vec<v1::Lease>, delay_ms: Option<i64>, reject: bool) -> Checked<machine::Nack> {
    name("queue", &queue)?;
    if reject && delay_ms.is_some() {
        return invalid("delay_ms", "must be unset with `reject`");
    }
    let delay = delay_ms.map(|delay_ms| within("delay_ms", delay_ms, 0, HORIZON_MS)).transpose()?;
    Ok(machine::Nack {
        queue,
        leases: leases(named)?,
        delay_ms: delay.unwrap_or(0),
        reject,
        immediate: delay == Some(0),
    })
}

/// An extend command.
pub fn extend(queue: String, named: Vec<v1::Lease>, lease_timeout_ms: i64) -> Checked<machine::Extend> {
    name("queue", &queue)?;
    let lease_timeout_ms = timeout("lease_timeout_ms", lease_timeout_ms, 0)?;
    Ok(machine::Extend { queue, leases: leases(named)?, lease_timeout_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nack_one(delay_ms: Option<i64>, reject: bool) -> Result<(u64, bool, bool), String> {
        let nack = nack("q".into(), vec![v1::Lease::default()], delay_ms, reject).map_err(|error| error.to_string())?;
        Ok((nack.delay_ms, nack.immediate, nack.reject))
    }

    #[test]
    fn a_nack_without_a_delay_leaves_it_to_the_queue_and_one_of_0_means_at_once() {
        assert_eq!(nack_one(None, false), Ok((0, false, false)));
        assert_eq!(nack_one(Some(0), false), Ok((0, true, false)));
        assert_eq!(nack_one(Some(7), false), Ok((7, false, false)));
        assert_eq!(nack_one(Some(-1), false).unwrap_err(), "`delay_ms` must be 0 to 315360000000, not -1");
    }

    #[test]
    fn a_nack_that_rejects_has_no_delay() {
        assert_eq!(nack_one(None, true), Ok((0, false, true)));
        assert_eq!(nack_one(Some(0), true).unwrap_err(), "`delay_ms` must be unset with `reject`");
    }

    #[test]
    fn a_settlement_names_1_to_10000_leases() {
        let many = |count| ack("q".into(), vec![v1::Lease::default(); count]).map_err(|error| error.to_string());
        assert_eq!(many(0).unwrap_err(), "`leases` must be 1 to 10000, not 0");
        assert_eq!(many(10_001).unwrap_err(), "`leases` must be 1 to 10000, not 10001");
        assert_eq!(many(10_000).unwrap().leases.len(), 10_000);
    }
}
