//! Reads the commands of a transcript.

use std::collections::BTreeMap;
use std::str::FromStr;

use bytes::Bytes;
use dwell_machine::{
    Ack, Attach, Backoff, BackoffKind, Command, Content, DeadLetter, DeclareQueue, DeleteQueue, Detach, DetachAll,
    Extend, Lease, Nack, Overflow, ProducerSequence, Publish, PublishMessage, QueueSettings, Receive, Release,
    SetCredit, Transact, UpdateQueue,
};

use crate::plans;

/// What is known of the consumers by their ids.
#[derive(Debug, Default)]
pub struct Names {
    /// Consumer id to key and attachment.
    pub consumers: BTreeMap<String, (u64, u64)>,
    /// The last stream that attached, numbered from 1.
    pub last_attachment: u64,
}

/// A line's words: bare ones in order, and `key=value` pairs.
pub struct Words<'a> {
    bare: std::vec::IntoIter<&'a str>,
    pairs: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        let (pairs, bare): (Vec<&str>, Vec<&str>) = line.split_whitespace().partition(|word| word.contains('='));
        Self { bare: bare.into_iter(), pairs: pairs.into_iter().filter_map(|pair| pair.split_once('=')).collect() }
    }

    pub fn next(&mut self, what: &str) -> Result<&'a str, String> {
        self.bare.next().ok_or_else(|| format!("the {what} is missing"))
    }

    pub fn number<N: FromStr>(&mut self, key: &str, default: N) -> Result<N, String> {
        self.pairs.remove(key).map_or(Ok(default), |value| number(value))
    }

    /// True if the bare word comes next.
    pub fn flag(&mut self, word: &str) -> bool {
        let is_next = self.bare.as_slice().first() == Some(&word);
        if is_next {
            self.bare.next();
        }
        is_next
    }

    /// The value of a key, if it is there.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.pairs.remove(key).map(str::to_owned)
    }

    /// The value that one of these names stands for.
    pub fn one_of<T: Copy>(&mut self, key: &str, values: &[(&str, T)], default: T) -> Result<T, String> {
        let Some(given) = self.pairs.remove(key) else { return Ok(default) };
        let found = values.iter().find(|(name, _)| *name == given);
        found.map(|(_, value)| *value).ok_or_else(|| format!("`{given}` is no {key}"))
    }

    /// `NAME:VALUE,NAME:VALUE`.
    pub fn headers(&mut self) -> Result<BTreeMap<String, String>, String> {
        let text = self.pairs.remove("headers").unwrap_or_default();
        let header = |pair: &str| {
            let (name, value) = pair.split_once(':').ok_or_else(|| format!("`{pair}` is not NAME:VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        text.split(',').filter(|pair| !pair.is_empty()).map(header).collect()
    }

    /// All bare words that are left, as numbers.
    pub fn numbers(&mut self) -> Result<Vec<u64>, String> {
        self.bare.by_ref().map(number).collect()
    }

    fn leases(&mut self) -> Result<Vec<Lease>, String> {
        self.bare.by_ref().map(lease).collect()
    }

    fn finish(self) -> Result<(), String> {
        match (self.bare.as_slice().first(), self.pairs.keys().next()) {
            (None, None) => Ok(()),
            (Some(word), _) | (None, Some(word)) => Err(format!("`{word}` is not understood")),
        }
    }
}

pub fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number in range"))
}

/// `SEQUENCE/TOKEN`.
fn lease(text: &str) -> Result<Lease, String> {
    let (sequence, token) = text.split_once('/').ok_or_else(|| format!("`{text}` is not SEQUENCE/TOKEN"))?;
    Ok(Lease { sequence: number(sequence)?, token: number(token)? })
}

/// Reads one command:
///
/// - `declare QUEUE [SETTING...]`: `lease_timeout=MS`, `delivery_limit=N`, `default_delay=MS`, `ttl=MS`, `idle=MS`,
///   `messages_max=N`, `bytes_max=N`, `overflow=reject|drop|dead-letter`, `dead_letter=[EXCHANGE]/[KEY]`,
///   `priority_max=N`, `dedupe=MS`, `backoff=fixed|linear|exponential/BASE/CAP`, `aging=MS`, `single`, `paused`
/// - `update QUEUE FIELD [SETTING...]`: one field, by its full name
/// - `delete QUEUE [if_empty] [if_unused]`
/// - `publish QUEUE BODY [copies=N] [priority=N] [delay=MS] [deliver_at=MS] [ttl=MS] [expire_at=MS]
///   [producer=ID/SEQUENCE] [exchange=NAME] [dedupe=ID] [group=NAME] [id=ID] [headers=NAME:VALUE,...] [mandatory]
///   [immediate]`: with an exchange, the queue is the routing key
/// - `transact QUEUE SEQUENCE/TOKEN... then QUEUE BODY ...`: acknowledges, and publishes as `publish` does
/// - `attach QUEUE CONSUMER [credit=N] [session_timeout=MS] [SEQUENCE/TOKEN...]`: the leases are those it holds
/// - `detach CONSUMER [attachment=N]`, `close CONSUMER [attachment=N]`: the stream breaks, the client closes
/// - `credit CONSUMER N`
/// - `receive QUEUE [max=N] [lease_timeout=MS]`
/// - `ack QUEUE SEQUENCE/TOKEN...`, `nack QUEUE [reject] [immediate] SEQUENCE/TOKEN... [delay=MS]`,
///   `extend QUEUE SEQUENCE/TOKEN... [lease_timeout=MS]`
/// - `release`, `detach-all`
/// - the commands about exchanges, revisions and schedules: see [`plans::parse`]
pub fn parse(line: &str, names: &mut Names) -> Result<Command, String> {
    let mut words = Words::new(line);
    let verb = words.next("command")?;
    let command = match verb {
        "declare" => declare(&mut words)?,
        "delete" => Command::DeleteQueue(DeleteQueue {
            queue: words.next("queue")?.into(),
            if_empty: words.flag("if_empty"),
            if_unused: words.flag("if_unused"),
        }),
        "publish" => Command::Publish(publication(&mut words)?),
        "attach" => attach(&mut words, names)?,
        "detach" | "close" => {
            let (consumer, attachment) = session(&mut words, names)?;
            let attachment = words.number("attachment", attachment)?;
            Command::Detach(Detach { consumer, attachment, close: verb == "close" })
        }
        "credit" => {
            let (consumer, attachment) = session(&mut words, names)?;
            let credit = number(words.next("credit")?)?;
            Command::SetCredit(SetCredit { consumer, attachment, credit })
        }
        "receive" => Command::Receive(Receive {
            queue: words.next("queue")?.into(),
            messages_max: words.number("max", 1)?,
            lease_timeout_ms: words.number("lease_timeout", 0)?,
        }),
        "ack" => Command::Ack(Ack { queue: words.next("queue")?.into(), leases: words.leases()? }),
        "update" => {
            let (queue, field) = (words.next("queue")?.into(), words.next("field")?.into());
            Command::UpdateQueue(UpdateQueue { queue, fields: vec![field], settings: settings(&mut words)? })
        }
        "transact" => transact(&mut words)?,
        "nack" => Command::Nack(Nack {
            queue: words.next("queue")?.into(),
            reject: words.flag("reject"),
            immediate: words.flag("immediate"),
            leases: words.leases()?,
            delay_ms: words.number("delay", 0)?,
        }),
        "extend" => Command::Extend(Extend {
            queue: words.next("queue")?.into(),
            leases: words.leases()?,
            lease_timeout_ms: words.number("lease_timeout", 0)?,
        }),
        "release" => Command::Release(Release {}),
        "detach-all" => Command::DetachAll(DetachAll {}),
        verb => plans::parse(verb, &mut words)?,
    };
    words.finish()?;
    Ok(command)
}

fn declare(words: &mut Words) -> Result<Command, String> {
    Ok(Command::DeclareQueue(DeclareQueue { queue: words.next("queue")?.into(), settings: settings(words)? }))
}

fn settings(words: &mut Words) -> Result<QueueSettings, String> {
    let overflows =
        [("reject", Overflow::Reject), ("drop", Overflow::DropHead), ("dead-letter", Overflow::DeadLetterHead)];
    let dead_letter = words.pairs.remove("dead_letter").map(|letter| {
        let (exchange, key) = letter.split_once('/').ok_or("the dead letter is not EXCHANGE/KEY")?;
        let routing_key = (!key.is_empty()).then(|| key.to_owned());
        Ok::<_, String>(DeadLetter { exchange: exchange.into(), routing_key })
    });
    let priority_max = words.pairs.remove("priority_max").map(number);
    Ok(QueueSettings {
        lease_timeout_ms: words.number("lease_timeout", 1000)?,
        delivery_limit: words.number("delivery_limit", 0)?,
        default_delay_ms: words.number("default_delay", 0)?,
        message_ttl_ms: words.number("ttl", 0)?,
        idle_ttl_ms: words.number("idle", 0)?,
        messages_max: words.number("messages_max", 0)?,
        bytes_max: words.number("bytes_max", 0)?,
        overflow: words.one_of("overflow", &overflows, Overflow::Reject)?.into(),
        dead_letter: dead_letter.transpose()?,
        priority_max: priority_max.transpose()?,
        dedupe_window_ms: words.number("dedupe", 0)?,
        backoff: words.pairs.remove("backoff").map(backoff).transpose()?,
        aging_ms: words.number("aging", 0)?,
        single_active_consumer: words.flag("single"),
        paused: words.flag("paused"),
    })
}

fn backoff(text: &str) -> Result<Backoff, String> {
    let [kind, base, cap] = text.split('/').collect::<Vec<_>>()[..] else {
        return Err(format!("`{text}` is not KIND/BASE/CAP"));
    };
    let kind = match kind {
        "fixed" => BackoffKind::Fixed,
        "linear" => BackoffKind::Linear,
        "exponential" => BackoffKind::Exponential,
        kind => return Err(format!("`{kind}` is no kind of backoff")),
    };
    Ok(Backoff { kind: kind.into(), base_ms: number(base)?, cap_ms: number(cap)?, jitter_percent: 0 })
}

/// A message: its key and body, and what else is said of it.
pub fn message(words: &mut Words) -> Result<PublishMessage, String> {
    Ok(PublishMessage {
        routing_key: words.next("queue")?.into(),
        content: Content {
            body: Bytes::from(words.next("body")?.to_owned()),
            headers: words.headers()?,
            message_id: words.text("id").unwrap_or_default(),
            ..Content::default()
        },
        priority: words.number("priority", 0)?,
        delay_ms: words.number("delay", 0)?,
        deliver_at_ms: words.number("deliver_at", 0)?,
        ttl_ms: words.number("ttl", 0)?,
        expire_at_ms: words.number("expire_at", 0)?,
        exchange: words.text("exchange").unwrap_or_default(),
        dedupe_id: words.text("dedupe").unwrap_or_default(),
        group: words.text("group").unwrap_or_default(),
        mandatory: words.flag("mandatory"),
        immediate: words.flag("immediate"),
    })
}

fn publication(words: &mut Words) -> Result<Publish, String> {
    let message = message(words)?;
    let producer = words.pairs.remove("producer").map(|producer| {
        let (id, sequence) = producer.split_once('/').ok_or("the producer is not ID/SEQUENCE")?;
        Ok::<_, String>(ProducerSequence { producer_id: id.into(), sequence: number(sequence)? })
    });
    let copies = words.number("copies", 1)?;
    Ok(Publish { messages: vec![message; copies], producer: producer.transpose()? })
}

fn transact(words: &mut Words) -> Result<Command, String> {
    let queue = words.next("queue")?.into();
    let mut leases = Vec::new();
    loop {
        match words.next("word `then`")? {
            "then" => break,
            word => leases.push(lease(word)?),
        }
    }
    Ok(Command::Transact(Transact { acks: vec![Ack { queue, leases }], publish: publication(words)? }))
}

fn attach(words: &mut Words, names: &mut Names) -> Result<Command, String> {
    names.last_attachment += 1;
    Ok(Command::Attach(Attach {
        queue: words.next("queue")?.into(),
        consumer_id: words.next("consumer")?.into(),
        credit: words.number("credit", 1)?,
        session_timeout_ms: words.number("session_timeout", 1000)?,
        holding: words.leases()?,
        attachment: names.last_attachment,
    }))
}

fn session(words: &mut Words, names: &Names) -> Result<(u64, u64), String> {
    let consumer_id = words.next("consumer")?;
    names.consumers.get(consumer_id).copied().ok_or_else(|| format!("consumer `{consumer_id}` never attached"))
}
