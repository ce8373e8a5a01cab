use std::time::Duration;

use tokio::time::Instant;

use super::*;

fn recorded() -> History {
    let recorder = Recorder::new(Instant::now());
    recorder.topology(Topology::default());
    let message = Publication { message: 7, to: "work".into(), delay_ms: Some(20), ..Publication::default() };
    let invocation = recorder.invoke(3, Call::Publish { producer: None, messages: vec![message] });
    recorder.fault_started("partition", "n1 | n2 \"n3\"", ["n1"]);
    let copies = vec![StoredCopy { queue: "work".into(), sequence: 9, duplicate: false }];
    recorder.ok(invocation, Answer::Published(vec![Stored { copies, refused: None }]));
    let invocation = recorder.invoke(3, Call::Receive { queue: "work".into(), consumer: None });
    recorder.info(invocation, "no answer");
    recorder.clock_error("n2", -1500);
    recorder.digest("n1", 12, "abc");
    recorder.healed();
    recorder.history()
}

#[tokio::test]
async fn indexes_count_and_times_are_those_since_the_start() {
    let recorder = Recorder::new(Instant::now());
    let first = recorder.invoke(1, Call::Browse { queue: "work".into() });
    tokio::time::sleep(Duration::from_millis(5)).await;
    recorder.fail(first, "no");
    let history = recorder.history();
    assert_eq!(history.events.iter().map(|event| event.index).collect::<Vec<_>>(), [0, 1]);
    assert!(history.events[1].time_ns >= history.events[0].time_ns + 5_000_000);
    assert_eq!(history.events[1].function, Function::Browse);
}

#[tokio::test]
async fn a_history_comes_back_from_json_as_it_was() {
    let history = recorded();
    let mut written = Vec::new();
    history.write_json(&mut written).unwrap();
    assert_eq!(History::read_json(written.as_slice()).unwrap(), history);
    assert!(History::read_json(&b"{}\n"[..]).is_err());
}

#[tokio::test]
async fn edn_has_the_form_of_jepsens_operations() {
    let mut written = Vec::new();
    recorded().write_edn(&mut written).unwrap();
    let text = String::from_utf8(written).unwrap();
    let line = |index: usize| text.lines().nth(index).unwrap();
    assert!(line(1).starts_with("{:index 1, :type :invoke, :f :publish, :process 0, :client 3, :time "), "{}", line(1));
    assert!(line(1).contains(":messages [{:batch nil, "), "{}", line(1));
    assert!(line(2).contains(":f :start-fault, :process :nemesis, "), "{}", line(2));
    assert!(line(2).contains(r#":description "n1 | n2 \"n3\"""#), "{}", line(2));
    assert!(line(3).contains(":invocation 1"), "{}", line(3));
    assert!(line(5).ends_with(r#":value nil, :invocation 4, :error "no answer"}"#), "{}", line(5));
    assert!(line(8).ends_with(":value :healed}"), "{}", line(8));
}

#[tokio::test]
async fn no_process_of_the_edn_calls_twice_at_a_time_or_after_an_unknown_outcome() {
    let recorder = Recorder::new(Instant::now());
    let call = |client| recorder.invoke(client, Call::Browse { queue: "work".into() });
    let (first, second) = (call(3), call(3));
    recorder.ok(first, Answer::Done);
    let third = call(3);
    recorder.info(second, "no answer");
    recorder.fail(third, "no");
    let _ = (call(3), call(3), call(4));
    let mut written = Vec::new();
    recorder.history().write_edn(&mut written).unwrap();
    let text = String::from_utf8(written).unwrap();
    let process = |line: &str| line.split_once(":process ").unwrap().1.split(',').next().unwrap().parse().unwrap();
    let processes: Vec<u64> = text.lines().map(process).collect();
    assert_eq!(processes, [0, 1, 0, 0, 1, 0, 0, 2, 3]);
}
