//! `dwell.v1.Schedules`.

use dwell_consensus::group::Consistency;
use dwell_machine::{
    Command, ControlSchedule, DeleteSchedule, Pattern, Refusal, Reply, ScheduleControl, ScheduleDefinition,
    ScheduleView,
};
use dwell_proto::v1;
use dwell_proto::v1::schedule_definition::Recurrence;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::definitions::{firing_of, schedule_of};
use super::{Page, Services, after, consistency, signed};
use crate::status::RequestError;
use crate::validate;

#[tonic::async_trait]
impl v1::schedules_server::Schedules for Services {
    #[tracing::instrument(skip_all, fields(schedule = %request.get_ref().schedule))]
    async fn declare_schedule(
        &self,
        request: Request<v1::DeclareScheduleRequest>,
    ) -> Result<Response<v1::DeclareScheduleResponse>, Status> {
        let request = request.into_inner();
        let now_ms = self.clock.now_ms();
        let anchor_ms = self.anchor_ms(&request, now_ms).await?;
        let command =
            validate::declare_schedule(request, &self.limits, now_ms, anchor_ms).map_err(RequestError::from)?;
        match self.propose(Command::DeclareSchedule(command)).await? {
            Reply::ScheduleDeclared { created } => Ok(Response::new(v1::DeclareScheduleResponse { created })),
            _ => Err(RequestError::UnexpectedReply.into()),
        }
    }

    #[tracing::instrument(skip_all, fields(schedule = %request.get_ref().schedule))]
    async fn delete_schedule(
        &self,
        request: Request<v1::DeleteScheduleRequest>,
    ) -> Result<Response<v1::DeleteScheduleResponse>, Status> {
        let request = request.into_inner();
        check(&request.namespace, &request.schedule)?;
        self.done(Command::DeleteSchedule(DeleteSchedule { schedule: request.schedule })).await?;
        Ok(Response::new(v1::DeleteScheduleResponse {}))
    }

    #[tracing::instrument(skip_all, fields(schedule = %request.get_ref().schedule))]
    async fn pause_schedule(
        &self,
        request: Request<v1::PauseScheduleRequest>,
    ) -> Result<Response<v1::PauseScheduleResponse>, Status> {
        let request = request.into_inner();
        check(&request.namespace, &request.schedule)?;
        self.done(control(request.schedule, ScheduleControl::Pause)).await?;
        Ok(Response::new(v1::PauseScheduleResponse {}))
    }

    #[tracing::instrument(skip_all, fields(schedule = %request.get_ref().schedule))]
    async fn resume_schedule(
        &self,
        request: Request<v1::ResumeScheduleRequest>,
    ) -> Result<Response<v1::ResumeScheduleResponse>, Status> {
        let request = request.into_inner();
        check(&request.namespace, &request.schedule)?;
        self.done(control(request.schedule, ScheduleControl::Resume)).await?;
        Ok(Response::new(v1::ResumeScheduleResponse {}))
    }

    #[tracing::instrument(skip_all, fields(schedule = %request.get_ref().schedule))]
    async fn trigger_schedule(
        &self,
        request: Request<v1::TriggerScheduleRequest>,
    ) -> Result<Response<v1::TriggerScheduleResponse>, Status> {
        let request = request.into_inner();
        check(&request.namespace, &request.schedule)?;
        match self.propose(control(request.schedule, ScheduleControl::Trigger)).await? {
            Reply::Triggered { firing } => {
                Ok(Response::new(v1::TriggerScheduleResponse { firing: Some(firing_of(firing)) }))
            }
            _ => Err(RequestError::UnexpectedReply.into()),
        }
    }

    #[tracing::instrument(skip_all, fields(schedule = %request.get_ref().schedule))]
    async fn describe_schedule(
        &self,
        request: Request<v1::DescribeScheduleRequest>,
    ) -> Result<Response<v1::DescribeScheduleResponse>, Status> {
        let consistency = consistency(request.metadata());
        let request = request.into_inner();
        check(&request.namespace, &request.schedule)?;
        let next_max = validate::next_max(request.next_max, 0).map_err(RequestError::from)?;
        let mut view = self
            .schedule_view(consistency, &request.schedule)
            .await?
            .ok_or_else(|| RequestError::from(Refusal::ScheduleNotFound { schedule: request.schedule }))?;
        let next_due_ms = next_due_of(&view, next_max).await?;
        let history = std::mem::take(&mut view.history);
        Ok(Response::new(v1::DescribeScheduleResponse {
            schedule: Some(schedule_of(view)),
            history: history.into_iter().map(firing_of).collect(),
            next_due_ms,
        }))
    }

    #[tracing::instrument(skip_all)]
    async fn list_schedules(
        &self,
        request: Request<v1::ListSchedulesRequest>,
    ) -> Result<Response<v1::ListSchedulesResponse>, Status> {
        let consistency = consistency(request.metadata());
        Ok(Response::new(self.page_of_schedules(consistency, request.into_inner()).await?))
    }

