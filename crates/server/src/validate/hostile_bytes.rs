//! Requests that somebody tampered with, from their bytes to the command that becomes of them: refused with the field's
//! name, or a command that goes through the log and the machine.

use std::collections::BTreeMap;

use bytes::Bytes;
use dwell_hostile_bytes::{Bound, cases, decode_within, must, tampered, unharmed};
use dwell_machine::{Batch, Command, Machine, MemoryStore, MessageState, Revision};
use dwell_proto::externalscaler::ScaledObjectRef;
use dwell_proto::request::{RequestError, decode};
use dwell_proto::v1;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const SOON_MS: i64 = NOW_MS as i64 + 1000;
const LIMITS: Limits = Limits { body_bytes_max: 1024 };

/// What becomes of a request: a command, or nothing that changes anything.
type Convert = fn(Bytes) -> Result<Option<Command>, Refused>;

#[derive(Debug)]
enum Refused {
    /// It is no such message.
    Undecodable,
    Invalid(Invalid),
}

impl From<RequestError> for Refused {
    fn from(_: RequestError) -> Refused {
        Refused::Undecodable
    }
}

impl From<Invalid> for Refused {
    fn from(invalid: Invalid) -> Refused {
        Refused::Invalid(invalid)
    }
}

fn as_publish(bytes: Bytes) -> Result<Option<Command>, Refused> {
    Ok(Some(Command::Publish(publish(decode::<v1::PublishRequest>(bytes)?, &LIMITS, NOW_MS)?)))
}

fn as_transact(bytes: Bytes) -> Result<Option<Command>, Refused> {
    Ok(Some(Command::Transact(transact(decode::<v1::TransactRequest>(bytes)?, &LIMITS, NOW_MS)?)))
}

fn as_consume(bytes: Bytes) -> Result<Option<Command>, Refused> {
    use v1::consume_request::Request;
    let queue = || "q".to_owned();
    Ok(match decode::<v1::ConsumeRequest>(bytes)?.request {
        Some(Request::Attach(given)) => {
            // The server makes an id for who has none.
            let mut command = attach(given)?;
            command.consumer_id.push('x');
            Some(Command::Attach(command))
        }
        Some(Request::Ack(given)) => Some(Command::Ack(ack(queue(), given.leases)?)),
        Some(Request::Nack(given)) => Some(Command::Nack(nack(queue(), given.leases, given.delay_ms, given.reject)?)),
        Some(Request::Extend(given)) => Some(Command::Extend(extend(queue(), given.leases, given.lease_timeout_ms)?)),
        Some(Request::Credit(given)) => {
            credit("credit", given.credit)?;
            None
        }
        Some(Request::Close(_) | Request::Detach(_)) | None => None,
    })
}

fn as_receive(bytes: Bytes) -> Result<Option<Command>, Refused> {
    Ok(Some(Command::Receive(receive(decode::<v1::ReceiveRequest>(bytes)?)?.0)))
}

fn as_declare_queue(bytes: Bytes) -> Result<Option<Command>, Refused> {
    let request = decode::<v1::DeclareQueueRequest>(bytes)?;
    namespace(&request.namespace)?;
    name("queue", &request.queue)?;
    let settings = queue_settings(request.settings)?;
    Ok(Some(Command::DeclareQueue(dwell_machine::DeclareQueue { queue: request.queue, settings })))
}

fn as_update_queue(bytes: Bytes) -> Result<Option<Command>, Refused> {
    Ok(Some(Command::UpdateQueue(update_queue(decode::<v1::UpdateQueueRequest>(bytes)?)?)))
}

fn as_declare_exchange(bytes: Bytes) -> Result<Option<Command>, Refused> {
    Ok(Some(Command::DeclareExchange(declare_exchange(decode::<v1::DeclareExchangeRequest>(bytes)?)?)))
}

fn as_bind(bytes: Bytes) -> Result<Option<Command>, Refused> {
    Ok(Some(Command::Bind(binding(decode::<v1::BindRequest>(bytes)?.binding)?)))
}

fn as_reschedule(bytes: Bytes) -> Result<Option<Command>, Refused> {
    let request = decode::<v1::RescheduleRequest>(bytes)?;
    let revision = Some(Revision::Reschedule(new_time(request.time, NOW_MS)?));
    let Named { queue, by, revoke, after } = target(request.target)?;
    Ok(Some(match by {
        v1::target::By::Sequences(v1::Sequences { sequences }) => {
            Command::Revise(dwell_machine::Revise { queue, sequences, revoke, revision })
        }
        v1::target::By::MessageId(message_id) => {
            Command::ReviseById(dwell_machine::ReviseById { queue, message_id, revoke, after, revision })
        }
    }))
}

