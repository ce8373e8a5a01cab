//! Settlements on their way: those that wait are merged into few requests.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use dwell_proto::v1;
use dwell_proto::v1::consume_request::Request;
use tokio::sync::oneshot;
use tonic::Code;

use super::link::Link;
use crate::error::{Error, is_transient_code};
use crate::settle::Settlement;

/// Most leases in one request, by the API.
const LEASES_MAX: usize = 10_000;
/// Requests under way past which settlements wait for the next answer, and then travel together.
const EAGER_REQUESTS: usize = 8;
/// Most requests under way: settlements of many kinds (returns after different delays) need one each.
pub(super) const REQUESTS_MAX: usize = 64;

/// One lease to settle, and who waits for it.
#[derive(Debug)]
pub(super) struct Settle {
    pub(super) lease: v1::Lease,
    pub(super) settlement: Settlement,
    /// It was sent on a stream that broke before the answer.
    pub(super) perhaps_done: bool,
    pub(super) answer: oneshot::Sender<Result<(), Error>>,
}

impl Settle {
    fn finish(self, link: &Link, result: Result<(), Error>) {
        let ends_lease = !matches!(self.settlement, Settlement::Extend { .. });
        let lost = matches!(result, Err(Error::LeaseLost | Error::Unknown(_)));
        if (result.is_ok() && ends_lease) || lost {
            link.forget(&self.lease);
        }
        // Who waited may have given up.
        let _ = self.answer.send(result);
    }
}

/// All settlements of a consumer that have no answer.
#[derive(Debug, Default)]
pub(super) struct Settling {
    waiting: VecDeque<Settle>,
    /// Sent on the current stream, by request id.
    sent: HashMap<u64, Vec<Settle>>,
    last_request_id: u64,
}

impl Settling {
    pub(super) fn push(&mut self, settle: Settle) {
        self.waiting.push_back(settle);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }

    /// What to send now: nothing while enough is under way.
    pub(super) fn requests(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        while !self.waiting.is_empty() && self.sent.len() < EAGER_REQUESTS {
            let mut groups: BTreeMap<Kind, Vec<Settle>> = BTreeMap::new();
            while let Some(settle) = self.waiting.pop_front() {
                // Nobody waits for it any more, and nobody was told that it happened.
                if settle.answer.is_closed() {
                    continue;
                }
                let kind = Kind::of(settle.settlement);
                if !groups.contains_key(&kind) && groups.len() + self.sent.len() >= REQUESTS_MAX {
                    self.waiting.push_front(settle);
                    break;
                }
                let group = groups.entry(kind).or_default();
                group.push(settle);
                if group.len() >= LEASES_MAX {
                    break;
                }
            }
            for settles in groups.into_values() {
                self.last_request_id += 1;
                requests.extend(request(self.last_request_id, &settles));
                self.sent.insert(self.last_request_id, settles);
            }
        }
        requests
    }

    /// Takes an answer. Errors: the stream is of no use, all is to be sent again.
    pub(super) fn settled(&mut self, link: &Link, settled: v1::Settled) -> Result<(), String> {
        let Some(settles) = self.sent.remove(&settled.request_id) else { return Ok(()) };
        if let Some(refused) = settled.refused {
            let code = Code::from_i32(refused.code);
            if is_transient_code(code) || code == Code::ResourceExhausted {
                let reason = format!("{code}: {}", refused.message);
                self.sent.insert(settled.request_id, settles);
                return Err(reason);
            }
            let error = Error::from_failure(refused);
            settles.into_iter().for_each(|settle| settle.finish(link, Err(error.clone())));
            return Ok(());
        }
        let lost: HashSet<(u64, u64)> = settled.lost.iter().map(|lease| (lease.sequence, lease.token)).collect();
        for settle in settles {
            let is_lost = lost.contains(&(settle.lease.sequence, settle.lease.token));
            let result = if is_lost { Err(settle.settlement.lost(settle.perhaps_done)) } else { Ok(()) };
            settle.finish(link, result);
        }
        Ok(())
    }

    /// The stream broke: what was sent on it may or may not have been done, and is to be sent again, first.
    pub(super) fn stream_broke(&mut self) {
        let mut sent: Vec<_> = std::mem::take(&mut self.sent).into_iter().collect();
        sent.sort_unstable_by_key(|(request_id, _)| std::cmp::Reverse(*request_id));
        for settle in sent.into_iter().flat_map(|(_, settles)| settles.into_iter().rev()) {
            self.waiting.push_front(Settle { perhaps_done: true, ..settle });
        }
    }

    /// The consumer attached again, and no longer holds these leases.
    pub(super) fn lost(&mut self, link: &Link, leases: &[v1::Lease]) {
        let lost: HashSet<(u64, u64)> = leases.iter().map(|lease| (lease.sequence, lease.token)).collect();
        for settle in std::mem::take(&mut self.waiting) {
            if lost.contains(&(settle.lease.sequence, settle.lease.token)) {
                let error = settle.settlement.lost(settle.perhaps_done);
                settle.finish(link, Err(error));
            } else {
                self.waiting.push_back(settle);
            }
        }
    }
}

/// Settlements that one request can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ack,
    Nack(Option<i64>),
    Reject,
    Extend(i64),
}

impl Kind {
    fn of(settlement: Settlement) -> Kind {
        match settlement {
            Settlement::Ack => Kind::Ack,
            Settlement::Nack { delay_ms } => Kind::Nack(delay_ms),
            Settlement::Reject => Kind::Reject,
            Settlement::Extend { lease_timeout_ms } => Kind::Extend(lease_timeout_ms),
        }
    }
}

/// The request for settlements of one kind; none for none.
fn request(request_id: u64, settles: &[Settle]) -> Option<Request> {
    let leases = settles.iter().map(|settle| settle.lease).collect();
    Some(match settles.first()?.settlement {
        Settlement::Ack => Request::Ack(v1::SettleAck { request_id, leases }),
        Settlement::Nack { delay_ms } => Request::Nack(v1::SettleNack { request_id, leases, delay_ms, reject: false }),
        Settlement::Reject => Request::Nack(v1::SettleNack { request_id, leases, delay_ms: None, reject: true }),
        Settlement::Extend { lease_timeout_ms } => {
            Request::Extend(v1::SettleExtend { request_id, leases, lease_timeout_ms })
        }
    })
}
