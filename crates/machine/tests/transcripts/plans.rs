//! Reads the commands of a transcript that are about exchanges, revisions and schedules.

use dwell_machine::{
    Binding, Command, ControlSchedule, Cron, Dates, DeclareExchange, DeclareSchedule, DeleteExchange, DeleteSchedule,
    DestinationKind, ExchangeKind, ExpireNow, Filter, Interval, Pattern, Permission, PutUser, PutUserWhen, Recall,
    Recurrence, RemoveUser, Reschedule, Revise, ReviseById, ReviseMatching, Revision, ScheduleControl,
    ScheduleDefinition, Unbind,
};

use crate::script::{Words, message, number};

/// Reads one command:
///
/// - `declare-exchange NAME direct|topic|fanout|headers [alternate=NAME]`, `delete-exchange NAME [if_unused]`
/// - `bind EXCHANGE queue|exchange NAME [key=KEY] [headers=NAME:VALUE,...] [any]`, and `unbind` alike
/// - `recall`, `expire` and `reschedule QUEUE [revoke] SEQUENCE... [delay=MS] [deliver_at=MS]`; instead of
///   sequences `id=ID [after=SEQUENCE]`, or `matching [scheduled] [ready] [leased] [headers=NAME:VALUE,...] [from=MS]
///   [before=MS] [priority_min=N] [priority_max=N]`
/// - `schedule NAME [replace] QUEUE BODY ...` with what `publish` knows of a message, and `every=MS [anchor=MS]`,
///   `dates=MS,MS...` or `cron=FIELD_FIELD... [zone=NAME]`; `start=MS`, `end=MS`, `misfire_after=MS`, `misfires=N`
/// - `first-user NAME`, `add-user NAME`, `change-user NAME`, each with `[hash=TEXT] [administrator=true|false]
///   [configure=PATTERN] [write=PATTERN] [read=PATTERN]`, and `remove-user NAME`
/// - `delete-schedule NAME`, `pause NAME`, `resume NAME`, `trigger NAME`
pub fn parse(verb: &str, words: &mut Words) -> Result<Command, String> {
    let control = |words: &mut Words, control: ScheduleControl| {
        let schedule = words.next("schedule")?.into();
        Ok(Command::ControlSchedule(ControlSchedule { schedule, control: control.into() }))
    };
    match verb {
        "declare-exchange" => declare_exchange(words),
        "delete-exchange" => {
            let exchange = words.next("exchange")?.into();
            Ok(Command::DeleteExchange(DeleteExchange { exchange, if_unused: words.flag("if_unused") }))
        }
        "bind" => Ok(Command::Bind(binding(words)?)),
        "unbind" => Ok(Command::Unbind(Unbind { binding: binding(words)? })),
        "recall" => revise(Revision::Recall(Recall {}), words),
        "expire" => revise(Revision::ExpireNow(ExpireNow {}), words),
        "reschedule" => {
            let (delay_ms, deliver_at_ms) = (words.number("delay", 0)?, words.number("deliver_at", 0)?);
            revise(Revision::Reschedule(Reschedule { delay_ms, deliver_at_ms }), words)
        }
        "schedule" => schedule(words),
        "delete-schedule" => Ok(Command::DeleteSchedule(DeleteSchedule { schedule: words.next("schedule")?.into() })),
        "pause" => control(words, ScheduleControl::Pause),
        "resume" => control(words, ScheduleControl::Resume),
        "trigger" => control(words, ScheduleControl::Trigger),
        "first-user" => put_user(PutUserWhen::First, words),
        "add-user" => put_user(PutUserWhen::New, words),
        "change-user" => put_user(PutUserWhen::Existing, words),
        "remove-user" => Ok(Command::RemoveUser(RemoveUser { user: words.next("user")?.into() })),
        verb => Err(format!("`{verb}` is not a command")),
    }
}

