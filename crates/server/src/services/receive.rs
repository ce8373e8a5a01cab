//! Long polling.

use std::time::Duration;

use dwell_consensus::leadership::Tenure;
use dwell_consensus::proposer::ProposeError;
use dwell_machine::{Command, Receive, Reply};
use dwell_proto::v1;
use tokio::time::Instant;

use super::Services;
use crate::status::RequestError;
use crate::validate;

impl Services {
    pub(super) async fn receive_messages(
        &self,
        request: v1::ReceiveRequest,
    ) -> Result<Vec<v1::Delivery>, RequestError> {
        let (command, wait_ms) = validate::receive(request)?;
        let (queue, deliveries) = self.receive_now(&command).await?;
        if !deliveries.is_empty() || wait_ms == 0 {
            return Ok(deliveries);
        }
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        let waiter = self.hub.waiter(queue);
        let mut tenure = Tenure::current(&self.group.leadership);
        let result = loop {
            // Once more now that this call is known to the hub: a message may have come in between.
            match self.receive_now(&command).await {
                Ok((_, deliveries)) if deliveries.is_empty() => {}
                Ok((_, deliveries)) => {
                    // There may be more, and only one call is woken at a time.
                    waiter.notify_one();
                    break Ok(deliveries);
                }
                Err(error) => break Err(error),
            }
            tokio::select! {
                () = waiter.notified() => {}
                () = tokio::time::sleep_until(deadline) => break Ok(Vec::new()),
                () = tenure.ended() => break Err(ProposeError::NotLeader.into()),
            }
        };
        self.hub.leave(queue, waiter);
        result
    }

    async fn receive_now(&self, command: &Receive) -> Result<(u64, Vec<v1::Delivery>), RequestError> {
        let Reply::Received { queue, deliveries } = self.propose(Command::Receive(command.clone())).await? else {
            return Err(RequestError::UnexpectedReply);
        };
        let deliveries =
            deliveries.into_iter().filter_map(|delivery| self.delivery(&command.queue, delivery).transpose());
        Ok((queue, deliveries.collect::<Result<_, _>>()?))
    }
}