fn as_reschedule_matching(bytes: Bytes) -> Result<Option<Command>, Refused> {
    let request = decode::<v1::RescheduleMatchingRequest>(bytes)?;
    let revision = Some(Revision::Reschedule(new_time(request.time, NOW_MS)?));
    let Selected { queue, filter, revoke } = selection(request.selection, NOW_MS)?;
    let command = dwell_machine::ReviseMatching { queue, filter, revoke, cursor: Bytes::new(), revision };
    Ok(Some(Command::ReviseMatching(command)))
}

fn as_browse(bytes: Bytes) -> Result<Option<Command>, Refused> {
    let request = decode::<v1::BrowseMessagesRequest>(bytes)?;
    let (state, page_size) = browse(&request)?;
    let (machine, store) = with_a_queue();
    // A token of any kind is refused, or is a place to begin.
    let _ = machine.browse(&store, "q", state, &request.page_token, page_size, request.with_bodies).unwrap();
    Ok(None)
}

fn as_forecast(bytes: Bytes) -> Result<Option<Command>, Refused> {
    let horizons_ms = forecast(&decode::<v1::ForecastRequest>(bytes)?)?;
    let (machine, store) = with_a_queue();
    machine.forecast(&store, "q", NOW_MS, &horizons_ms).unwrap();
    Ok(None)
}

fn as_declare_schedule(bytes: Bytes) -> Result<Option<Command>, Refused> {
    let request = decode::<v1::DeclareScheduleRequest>(bytes)?;
    Ok(Some(Command::DeclareSchedule(declare_schedule(request, &LIMITS, NOW_MS, NOW_MS)?)))
}

fn as_preview(bytes: Bytes) -> Result<Option<Command>, Refused> {
    let (definition, next_max) = preview(decode::<v1::PreviewScheduleRequest>(bytes)?, NOW_MS)?;
    let due = dwell_machine::preview(&definition, NOW_MS, next_max.min(20)).unwrap();
    assert!(due.is_sorted());
    Ok(None)
}

fn as_scaling(bytes: Bytes) -> Result<Option<Command>, Refused> {
    scaling(decode::<ScaledObjectRef>(bytes)?)?;
    Ok(None)
}

fn as_add_member(bytes: Bytes) -> Result<Option<Command>, Refused> {
    add_member(decode::<v1::AddMemberRequest>(bytes)?)?;
    Ok(None)
}

fn message() -> v1::PublishMessage {
    let content = v1::Message {
        body: Bytes::from_static(b"body"),
        headers: BTreeMap::from([("trace".to_owned(), "1".to_owned())]),
        content_type: "text/plain".to_owned(),
        message_id: "m".to_owned(),
        priority: 3,
        ..Default::default()
    };
    let visible = Some(v1::timing::Visible::DelayMs(1000));
    let timing = v1::Timing { visible, ttl_ms: Some(60_000), expire_at_ms: Some(SOON_MS) };
    v1::PublishMessage {
        routing_key: "q".to_owned(),
        message: Some(content),
        timing: Some(timing),
        dedupe_id: "d".to_owned(),
        group: "g".to_owned(),
        ..Default::default()
    }
}

fn producer() -> Option<v1::ProducerSequence> {
    Some(v1::ProducerSequence { producer_id: "p".to_owned(), sequence: 1 })
}

fn settings() -> v1::QueueSettings {
    v1::QueueSettings {
        lease_timeout_ms: 1000,
        delivery_limit: 3,
        messages_max: 10,
        overflow: 3,
        dead_letter: Some(v1::DeadLetter { exchange: String::new(), routing_key: Some("q".to_owned()) }),
        priority_max: Some(9),
        backoff: Some(v1::Backoff { kind: 3, base_ms: 100, cap_ms: 1000, jitter_percent: 10 }),
        aging_ms: 1000,
        ..Default::default()
    }
}

fn definitions() -> Vec<v1::ScheduleDefinition> {
    use v1::schedule_definition::Recurrence;
    let cron = v1::Cron { expression: "*/5 2-4 1,L * MON#2".to_owned(), time_zone: "Europe/Vienna".to_owned() };
    let patterns = [
        Recurrence::Cron(cron),
        Recurrence::Interval(v1::Interval { every_ms: 1000, anchor_ms: Some(SOON_MS) }),
        Recurrence::Dates(v1::Dates { at_ms: vec![SOON_MS, SOON_MS + 1] }),
    ];
    let recurring = v1::PublishMessage { timing: None, ..message() };
    let definition = |recurrence| v1::ScheduleDefinition {
        recurrence: Some(recurrence),
        start_at_ms: Some(SOON_MS),
        end_at_ms: Some(SOON_MS + 1_000_000),
        jitter_ms: 10,
        misfire: 3,
        misfires_max: 4,
        message: Some(recurring.clone()),
        ..Default::default()
    };
    patterns.map(definition).into()
}

