//! Naming messages on the command line.

use anyhow::{Context, bail};
use dwell_client::Handle;

/// Sequences of one queue, from a queue and its sequences, or from handles as `dwell publish` prints them.
pub fn sequences(first: &str, others: &[String]) -> anyhow::Result<(String, Vec<u64>)> {
    // Only if all are handles: a queue may well be named like one.
    if let Some(handles) = std::iter::once(first).chain(others.iter().map(String::as_str)).map(parse_handle).collect() {
        return of_one_queue(handles);
    }
    if others.is_empty() {
        bail!("no message is named: give sequences, a handle such as default/{first}/7, or say how to choose them");
    }
    let explain = |text: &String| format!("`{text}` is not a sequence; write for instance: {first} 7 8");
    let parse = |text: &String| text.parse().with_context(|| explain(text));
    Ok((first.to_owned(), others.iter().map(parse).collect::<Result<_, _>>()?))
}

/// One message.
pub fn handle(first: &str, sequence: Option<&String>) -> anyhow::Result<Handle> {
    let others: Vec<String> = sequence.into_iter().cloned().collect();
    let (queue, sequences) = sequences(first, &others)?;
    let [sequence] = sequences[..] else { bail!("name one message") };
    Ok(Handle { namespace: String::new(), queue, sequence })
}

fn of_one_queue(handles: Vec<(&str, u64)>) -> anyhow::Result<(String, Vec<u64>)> {
    let queue = handles.first().map(|(queue, _)| *queue).unwrap_or_default();
    if handles.iter().any(|(other, _)| *other != queue) {
        bail!("the handles name messages of several queues: call once for each queue");
    }
    Ok((queue.to_owned(), handles.iter().map(|(_, sequence)| *sequence).collect()))
}

/// `default/QUEUE/SEQUENCE`, where the queue's name may hold slashes.
fn parse_handle(text: &str) -> Option<(&str, u64)> {
    let (queue, sequence) = text.strip_prefix("default/")?.rsplit_once('/')?;
    Some((queue, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<(String, Vec<u64>)> {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap();
        sequences(first, &words.map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn messages_are_named_by_sequences_or_by_handles() {
        assert_eq!(parse("orders 7 8").unwrap(), ("orders".into(), vec![7, 8]));
        assert_eq!(parse("default/orders/7 default/orders/8").unwrap(), ("orders".into(), vec![7, 8]));
        assert_eq!(parse("default/a/b/7").unwrap(), ("a/b".into(), vec![7]));
        assert_eq!(parse("default/a/7 8").unwrap(), ("default/a/7".into(), vec![8]));
    }

    #[test]
    fn what_names_no_message_is_explained() {
        assert!(parse("orders").unwrap_err().to_string().contains("default/orders/7"));
        assert!(parse("orders seven").unwrap_err().to_string().contains("`seven`"));
        assert!(parse("default/a/7 default/b/8").unwrap_err().to_string().contains("several queues"));
        assert!(handle("orders", None).is_err());
        assert_eq!(handle("orders", Some(&"7".to_owned())).unwrap().sequence, 7);
    }
}
