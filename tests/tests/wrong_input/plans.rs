//! Routing, policies, revisions, schedules, transactions.

use dwell_proto::v1::schedule_definition::Recurrence;
use dwell_proto::v1::target::By;
use dwell_proto::v1::{
    Backoff, BindRequest, Binding, BrowseMessagesRequest, Cron, Dates, DeclareExchangeRequest, DeclareScheduleRequest,
    DeleteExchangeRequest, DeleteScheduleRequest, ExchangeKind, Filter, ForecastRequest, GetMessageRequest, Interval,
    Lease, MessageState, Overflow, QueueLeases, QueueSettings, RecallMatchingRequest, RecallRequest,
    ScheduleDefinition, Selection, Sequences, Target, TransactRequest, UpdateQueueRequest, binding,
};
use dwell_tests::raw::{RawClient, message};
use tonic::Code;

use crate::checks::Checks;
use crate::{UNKNOWN, UNTOUCHED};

const INVALID: Code = Code::InvalidArgument;

pub async fn check(checks: &mut Checks, client: &mut RawClient) {
    routing(checks, client).await;
    settings(checks, client).await;
    updates(checks, client).await;
    revisions(checks, client).await;
    looking(checks, client).await;
    schedules(checks, client).await;
    transactions(checks, client).await;
}

async fn routing(checks: &mut Checks, client: &mut RawClient) {
    let declare = |exchange: &str, kind: ExchangeKind| DeclareExchangeRequest {
        exchange: exchange.to_owned(),
        kind: kind.into(),
        ..Default::default()
    };
    let result = client.exchanges.declare_exchange(declare("", ExchangeKind::Topic)).await;
    checks.refused("an exchange without a name", result, INVALID, "exchange");
    let result = client.exchanges.declare_exchange(declare("never-made", ExchangeKind::Unspecified)).await;
    checks.refused("an exchange of no kind", result, INVALID, "kind");
    client.exchanges.declare_exchange(declare("fixed", ExchangeKind::Topic)).await.unwrap();
    let result = client.exchanges.declare_exchange(declare("fixed", ExchangeKind::Direct)).await;
    checks.refused("an exchange of another kind", result, Code::AlreadyExists, "kind");
    let request = DeleteExchangeRequest { exchange: UNKNOWN.to_owned(), ..Default::default() };
    checks.refused("delete it", client.exchanges.delete_exchange(request).await, Code::NotFound, UNKNOWN);
    for (exchange, queue) in [("fixed", UNKNOWN), (UNKNOWN, UNTOUCHED)] {
        let destination = Some(binding::Destination::Queue(queue.to_owned()));
        let binding = Some(Binding { exchange: exchange.to_owned(), destination, ..Default::default() });
        let result = client.exchanges.bind(BindRequest { binding, ..Default::default() }).await;
        checks.refused(&format!("bind {queue} to {exchange}"), result, Code::NotFound, UNKNOWN);
    }
    let mut mandatory = message("nobody.listens", "x", None);
    mandatory.exchange = "fixed".to_owned();
    mandatory.mandatory = true;
    let result = client.publish(vec![mandatory, message(UNTOUCHED, "x", None)]).await;
    checks.refused("a mandatory message for nobody", result, Code::FailedPrecondition, "mandatory");
    let mut lost = message("x", "x", None);
    lost.exchange = UNKNOWN.to_owned();
    checks.refused("an unknown exchange", client.publish(vec![lost]).await, Code::NotFound, UNKNOWN);
}

async fn settings(checks: &mut Checks, client: &mut RawClient) {
    let none = QueueSettings::default;
    let backoff = |base_ms, jitter_percent| Some(Backoff { base_ms, jitter_percent, ..Default::default() });
    for (settings, field) in [
        (QueueSettings { default_delay_ms: -1, ..none() }, "default_delay_ms"),
        (QueueSettings { message_ttl_ms: i64::MAX, ..none() }, "message_ttl_ms"),
        (QueueSettings { idle_ttl_ms: -1, ..none() }, "idle_ttl_ms"),
        (QueueSettings { dedupe_window_ms: i64::MAX, ..none() }, "dedupe_window_ms"),
        (QueueSettings { priority_max: Some(256), ..none() }, "priority_max"),
        (QueueSettings { aging_ms: 1, ..none() }, "aging_ms"),
        (QueueSettings { backoff: backoff(0, 0), ..none() }, "backoff.base_ms"),
        (QueueSettings { backoff: backoff(1, 101), ..none() }, "backoff.jitter_percent"),
    ] {
        checks.refused(field, client.declare("never-made", settings).await, INVALID, field);
    }
    let other = QueueSettings { overflow: Overflow::DropHead.into(), ..none() };
    checks.refused("another overflow", client.declare(UNTOUCHED, other).await, Code::AlreadyExists, "overflow");
}

