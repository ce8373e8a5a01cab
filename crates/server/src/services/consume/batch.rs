//! Responses of a stream that travel together.

use dwell_proto::v1;
use dwell_proto::v1::consume_response::Response;
use tonic::Status;

/// A batch takes no further delivery once it holds this many body bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// In the order in which they are sent.
pub(super) type Responses = Vec<Result<v1::ConsumeResponse, Status>>;

/// What is put together to be sent.
#[derive(Debug, Default)]
pub(super) struct Batch {
    responses: Responses,
    body_bytes: usize,
    /// In the last response.
    last_bytes: usize,
}

impl Batch {
    pub(super) fn push(&mut self, consumer: u32, response: Response) {
        self.last_bytes = 0;
        self.responses.push(Ok(v1::ConsumeResponse { consumer, response: Some(response) }));
    }

    /// Joins the last response, if that is one of deliveries to the same consumer with room for it.
    pub(super) fn deliver(&mut self, consumer: u32, delivery: v1::Delivery) {
        let bytes = delivery.message.as_ref().map_or(0, |message| message.body.len());
        self.body_bytes += bytes;
        if let Some(Ok(v1::ConsumeResponse { consumer: last, response: Some(Response::Deliveries(deliveries)) })) =
            self.responses.last_mut()
            && *last == consumer
            && self.last_bytes < BODY_BYTES_MAX
        {
            self.last_bytes += bytes;
            deliveries.deliveries.push(delivery);
            return;
        }
        self.push(consumer, Response::Deliveries(v1::Deliveries { deliveries: vec![delivery] }));
        self.last_bytes = bytes;
    }

    /// The last response of the stream.
    pub(super) fn fail(&mut self, status: Status) {
        self.responses.push(Err(status));
    }

    pub(super) fn is_full(&self) -> bool {
        self.body_bytes >= BODY_BYTES_MAX
    }

    /// What there is; none for nothing.
    pub(super) fn take(&mut self) -> Option<Responses> {
        self.body_bytes = 0;
        self.last_bytes = 0;
        let responses = std::mem::take(&mut self.responses);
        (!responses.is_empty()).then_some(responses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(sequence: u64, bytes: usize) -> v1::Delivery {
        let handle = v1::Handle { sequence, ..Default::default() };
        let message = v1::Message { body: vec![0; bytes].into(), ..Default::default() };
        v1::Delivery { handle: Some(handle), message: Some(message), ..Default::default() }
    }

    fn shape(batch: &mut Batch) -> Vec<(u32, usize)> {
        let responses = batch.take().unwrap_or_default();
        let shape = responses.into_iter().map(|response| match response {
            Ok(v1::ConsumeResponse { consumer, response: Some(Response::Deliveries(deliveries)) }) => {
                (consumer, deliveries.deliveries.len())
            }
            other => panic!("{other:?}"),
        });
        shape.collect()
    }

    #[test]
    fn deliveries_in_a_row_to_one_consumer_are_one_response_and_stay_in_order() {
        let mut batch = Batch::default();
        for (consumer, sequence) in [(1, 1), (1, 2), (2, 1), (1, 3)] {
            batch.deliver(consumer, delivery(sequence, 10));
        }
        assert_eq!(shape(&mut batch), [(1, 2), (2, 1), (1, 1)]);
        assert!(batch.take().is_none());
    }

    #[test]
    fn a_batch_is_full_by_its_bodies() {
        let mut batch = Batch::default();
        batch.deliver(1, delivery(1, BODY_BYTES_MAX - 1));
        assert!(!batch.is_full());
        batch.deliver(1, delivery(2, 1));
        assert!(batch.is_full());
        batch.deliver(1, delivery(3, 1));
        assert_eq!(shape(&mut batch), [(1, 2), (1, 1)], "nor does a response grow without end");
        assert!(!batch.is_full());
    }
}
