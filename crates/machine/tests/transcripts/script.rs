//! Reads the commands of a transcript.

use std::collections::BTreeMap;
use std::str::FromStr;

use bytes::Bytes;
use dwell_machine::{
    Ack, Attach, Command, Content, DeclareQueue, DeleteQueue, Detach, DetachAll, Extend, Lease, Nack, ProducerSequence,
    Publish, PublishMessage, QueueSettings, Receive, Release, SetCredit,
};

/// What is known of the consumers by their ids.
#[derive(Debug, Default)]
pub struct Names {
    /// Consumer id to key and attachment.
    pub consumers: BTreeMap<String, (u64, u64)>,
    /// The last stream that attached, numbered from 1.
    pub last_attachment: u64,
}

/// A line's words: bare ones in order, and `key=value` pairs.
struct Words<'a> {
    bare: std::vec::IntoIter<&'a str>,
    pairs: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        let (pairs, bare): (Vec<&str>, Vec<&str>) = line.split_whitespace().partition(|word| word.contains('='));
        Self { bare: bare.into_iter(), pairs: pairs.into_iter().filter_map(|pair| pair.split_once('=')).collect() }
    }

    fn next(&mut self, what: &str) -> Result<&'a str, String> {
        self.bare.next().ok_or_else(|| format!("the {what} is missing"))
    }

    fn number<N: FromStr>(&mut self, key: &str, default: N) -> Result<N, String> {
        self.pairs.remove(key).map_or(Ok(default), |value| number(value))
    }

    /// True if the bare word comes next.
    fn flag(&mut self, word: &str) -> bool {
        let is_next = self.bare.as_slice().first() == Some(&word);
        if is_next {
            self.bare.next();
        }
        is_next
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

fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number in range"))
}

/// `SEQUENCE/TOKEN`.
fn lease(text: &str) -> Result<Lease, String> {
    let (sequence, token) = text.split_once('/').ok_or_else(|| format!("`{text}` is not SEQUENCE/TOKEN"))?;
    Ok(Lease { sequence: number(sequence)?, token: number(token)? })
}

/// Reads one command:
///
/// - `declare QUEUE [lease_timeout=MS] [delivery_limit=N]`
/// - `delete QUEUE [if_empty] [if_unused]`
/// - `publish QUEUE BODY [copies=N] [priority=N] [delay=MS] [deliver_at=MS] [ttl=MS] [expire_at=MS]
///   [producer=ID/SEQUENCE]`
/// - `attach QUEUE CONSUMER [credit=N] [session_timeout=MS] [SEQUENCE/TOKEN...]`: the leases are those it holds
/// - `detach CONSUMER [attachment=N]`, `close CONSUMER [attachment=N]`: the stream breaks, the client closes
/// - `credit CONSUMER N`
/// - `receive QUEUE [max=N] [lease_timeout=MS]`
/// - `ack QUEUE SEQUENCE/TOKEN...`, `nack QUEUE SEQUENCE/TOKEN... [delay=MS]`,
///   `extend QUEUE SEQUENCE/TOKEN... [lease_timeout=MS]`
/// - `release`, `detach-all`
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
        "publish" => publish(&mut words)?,
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
        "nack" => Command::Nack(Nack {
            queue: words.next("queue")?.into(),
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
        verb => return Err(format!("`{verb}` is not a command")),
    };
    words.finish()?;
    Ok(command)
}

fn declare(words: &mut Words) -> Result<Command, String> {
    Ok(Command::DeclareQueue(DeclareQueue {
        queue: words.next("queue")?.into(),
        settings: QueueSettings {
            lease_timeout_ms: words.number("lease_timeout", 1000)?,
            delivery_limit: words.number("delivery_limit", 0)?,
        },
    }))
}

fn publish(words: &mut Words) -> Result<Command, String> {
    let message = PublishMessage {
        queue: words.next("queue")?.into(),
        content: Content { body: Bytes::from(words.next("body")?.to_owned()), ..Content::default() },
        priority: words.number("priority", 0)?,
        delay_ms: words.number("delay", 0)?,
        deliver_at_ms: words.number("deliver_at", 0)?,
        ttl_ms: words.number("ttl", 0)?,
        expire_at_ms: words.number("expire_at", 0)?,
    };
    let producer = words.pairs.remove("producer").map(|producer| {
        let (id, sequence) = producer.split_once('/').ok_or("the producer is not ID/SEQUENCE")?;
        Ok::<_, String>(ProducerSequence { producer_id: id.into(), sequence: number(sequence)? })
    });
    let copies = words.number("copies", 1)?;
    Ok(Command::Publish(Publish { messages: vec![message; copies], producer: producer.transpose()? }))
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
