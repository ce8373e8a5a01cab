//! The table of what each request needs. A request that does not stand in it is made by nobody.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use dwell_proto::v1::binding::Destination;
use dwell_proto::{externalscaler, v1};

use self::Need::{Administrator, Configure, Read, User, Write};

/// What a user must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    /// To be one.
    User,
    /// To be an administrator; with the name of what is administered.
    Administrator(&'a str),
    /// Permission to configure a queue, an exchange or a schedule.
    Configure(&'a str),
    /// Permission to write to it.
    Write(&'a str),
    /// Permission to read from it.
    Read(&'a str),
}

impl fmt::Display for Need<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::User => write!(formatter, "a login"),
            Need::Administrator(_) => write!(formatter, "the rank of an administrator"),
            Need::Configure(name) => write!(formatter, "the permission to configure `{name}`"),
            Need::Write(name) => write!(formatter, "the permission to write to `{name}`"),
            Need::Read(name) => write!(formatter, "the permission to read from `{name}`"),
        }
    }
}

type Needs<'a> = Vec<Need<'a>>;
type Row = Box<dyn for<'a> Fn(&'a dyn Any) -> Option<Needs<'a>> + Send + Sync>;

/// What a request needs, all of it; `None`: it does not stand in the table.
pub fn needs_of(request: &dyn Any) -> Option<Needs<'_>> {
    TABLE.get(&request.type_id())?(request)
}

fn row<R: 'static>(needs: for<'a> fn(&'a R) -> Needs<'a>) -> (TypeId, Row) {
    (TypeId::of::<R>(), Box::new(move |request| request.downcast_ref::<R>().map(needs)))
}

static TABLE: LazyLock<HashMap<TypeId, Row>> = LazyLock::new(|| {
    HashMap::from([
        // Messages.
        row::<v1::PublishRequest>(|it| targets(&it.messages)),
        row::<v1::PublishStreamRequest>(|it| it.publish.as_ref().map_or(vec![User], |it| targets(&it.messages))),
        // What a consumer asks for later is of its queue alone.
        row::<v1::Attach>(|it| vec![Read(&it.queue)]),
        row::<v1::ReceiveRequest>(|it| vec![Read(&it.queue)]),
        row::<v1::AckRequest>(|it| vec![Read(&it.queue)]),
        row::<v1::NackRequest>(|it| vec![Read(&it.queue)]),
        row::<v1::ExtendRequest>(|it| vec![Read(&it.queue)]),
        row::<v1::TransactRequest>(|it| {
            it.acks.iter().map(|it| Read(&it.queue)).chain(targets(&it.messages)).collect()
        }),
        row::<v1::GetQueueCountsRequest>(|it| vec![Read(&it.queue)]),
        // Queues. Whose dead letters go somewhere writes there.
        row::<v1::DeclareQueueRequest>(|it| configured(&it.queue, it.settings.as_ref())),
        row::<v1::UpdateQueueRequest>(|it| configured(&it.queue, it.settings.as_ref())),
        row::<v1::DeleteQueueRequest>(|it| vec![Configure(&it.queue)]),
        row::<v1::ListQueuesRequest>(|_| vec![User]),
        row::<v1::DescribeQueueRequest>(|it| vec![Read(&it.queue)]),
        // Exchanges. A binding lets what is published to one thing reach another.
        row::<v1::DeclareExchangeRequest>(|it| {
            let alternate = (!it.alternate.is_empty()).then_some(Write(&it.alternate));
            std::iter::once(Configure(&it.exchange)).chain(alternate).collect()
        }),
        row::<v1::DeleteExchangeRequest>(|it| vec![Configure(&it.exchange)]),
        row::<v1::ListExchangesRequest>(|_| vec![User]),
        row::<v1::BindRequest>(|it| binding(it.binding.as_ref())),
        row::<v1::UnbindRequest>(|it| binding(it.binding.as_ref())),
        row::<v1::ListBindingsRequest>(|_| vec![User]),
        // Inventory. To withdraw or move a message is the right of who may publish it.
        row::<v1::RecallRequest>(|it| written(it.target.as_ref())),
        row::<v1::RescheduleRequest>(|it| written(it.target.as_ref())),
        row::<v1::ExpireNowRequest>(|it| written(it.target.as_ref())),
        row::<v1::RecallMatchingRequest>(|it| selected(it.selection.as_ref())),
        row::<v1::RescheduleMatchingRequest>(|it| selected(it.selection.as_ref())),
        row::<v1::ExpireMatchingRequest>(|it| selected(it.selection.as_ref())),
        row::<v1::GetMessageRequest>(|it| vec![Read(&it.queue)]),
        row::<v1::BrowseMessagesRequest>(|it| vec![Read(&it.queue)]),
        row::<v1::ForecastRequest>(|it| vec![Read(&it.queue)]),
        // Schedules. Who declares one publishes, again and again.
        row::<v1::DeclareScheduleRequest>(|it| {
            let message = it.definition.as_ref().and_then(|it| it.message.as_ref());
            std::iter::once(Configure(&it.schedule)).chain(message.map(target)).collect()
        }),
        row::<v1::DeleteScheduleRequest>(|it| vec![Configure(&it.schedule)]),
        row::<v1::PauseScheduleRequest>(|it| vec![Configure(&it.schedule)]),
        row::<v1::ResumeScheduleRequest>(|it| vec![Configure(&it.schedule)]),
        row::<v1::TriggerScheduleRequest>(|it| vec![Write(&it.schedule)]),
        row::<v1::DescribeScheduleRequest>(|it| vec![Read(&it.schedule)]),
        // It shows the messages of all of them.
        row::<v1::ListSchedulesRequest>(|_| vec![Administrator("")]),
        row::<v1::PreviewScheduleRequest>(|_| vec![User]),
        // The cluster. A client must find the leader; a digest reads all that there is.
        row::<v1::GetClusterStatusRequest>(|_| vec![User]),
        row::<v1::GetStateDigestRequest>(|_| vec![Administrator("")]),
        row::<v1::MakeSnapshotRequest>(|_| vec![Administrator("")]),
        // A backup is all that there is, with the hashes of passwords.
        row::<v1::GetBackupIndexRequest>(|_| vec![Administrator("")]),
        row::<v1::CreateBackupRequest>(|_| vec![Administrator("")]),
        row::<v1::AddMemberRequest>(|it| vec![Administrator(&it.peer_address)]),
        row::<v1::RemoveMemberRequest>(|_| vec![Administrator("")]),
        row::<v1::TransferLeaderRequest>(|_| vec![Administrator("")]),
        // Scalers look at queues.
        row::<externalscaler::ScaledObjectRef>(scaled),
        row::<externalscaler::GetMetricsRequest>(|it| it.scaled_object_ref.as_ref().map_or(vec![User], scaled)),
        // Users.
        row::<v1::AddUserRequest>(|it| vec![Administrator(&it.user)]),
        row::<v1::RemoveUserRequest>(|it| vec![Administrator(&it.user)]),
        row::<v1::SetPasswordRequest>(|it| vec![Administrator(&it.user)]),
        row::<v1::SetPermissionRequest>(|it| vec![Administrator(&it.user)]),
        row::<v1::ListUsersRequest>(|_| vec![Administrator("")]),
    ])
});

