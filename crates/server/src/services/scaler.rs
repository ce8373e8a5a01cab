//! KEDA's external scaler, `externalscaler.ExternalScaler`: how many workers a queue needs.
//!
//! Each node answers by itself from what it has applied, leader or not: who scales workers asks often, may be a moment
//! behind, and must be answered while there is no leader.

mod demand;

use std::sync::Arc;
use std::time::Duration;

use dwell_consensus::group::Consistency;
use dwell_consensus::recovery::RecoveryGate;
use dwell_machine::Refusal;
use dwell_proto::externalscaler::external_scaler_server::ExternalScaler;
use dwell_proto::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prometheus::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::{Code, Request, Response, Status};

use self::demand::Demand;
use super::{Services, signed};
use crate::http::LAG_MAX;
use crate::metrics::ScalerMetrics;
use crate::status::{Invalid, RequestError};
use crate::validate::{self, Scaling};

/// The metric. Kubernetes puts it into paths of URLs, so that it does not hold the names of queues, which may be any text.
const METRIC_NAME: &str = "dwell-messages";
/// Largest request: some names.
pub const SCALER_REQUEST_BYTES_MAX: usize = 64 * 1024;
/// How often a stream looks whether something has changed. Time alone changes it, without anything being applied.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Most queues that all streams of a node look at together, a queue that two of them look at twice.
const WATCHED_QUEUES_MAX: usize = 100;

/// The service; cheap to clone.
#[derive(Clone)]
pub struct Scaler {
    services: Services,
    gate: RecoveryGate,
    metrics: ScalerMetrics,
    /// One permit for each queue that a stream may look at.
    watched: Arc<Semaphore>,
}

/// A stream of [`ExternalScaler::stream_is_active`].
struct Watch {
    scaler: Scaler,
    scaling: Scaling,
    looks: Interval,
    /// What the other end knows.
    told: Option<bool>,
    _watched: OwnedSemaphorePermit,
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    #[tracing::instrument(skip_all, fields(namespace = %request.get_ref().namespace, name = %request.get_ref().name))]
    async fn is_active(&self, request: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        self.counted(self.answer_is_active(request.into_inner()).await)
    }

    type StreamIsActiveStream = BoxStream<'static, Result<IsActiveResponse, Status>>;

    #[tracing::instrument(skip_all, fields(namespace = %request.get_ref().namespace, name = %request.get_ref().name))]
    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        self.counted(self.watch(request.into_inner()).map(Watch::into_stream))
    }

    #[tracing::instrument(skip_all, fields(namespace = %request.get_ref().namespace, name = %request.get_ref().name))]
    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        self.counted(metric_spec(request.into_inner()))
    }

    #[tracing::instrument(skip_all, fields(metric = %request.get_ref().metric_name))]
    async fn get_metrics(&self, request: Request<GetMetricsRequest>) -> Result<Response<GetMetricsResponse>, Status> {
        self.counted(self.answer_metrics(request.into_inner()).await)
    }
}

impl Scaler {
    /// Registers its metrics. While the gate is closed to elections this node has lost its state, and answers nothing.
    pub fn new(services: Services, gate: RecoveryGate, registry: &Registry) -> Result<Scaler, prometheus::Error> {
        let metrics = ScalerMetrics::register(registry)?;
        Ok(Scaler { services, gate, metrics, watched: Arc::new(Semaphore::new(WATCHED_QUEUES_MAX)) })
    }

    async fn answer_is_active(&self, object: ScaledObjectRef) -> Result<IsActiveResponse, RequestError> {
        let scaling = validate::scaling(object)?;
        Ok(IsActiveResponse { result: self.needs_any(&scaling).await? })
    }

    async fn answer_metrics(&self, request: GetMetricsRequest) -> Result<GetMetricsResponse, RequestError> {
        if request.metric_name != METRIC_NAME {
            return Err(Invalid { field: "metricName".into(), problem: format!("must be `{METRIC_NAME}`") }.into());
        }
        let scaling = validate::scaling(request.scaled_object_ref.unwrap_or_default())?;
        let messages = self.demand(&scaling).await?.messages(&scaling);
        let value = MetricValue {
            metric_name: METRIC_NAME.to_owned(),
            metric_value: signed(messages),
            metric_value_float: messages as f64,
        };
        Ok(GetMetricsResponse { metric_values: vec![value] })
    }