fn put_user(when: PutUserWhen, words: &mut Words) -> Result<Command, String> {
    let user = words.next("user")?.into();
    let administrator = words.text("administrator").map(|value| value == "true");
    let mut pattern = |key: &str| words.text(key);
    let (configure, write, read) = (pattern("configure"), pattern("write"), pattern("read"));
    let permission = (configure.is_some() || write.is_some() || read.is_some()).then(|| Permission {
        configure: configure.unwrap_or_default(),
        write: write.unwrap_or_default(),
        read: read.unwrap_or_default(),
    });
    let password_hash = words.text("hash");
    Ok(Command::PutUser(PutUser { user, when: when.into(), password_hash, administrator, permission }))
}

fn declare_exchange(words: &mut Words) -> Result<Command, String> {
    let exchange = words.next("exchange")?.into();
    let kind = match words.next("kind")? {
        "direct" => ExchangeKind::Direct,
        "topic" => ExchangeKind::Topic,
        "fanout" => ExchangeKind::Fanout,
        "headers" => ExchangeKind::Headers,
        kind => return Err(format!("`{kind}` is no kind of exchange")),
    };
    let alternate = words.text("alternate").unwrap_or_default();
    Ok(Command::DeclareExchange(DeclareExchange { exchange, kind: kind.into(), alternate }))
}

fn binding(words: &mut Words) -> Result<Binding, String> {
    let exchange = words.next("exchange")?.into();
    let destination_kind = match words.next("kind of destination")? {
        "queue" => DestinationKind::Queue,
        "exchange" => DestinationKind::Exchange,
        kind => return Err(format!("`{kind}` is no kind of destination")),
    };
    Ok(Binding {
        exchange,
        destination_kind: destination_kind.into(),
        destination: words.next("destination")?.into(),
        routing_key: words.text("key").unwrap_or_default(),
        headers: words.headers()?,
        match_any: words.flag("any"),
    })
}

fn revise(revision: Revision, words: &mut Words) -> Result<Command, String> {
    let queue = words.next("queue")?.into();
    let (revoke, revision) = (words.flag("revoke"), Some(revision));
    if let Some(message_id) = words.text("id") {
        let after = words.number("after", 0)?;
        return Ok(Command::ReviseById(ReviseById { queue, message_id, revoke, after, revision }));
    }
    if !words.flag("matching") {
        return Ok(Command::Revise(Revise { queue, sequences: words.numbers()?, revoke, revision }));
    }
    let filter = Filter {
        scheduled: words.flag("scheduled"),
        ready: words.flag("ready"),
        leased: words.flag("leased"),
        headers: words.headers()?,
        due_from_ms: words.number("from", 0)?,
        due_before_ms: words.number("before", 0)?,
        priority_min: words.number("priority_min", 0)?,
        priority_max: words.text("priority_max").map(|priority| number(&priority)).transpose()?,
    };
    Ok(Command::ReviseMatching(ReviseMatching { queue, filter, revoke, cursor: Default::default(), revision }))
}

fn schedule(words: &mut Words) -> Result<Command, String> {
    let (schedule, replace) = (words.next("schedule")?.into(), words.flag("replace"));
    let pattern = match (words.text("dates"), words.text("cron")) {
        (Some(dates), _) => {
            Pattern::Dates(Dates { at_ms: dates.split(',').map(number).collect::<Result<_, String>>()? })
        }
        (None, Some(fields)) => {
            let time_zone = words.text("zone").unwrap_or_else(|| "UTC".into());
            Pattern::Cron(Cron { expression: fields.replace('_', " "), time_zone })
        }
        (None, None) => Pattern::Interval(Interval {
            every_ms: words.number("every", 1000)?,
            anchor_ms: words.number("anchor", 0)?,
        }),
    };
    let definition = ScheduleDefinition {
        recurrence: Recurrence { pattern: Some(pattern) },
        start_at_ms: words.number("start", 0)?,
        end_at_ms: words.number("end", 0)?,
        jitter_ms: 0,
        misfire_after_ms: words.number("misfire_after", 60_000)?,
        misfires_max: words.number("misfires", 1)?,
        message: message(words)?,
    };
    Ok(Command::DeclareSchedule(DeclareSchedule { schedule, definition, replace }))
}