/// Where a message is published to: the default exchange is no place of its own, its key names the queue.
fn target(message: &v1::PublishMessage) -> Need<'_> {
    Write(if message.exchange.is_empty() { &message.routing_key } else { &message.exchange })
}

fn targets(messages: &[v1::PublishMessage]) -> Needs<'_> {
    messages.iter().map(target).collect()
}

fn configured<'a>(queue: &'a str, settings: Option<&'a v1::QueueSettings>) -> Needs<'a> {
    let dead_letter = settings.and_then(|settings| settings.dead_letter.as_ref());
    let to = dead_letter.map(|dead_letter| match dead_letter.exchange.as_str() {
        // Without a key they go where they were published to, which is this queue.
        "" => dead_letter.routing_key.as_deref().unwrap_or(queue),
        exchange => exchange,
    });
    std::iter::once(Configure(queue)).chain(to.map(Write)).collect()
}

fn binding(binding: Option<&v1::Binding>) -> Needs<'_> {
    let Some(binding) = binding else { return vec![User] };
    let destination = match &binding.destination {
        Some(Destination::Queue(name) | Destination::ToExchange(name)) => Some(Write(name)),
        None => None,
    };
    std::iter::once(Read(&binding.exchange)).chain(destination).collect()
}

fn scaled(object: &externalscaler::ScaledObjectRef) -> Needs<'_> {
    // KEDA names the key so when it has filled the value in from the workers' environment.
    let given = ["queue", "queueFromEnv"].into_iter().filter_map(|key| object.scaler_metadata.get(key));
    let needs: Needs<'_> = given.flat_map(|queues| queues.split(',')).map(|queue| Read(queue.trim())).collect();
    if needs.is_empty() { vec![User] } else { needs }
}

fn written(target: Option<&v1::Target>) -> Needs<'_> {
    target.map_or(vec![User], |target| vec![Write(&target.queue)])
}

fn selected(selection: Option<&v1::Selection>) -> Needs<'_> {
    selection.map_or(vec![User], |selection| vec![Write(&selection.queue)])
}

#[cfg(test)]
mod tests {
    use dwell_proto::externalscaler::ScaledObjectRef;

    use super::*;

    #[test]
    fn a_scaler_needs_to_read_every_queue_however_it_is_named() {
        let of = |given: &[(&str, &str)]| {
            let scaler_metadata = given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let object = ScaledObjectRef { scaler_metadata, ..ScaledObjectRef::default() };
            needs_of(&object).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(of(&[("queue", "a, b c")]), "the permission to read from `a`; the permission to read from `b c`");
        assert_eq!(of(&[("queueFromEnv", "a")]), "the permission to read from `a`");
        assert_eq!(of(&[("leadTime", "1m")]), "a login");
    }

    #[test]
    fn who_withdraws_publishes_and_whose_dead_letters_go_somewhere_writes_there() {
        let dead_letter = Some(v1::DeadLetter { exchange: "x".into(), routing_key: None });
        let settings = Some(v1::QueueSettings { dead_letter, ..Default::default() });
        let declare = v1::DeclareQueueRequest { queue: "q".into(), settings, ..Default::default() };
        assert_eq!(needs_of(&declare).unwrap(), [Configure("q"), Write("x")]);
        let target = Some(v1::Target { queue: "q".into(), ..Default::default() });
        assert_eq!(needs_of(&v1::RecallRequest { target, ..Default::default() }).unwrap(), [Write("q")]);
        assert_eq!(needs_of(&String::new()), None, "what does not stand in the table is made by nobody");
    }
}