/// Every kind of request that has something to be checked, with what becomes of it.
fn requests() -> Vec<(Bytes, Convert)> {
    let mut requests: Vec<(Bytes, Convert)> = Vec::new();
    let mut add = |request: Vec<u8>, convert: Convert| requests.push((request.into(), convert));
    let namespace = || "default".to_owned();
    let queue = || "q".to_owned();
    let leases = || vec![v1::Lease { sequence: 1, token: 1 }, v1::Lease { sequence: 2, token: 300 }];
    let messages = vec![message(), v1::PublishMessage { routing_key: queue(), ..Default::default() }];
    let published = v1::PublishRequest { namespace: namespace(), messages: messages.clone(), producer: producer() };
    add(published.encode_to_vec(), as_publish);
    let acks = vec![v1::QueueLeases { queue: queue(), leases: leases() }];
    let transaction = v1::TransactRequest { namespace: namespace(), acks, messages, producer: producer() };
    add(transaction.encode_to_vec(), as_transact);
    use v1::consume_request::Request;
    for request in [
        Request::Attach(v1::Attach {
            queue: queue(),
            consumer_id: "c".to_owned(),
            credit: 10,
            session_timeout_ms: 1000,
            holding: leases(),
            ..Default::default()
        }),
        Request::Ack(v1::SettleAck { request_id: 1, leases: leases() }),
        Request::Nack(v1::SettleNack { request_id: 1, leases: leases(), delay_ms: Some(5), reject: false }),
        Request::Extend(v1::SettleExtend { request_id: 1, leases: leases(), lease_timeout_ms: 1000 }),
        Request::Credit(v1::SetCredit { credit: 5 }),
    ] {
        add(v1::ConsumeRequest { request: Some(request), consumer: 7 }.encode_to_vec(), as_consume);
    }
    let received = v1::ReceiveRequest {
        queue: queue(),
        messages_max: 3,
        wait_ms: 10,
        lease_timeout_ms: 500,
        ..Default::default()
    };
    add(received.encode_to_vec(), as_receive);
    let declared =
        v1::DeclareQueueRequest { namespace: namespace(), queue: "r".to_owned(), settings: Some(settings()) };
    add(declared.encode_to_vec(), as_declare_queue);
    let fields = ["delivery_limit", "dead_letter", "backoff", "aging_ms"].map(str::to_owned).into();
    let updated = v1::UpdateQueueRequest { namespace: namespace(), queue: queue(), settings: Some(settings()), fields };
    add(updated.encode_to_vec(), as_update_queue);
    let exchange = v1::DeclareExchangeRequest {
        namespace: namespace(),
        exchange: "e".to_owned(),
        kind: 2,
        alternate: "a".to_owned(),
    };
    add(exchange.encode_to_vec(), as_declare_exchange);
    let binding = v1::Binding {
        exchange: "e".to_owned(),
        destination: Some(v1::binding::Destination::Queue(queue())),
        routing_key: "a.*.#".to_owned(),
        headers: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        match_any: true,
    };
    add(v1::BindRequest { binding: Some(binding), ..Default::default() }.encode_to_vec(), as_bind);
    let time = || Some(v1::NewTime { visible: Some(v1::new_time::Visible::DeliverAtMs(SOON_MS)) });
    for by in [
        v1::target::By::Sequences(v1::Sequences { sequences: vec![1, 2, 300] }),
        v1::target::By::MessageId("m".to_owned()),
    ] {
        let target = Some(v1::Target { queue: queue(), by: Some(by), revoke: true, after: 1 });
        add(v1::RescheduleRequest { target, time: time(), ..Default::default() }.encode_to_vec(), as_reschedule);
    }
    let filter = v1::Filter {
        states: vec![1, 2, 3],
        headers: BTreeMap::from([("trace".to_owned(), "1".to_owned())]),
        due_from_ms: Some(SOON_MS),
        due_before_ms: Some(SOON_MS + 1),
        priority_min: 1,
        priority_max: Some(9),
    };
    let selection = Some(v1::Selection { queue: queue(), filter: Some(filter), revoke: true });
    let matching = v1::RescheduleMatchingRequest { selection, time: time(), ..Default::default() };
    add(matching.encode_to_vec(), as_reschedule_matching);
    let browsed = v1::BrowseMessagesRequest {
        queue: queue(),
        state: 1,
        page_size: 10,
        page_token: a_page_token(),
        with_bodies: true,
        ..Default::default()
    };
    add(browsed.encode_to_vec(), as_browse);
    let foreseen = v1::ForecastRequest { queue: queue(), horizons_ms: vec![0, 60_000], ..Default::default() };
    add(foreseen.encode_to_vec(), as_forecast);
    for definition in definitions() {
        let definition = Some(definition);
        let previewed = v1::PreviewScheduleRequest { definition: definition.clone(), next_max: 5 };
        add(previewed.encode_to_vec(), as_preview);
        let schedule = "s".to_owned();
        let declared = v1::DeclareScheduleRequest { namespace: namespace(), schedule, definition, replace: true };
        add(declared.encode_to_vec(), as_declare_schedule);
    }
    let member = v1::AddMemberRequest {
        node_id: 4,
        peer_address: "node-4:7601".to_owned(),
        client_address: "node-4:7600".to_owned(),
        catch_up_timeout_ms: 1000,
    };
    add(member.encode_to_vec(), as_add_member);
    let given = [("queue", "q, r"), ("messagesPerReplica", "10"), ("leadTime", "1h 30m"), ("countLeased", "false")];
    let scaler_metadata = given.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    add(ScaledObjectRef { scaler_metadata, ..Default::default() }.encode_to_vec(), as_scaling);
    requests
}