    #[tracing::instrument(skip_all)]
    async fn preview_schedule(
        &self,
        request: Request<v1::PreviewScheduleRequest>,
    ) -> Result<Response<v1::PreviewScheduleResponse>, Status> {
        let now_ms = self.clock.now_ms();
        let (definition, next_max) = validate::preview(request.into_inner(), now_ms).map_err(RequestError::from)?;
        let next_due_ms = due_after(definition, now_ms, next_max).await?;
        Ok(Response::new(v1::PreviewScheduleResponse { next_due_ms }))
    }
}

impl Services {
    async fn schedule_view(
        &self,
        consistency: Consistency,
        schedule: &str,
    ) -> Result<Option<ScheduleView>, RequestError> {
        let name = schedule.to_owned();
        Ok(self.group.read(consistency, move |machine| machine.schedule(&name, 0)).await?)
    }

    /// What an interval without start and anchor counts from: now, or, if the schedule is there with the same
    /// interval, what it counts from already. Declared again, it is the same schedule then.
    async fn anchor_ms(&self, request: &v1::DeclareScheduleRequest, now_ms: u64) -> Result<u64, RequestError> {
        let Some(every_ms) = unanchored(request) else { return Ok(now_ms) };
        check(&request.namespace, &request.schedule)?;
        let existing = self.schedule_view(Consistency::Linearizable, &request.schedule).await?;
        Ok(existing.and_then(|view| anchor_of(&view.definition, every_ms)).unwrap_or(now_ms))
    }

    async fn page_of_schedules(
        &self,
        consistency: Consistency,
        request: v1::ListSchedulesRequest,
    ) -> Result<v1::ListSchedulesResponse, RequestError> {
        validate::namespace(&request.namespace)?;
        let page_size = validate::page_size(request.page_size)?;
        let after = after(request.page_token);
        let schedules = self
            .group
            .read(consistency, move |machine| machine.schedules(&request.prefix, after.as_deref(), page_size + 1))
            .await?;
        let page = Page::of_large(schedules, page_size, |schedule| schedule.definition.encoded_len());
        Ok(v1::ListSchedulesResponse {
            next_page_token: page.last().map(|schedule| schedule.name.clone()).unwrap_or_default(),
            schedules: page.items.into_iter().map(schedule_of).collect(),
        })
    }
}

fn check(namespace: &str, schedule: &str) -> Result<(), RequestError> {
    validate::namespace(namespace)?;
    Ok(validate::name("schedule", schedule)?)
}

fn control(schedule: String, control: ScheduleControl) -> Command {
    Command::ControlSchedule(ControlSchedule { schedule, control: control.into() })
}

/// The due times of a schedule from the one on that it waits for. They are computed here, so that the machine can
/// go on meanwhile.
async fn next_due_of(view: &ScheduleView, next_max: usize) -> Result<Vec<i64>, RequestError> {
    if view.next_due_ms == 0 || next_max == 0 {
        return Ok(Vec::new());
    }
    let further = due_after(view.definition.clone(), view.next_due_ms, next_max - 1).await?;
    Ok(std::iter::once(signed(view.next_due_ms)).chain(further).collect())
}

/// A thousand due times that lie far apart take a while to find: not on a thread that serves others.
async fn due_after(definition: ScheduleDefinition, after_ms: u64, limit: usize) -> Result<Vec<i64>, RequestError> {
    let due = dwell_consensus::blocking::apart(move || dwell_machine::preview(&definition, after_ms, limit));
    let due = due.await.map_err(|_| RequestError::UnexpectedReply)??;
    Ok(due.into_iter().map(signed).collect())
}

/// The interval of a definition that says nothing of what it counts from.
fn unanchored(request: &v1::DeclareScheduleRequest) -> Option<u64> {
    let definition = request.definition.as_ref()?;
    match &definition.recurrence {
        Some(Recurrence::Interval(interval)) if interval.anchor_ms.is_none() && definition.start_at_ms.is_none() => {
            u64::try_from(interval.every_ms).ok()
        }
        _ => None,
    }
}

fn anchor_of(definition: &ScheduleDefinition, every_ms: u64) -> Option<u64> {
    match &definition.recurrence.pattern {
        Some(Pattern::Interval(interval)) if interval.every_ms == every_ms => Some(interval.anchor_ms),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(every_ms: i64, anchor_ms: Option<i64>, start_at_ms: Option<i64>) -> v1::DeclareScheduleRequest {
        let recurrence = Some(Recurrence::Interval(v1::Interval { every_ms, anchor_ms }));
        let definition = Some(v1::ScheduleDefinition { recurrence, start_at_ms, ..Default::default() });
        v1::DeclareScheduleRequest { definition, ..Default::default() }
    }

    #[test]
    fn only_an_interval_without_anchor_and_start_keeps_the_anchor_that_it_had() {
        assert_eq!(unanchored(&every(1000, None, None)), Some(1000));
        assert_eq!(unanchored(&every(1000, Some(5), None)), None);
        assert_eq!(unanchored(&every(1000, None, Some(5))), None);
        assert_eq!(unanchored(&every(-1, None, None)), None);
        assert_eq!(unanchored(&v1::DeclareScheduleRequest::default()), None);
    }
}