    /// What there is, and what becomes due within the lead time.
    ///
    /// Queue by queue, and not as of one entry: entries are applied in between, which otherwise would wait for all of it.
    async fn demand(&self, scaling: &Scaling) -> Result<Demand, RequestError> {
        self.check_current()?;
        let clock_ms = self.services.clock.now_ms();
        let lead_time_ms = scaling.lead_time_ms;
        let mut total = Demand::default();
        for queue in &scaling.queues {
            let name = queue.clone();
            let demand = self.services.group.read_rows(Consistency::Stale, move |machine, store| {
                // Machine time stands still while nothing happens, and may be ahead of this node's clock.
                Demand::soon(machine, store, &name, machine.now_ms().max(clock_ms), lead_time_ms)
            });
            total = total + demand.await??.ok_or_else(|| not_found(queue))?;
        }
        Ok(total)
    }

    /// Should there be any replica? Mostly it is enough to look at counts in memory.
    async fn needs_any(&self, scaling: &Scaling) -> Result<bool, RequestError> {
        self.check_current()?;
        let queues = scaling.queues.clone();
        let at_hand = self.services.group.read(Consistency::Stale, move |machine| {
            let demands = queues.iter().map(|queue| Demand::at_hand(machine, queue).ok_or_else(|| not_found(queue)));
            demands.sum::<Result<Demand, Refusal>>()
        });
        Ok(at_hand.await??.is_active(scaling) || self.demand(scaling).await?.is_active(scaling))
    }

    /// A node that has most of its log still to apply would report queues empty that are not, and have workers taken
    /// away. No answer changes nothing.
    fn check_current(&self) -> Result<(), RequestError> {
        if self.gate.is_recovering() {
            return Err(RequestError::CatchingUp { reason: "it recovers from damage of its files".into() });
        }
        let status = self.services.group.status();
        let lag = status.committed_index.saturating_sub(status.applied_index);
        if lag > LAG_MAX {
            return Err(RequestError::CatchingUp { reason: format!("{lag} log entries are still to be applied") });
        }
        Ok(())
    }

    fn watch(&self, object: ScaledObjectRef) -> Result<Watch, RequestError> {
        let scaling = validate::scaling(object)?;
        let permits = u32::try_from(scaling.queues.len()).unwrap_or(u32::MAX);
        let watched = self.watched.clone().try_acquire_many_owned(permits);
        let watched = watched.map_err(|_| RequestError::TooManyWatched { max: WATCHED_QUEUES_MAX })?;
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.metrics.streams.inc();
        Ok(Watch { scaler: self.clone(), scaling, looks, told: None, _watched: watched })
    }

    fn counted<T>(&self, answer: Result<T, RequestError>) -> Result<Response<T>, Status> {
        let answer = answer.map(Response::new).map_err(Status::from);
        self.metrics.count(answer.as_ref().err().map_or(Code::Ok, Status::code));
        if let Err(status) = &answer {
            tracing::debug!(%status, "a scaler was not answered");
        }
        answer
    }
}

impl Watch {
    fn into_stream(self) -> BoxStream<'static, Result<IsActiveResponse, Status>> {
        stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            match watch.next_change().await {
                Ok(Some(result)) => Some((Ok(IsActiveResponse { result }), Some(watch))),
                Ok(None) => None,
                Err(error) => {
                    Some((watch.scaler.counted::<IsActiveResponse>(Err(error)).map(Response::into_inner), None))
                }
            }
        })
        .boxed()
    }

    /// Waits until there is something else to tell than was told last; the first time that is at once. `None`: this node
    /// stops, and KEDA is to watch another one. After a stream that ends without an error it does so within seconds.
    async fn next_change(&mut self) -> Result<Option<bool>, RequestError> {
        loop {
            tokio::select! {
                () = self.scaler.services.stopping.draining() => return Ok(None),
                _ = self.looks.tick() => {}
            }
            let is_active = self.scaler.needs_any(&self.scaling).await?;
            if self.told.replace(is_active) != Some(is_active) {
                return Ok(Some(is_active));
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.scaler.metrics.streams.dec();
    }
}

/// An error and not zero: it may have been written wrong, or this node may not have heard of it yet, and zero would take
/// all workers away.
fn not_found(queue: &str) -> Refusal {
    Refusal::QueueNotFound { queue: queue.to_owned() }
}

fn metric_spec(object: ScaledObjectRef) -> Result<GetMetricSpecResponse, RequestError> {
    let target = validate::scaling(object)?.messages_per_replica;
    let spec = MetricSpec {
        metric_name: METRIC_NAME.to_owned(),
        target_size: signed(target),
        target_size_float: target as f64,
    };
    Ok(GetMetricSpecResponse { metric_specs: vec![spec] })
}