async fn updates(checks: &mut Checks, client: &mut RawClient) {
    for (queue, fields, code, names) in [
        (UNKNOWN, vec!["paused"], Code::NotFound, UNKNOWN),
        (UNTOUCHED, vec![], INVALID, "fields"),
        (UNTOUCHED, vec!["colour"], INVALID, "colour"),
        (UNTOUCHED, vec!["paused", "priority_max"], Code::FailedPrecondition, "priority_max"),
    ] {
        let fields = fields.into_iter().map(str::to_owned).collect();
        let settings = Some(QueueSettings { paused: true, ..Default::default() });
        let request = UpdateQueueRequest { queue: queue.to_owned(), settings, fields, ..Default::default() };
        checks.refused("update", client.queues.update_queue(request).await, code, names);
    }
}

async fn revisions(checks: &mut Checks, client: &mut RawClient) {
    let target = |queue: &str, by| Some(Target { queue: queue.to_owned(), by, ..Default::default() });
    let sequences = |count| Some(By::Sequences(Sequences { sequences: vec![u64::MAX; count] }));
    for (target, code, names) in [
        (None, INVALID, "target"),
        (target(UNKNOWN, sequences(1)), Code::NotFound, UNKNOWN),
        (target(UNTOUCHED, None), INVALID, "target"),
        (target(UNTOUCHED, sequences(0)), INVALID, "sequences"),
        (target(UNTOUCHED, sequences(1001)), INVALID, "sequences"),
        (target(UNTOUCHED, Some(By::MessageId(String::new()))), INVALID, "message_id"),
    ] {
        let request = RecallRequest { target, ..Default::default() };
        checks.refused("recall", client.inventory.recall(request).await, code, names);
    }
    // Seconds in place of milliseconds would recall everything.
    let filter = Some(Filter { due_from_ms: Some(1_700_000_000), ..Default::default() });
    let selection = Some(Selection { queue: UNTOUCHED.to_owned(), filter, revoke: true });
    let request = RecallMatchingRequest { selection, ..Default::default() };
    let result = client.inventory.recall_matching(request).await;
    checks.refused("recall by a time in seconds", result, INVALID, "due_from_ms");
}

async fn looking(checks: &mut Checks, client: &mut RawClient) {
    let browse = |state: MessageState, page_size, page_token: &'static [u8]| BrowseMessagesRequest {
        queue: UNTOUCHED.to_owned(),
        state: state.into(),
        page_size,
        page_token: page_token.into(),
        ..Default::default()
    };
    for (request, names) in [
        (browse(MessageState::Unspecified, 1, b""), "state"),
        (browse(MessageState::Ready, 1001, b""), "page_size"),
        (browse(MessageState::Ready, 1, b"nonsense"), "cursor"),
    ] {
        checks.refused("browse", client.inventory.browse_messages(request).await, INVALID, names);
    }
    let request = GetMessageRequest { queue: UNTOUCHED.to_owned(), sequence: u64::MAX, ..Default::default() };
    checks.refused("an unknown message", client.inventory.get_message(request).await, Code::NotFound, UNTOUCHED);
    for horizons_ms in [vec![-1], vec![1; 101]] {
        let request = ForecastRequest { queue: UNTOUCHED.to_owned(), horizons_ms, ..Default::default() };
        checks.refused("forecast", client.inventory.forecast(request).await, INVALID, "horizons_ms");
    }
}

async fn schedules(checks: &mut Checks, client: &mut RawClient) {
    let cron = |expression: &str, time_zone: &str| {
        Some(Recurrence::Cron(Cron { expression: expression.to_owned(), time_zone: time_zone.to_owned() }))
    };
    for (recurrence, names) in [
        (None, "recurrence"),
        (cron("61 * * * *", "UTC"), "cron"),
        (cron("0 0 30 2 *", "UTC"), "cron"),
        (cron("0 0 * * *", "Mars/Olympus"), "time_zone"),
        (Some(Recurrence::Interval(Interval { every_ms: 99, anchor_ms: None })), "every_ms"),
        (Some(Recurrence::Dates(Dates { at_ms: vec![] })), "dates"),
    ] {
        let message = Some(message(UNTOUCHED, "x", None));
        let definition = Some(ScheduleDefinition { recurrence, message, ..Default::default() });
        let request = DeclareScheduleRequest { schedule: "never-made".to_owned(), definition, ..Default::default() };
        checks.refused("a schedule", client.schedules.declare_schedule(request).await, INVALID, names);
    }
    let request = DeleteScheduleRequest { schedule: UNKNOWN.to_owned(), ..Default::default() };
    checks.refused("an unknown schedule", client.schedules.delete_schedule(request).await, Code::NotFound, UNKNOWN);
}

async fn transactions(checks: &mut Checks, client: &mut RawClient) {
    let forged = QueueLeases { queue: UNTOUCHED.to_owned(), leases: vec![Lease { sequence: 1, token: 77 }] };
    let messages = vec![message(UNTOUCHED, "x", None)];
    let request = TransactRequest { acks: vec![forged], messages, ..Default::default() };
    let result = client.messages.transact(request).await;
    checks.refused("a transaction with a lost lease", result, Code::FailedPrecondition, UNTOUCHED);
    let result = client.messages.transact(TransactRequest::default()).await;
    checks.refused("a transaction of nothing", result, INVALID, "acks");
}
