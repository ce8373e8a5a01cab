//! Attaching, credit, receiving.

use dwell_machine as machine;
use dwell_machine::limits::{
    CREDIT_MAX, RECEIVE_MESSAGES_MAX, RECEIVE_WAIT_MS_MAX, SESSION_TIMEOUT_MS_DEFAULT, SETTLE_LEASES_MAX,
};
use dwell_proto::v1;

use super::settle::lease;
use super::{Checked, count, invalid, name, namespace, optional_name, timeout, within};

/// An attach command, but for the attachment and a consumer id that the server makes.
pub fn attach(attach: v1::Attach) -> Checked<machine::Attach> {
    namespace(&attach.namespace)?;
    name("attach.queue", &attach.queue)?;
    optional_name("attach.consumer_id", &attach.consumer_id)?;
    let session_timeout_ms =
        timeout("attach.session_timeout_ms", attach.session_timeout_ms, SESSION_TIMEOUT_MS_DEFAULT)?;
    count("attach.holding", attach.holding.len(), 0, SETTLE_LEASES_MAX)?;
    Ok(machine::Attach {
        queue: attach.queue,
        consumer_id: attach.consumer_id,
        credit: credit("attach.credit", attach.credit)?,
        session_timeout_ms,
        holding: attach.holding.into_iter().map(lease).collect(),
        attachment: 0,
    })
}

/// A consumer's credit.
pub fn credit(field: &str, credit: u32) -> Checked<u32> {
    if credit == 0 || credit > CREDIT_MAX {
        return invalid(field, format!("must be 1 to {CREDIT_MAX}, not {credit}"));
    }
    Ok(credit)
}

/// A receive command, and how long to wait.
pub fn receive(request: v1::ReceiveRequest) -> Checked<(machine::Receive, u64)> {
    namespace(&request.namespace)?;
    name("queue", &request.queue)?;
    within("messages_max", request.messages_max.into(), 1, RECEIVE_MESSAGES_MAX.into())?;
    let wait_ms = within("wait_ms", request.wait_ms, 0, RECEIVE_WAIT_MS_MAX)?;
    let lease_timeout_ms = timeout("lease_timeout_ms", request.lease_timeout_ms, 0)?;
    Ok((machine::Receive { queue: request.queue, messages_max: request.messages_max, lease_timeout_ms }, wait_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_of_zero_and_of_a_billion_is_refused() {
        assert!(credit("credit", 0).is_err());
        assert!(credit("credit", 1_000_000_000).is_err());
        assert!(credit("credit", CREDIT_MAX).is_ok());
    }
}