/// A machine with one queue, and some messages in it, of which two are leased.
fn with_a_queue() -> (Machine, MemoryStore) {
    let mut store = MemoryStore::default();
    let mut machine = Machine::open(&store).unwrap();
    let declared = dwell_machine::DeclareQueue { queue: "q".to_owned(), settings: queue_settings(None).unwrap() };
    let now = v1::PublishMessage { routing_key: "q".to_owned(), ..Default::default() };
    let later = v1::PublishMessage { dedupe_id: String::new(), group: String::new(), ..message() };
    let messages = vec![now.clone(), now.clone(), now, later.clone(), later];
    let published = v1::PublishRequest { messages, ..Default::default() };
    let received = dwell_machine::Receive { queue: "q".to_owned(), messages_max: 2, lease_timeout_ms: 0 };
    let commands = vec![
        Command::DeclareQueue(declared),
        Command::Publish(publish(published, &LIMITS, NOW_MS).unwrap()),
        Command::Receive(received),
    ];
    machine.apply(&mut store, NOW_MS, commands).unwrap();
    (machine, store)
}

fn a_page_token() -> Bytes {
    let (machine, store) = with_a_queue();
    let page = machine.browse(&store, "q", MessageState::Scheduled, &Bytes::new(), 1, false).unwrap().unwrap();
    page.next.unwrap()
}

/// A message takes the most room, and is there twice while it is converted.
fn bound() -> Bound {
    Bound::elements(size_of::<v1::PublishMessage>() + size_of::<dwell_machine::PublishMessage>())
}

/// Has everything made that is made once for the whole process, such as the shapes of requests: it is no case's doing.
fn made_once() {
    static MADE: std::sync::Once = std::sync::Once::new();
    MADE.call_once(|| requests().into_iter().for_each(|(request, convert)| drop(convert(request))));
}

#[test]
fn every_request_is_accepted_as_it_was_before_it_was_tampered_with() {
    for (position, (request, convert)) in requests().into_iter().enumerate() {
        assert!(convert(request).is_ok(), "request {position}");
    }
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn a_tampered_request_is_refused_or_becomes_a_command_that_can_be_applied(
        (bytes, convert) in select(requests()).prop_flat_map(|(bytes, convert)| (tampered(Just(bytes), 0), Just(convert))),
    ) {
        made_once();
        // The machine that a page is read of is made within.
        let bound = Bound { constant: 256 * 1024, ..bound() };
        let command = match decode_within(bytes.len(), bound, || convert(bytes.clone()))? {
            Ok(command) => command,
            Err(Refused::Undecodable) => None,
            Err(Refused::Invalid(Invalid { field, problem })) => {
                prop_assert!(!field.is_empty() && !problem.is_empty());
                None
            }
        };
        let Some(command) = command else { return Ok(()) };
        let (_, mut commands) = must(Batch::decode(Batch::encode(NOW_MS, [command.clone()])))?;
        prop_assert_eq!(commands.pop(), Some(command.clone()));
        let (mut machine, mut store) = with_a_queue();
        // And what it left behind goes on.
        for (at_ms, command) in [
            (NOW_MS, command),
            (NOW_MS + 2000, Command::Release(dwell_machine::Release {})),
            (NOW_MS + 100_000_000, Command::Release(dwell_machine::Release {})),
        ] {
            must(unharmed(|| machine.apply(&mut store, at_ms, vec![command]))?)?;
        }
        must(unharmed(|| Machine::open(&store))?)?;
    }
}
