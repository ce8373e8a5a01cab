//! What a person can do about an error.

use dwell_client::Error;

/// A line that says what to do next, if there is something.
pub fn next_step(error: &anyhow::Error) -> Option<&'static str> {
    let step = match error.downcast_ref::<Error>()? {
        Error::NotFound(_) => {
            "`dwell queue list`, `dwell exchange list` and `dwell schedule list` show what there is, `dwell browse QUEUE` \
             the messages of a queue; `dwell queue declare QUEUE` makes a queue."
        }
        Error::AlreadyExists(_) => {
            "`describe` (or `list`) shows how it was declared. Declare it so, or change it: `dwell queue update`, `dwell \
             schedule declare --replace`; or delete it first."
        }
        Error::FailedPrecondition(_) => "Nothing was done. `dwell queue describe QUEUE` shows how things stand.",
        Error::InvalidArgument(_) => "Nothing was done. The command's --help names the limits.",
        Error::Unroutable(_) => {
            "It is not stored. `dwell binding list EXCHANGE` shows where the exchange routes to; `dwell binding add` binds \
             a queue."
        }
        Error::Rejected { .. } => {
            "It is not stored. Consume, or raise the limit: `dwell queue update QUEUE --messages-max ...` (or --bytes-max, \
             --overflow)."
        }
        Error::Unavailable { .. } => {
            "Is a node running there? `dwell dev` starts a cluster on this machine; --server or DWELL_SERVER says \
             where to look; `dwell cluster status` asks every node."
        }
        Error::Timeout { .. } => {
            "`dwell cluster status` shows whether the cluster has a leader. What was sent may have taken effect: \
             look before doing it again."
        }
        Error::Unknown(_) => {
            "Look at what is there before doing it again: `dwell queue describe QUEUE`, `dwell browse QUEUE`, `dwell \
             schedule describe SCHEDULE`."
        }
        Error::ResourceExhausted(_) => "The cluster is at a limit: wait, consume, or raise the limit.",
        Error::Displaced => "Use another --consumer-id, or none, to consume beside the other consumer.",
        Error::LeaseLost => "The message will be delivered again. Settle within the queue's lease timeout.",
        Error::Tls(_) => {
            "--tls-ca names the authority of the nodes' certificates, --tls-certificate and --tls-key one's own."
        }
        Error::Unauthenticated(_) => {
            "--user and DWELL_PASSWORD (or --password-file), --token-file, or a certificate say who calls."
        }
        Error::PermissionDenied(_) => {
            "An administrator sees with `dwell permission list` what a user may do, and changes it with `dwell permission \
             set`."
        }
        Error::Address { .. } => "Write addresses as HOST:PORT, separated by commas.",
        _ => return None,
    };
    Some(step)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn the_step_is_found_below_added_context() {
        let error = Err::<(), _>(Error::NotFound("queue `q` does not exist".into())).context("publishing").unwrap_err();
        assert!(next_step(&error).unwrap().contains("dwell queue declare"));
        assert!(next_step(&anyhow::anyhow!("something else")).is_none());
    }
}
