use tokio::time::Instant;

use super::*;
use crate::checkers::check_all;
use crate::history::{Answer, Call, Publication, Recorder, Settlement, Stored, StoredCopy, Topology};

fn recorded() -> History {
    let recorder = Recorder::new(Instant::now());
    recorder.topology(Topology::default());
    for message in 1..100 {
        let publication = Publication { message, to: "<work>".into(), ..Publication::default() };
        let invocation = recorder.invoke(0, Call::Publish { producer: None, messages: vec![publication] });
        let copies = vec![StoredCopy { queue: "<work>".into(), sequence: message, duplicate: false }];
        match message % 10 {
            8 => recorder.info(invocation, "no answer"),
            9 => recorder.fail(invocation, "refused"),
            _ => recorder.ok(invocation, Answer::Published(vec![Stored { copies, refused: None }])),
        }
        if message == 30 {
            recorder.fault_started("partition", "n1 | n2", ["n1"]);
        }
        if message == 60 {
            recorder.fault_stopped("partition", "");
            recorder.fault_started("kill", "n2", ["n2"]);
        }
    }
    let lease = crate::history::Lease { queue: "<work>".into(), sequence: 1, token: 1 };
    let _never_answered = recorder.invoke(1, Call::Settle { lease, settlement: Settlement::Ack });
    let mut history = recorder.history();
    for event in &mut history.events {
        event.time_ns = event.index * 10_000_000;
    }
    history
}

#[test]
fn faults_last_until_they_are_healed_or_to_the_end() {
    let history = recorded();
    let bands = bands(&history);
    assert_eq!(bands.len(), 2);
    assert_eq!((bands[0].from_ns, bands[0].to_ns), (610_000_000, 1_220_000_000));
    assert_eq!(bands[1].to_ns, history.events.last().unwrap().time_ns);
}

#[test]
fn everything_is_written_and_the_history_can_be_checked_again() {
    let history = recorded();
    let report = check_all(&history);
    let directory = tempfile::tempdir().unwrap();
    write_all(&directory.path().join("new"), &history, &report).unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join("new").join(name)).unwrap();
    assert_eq!(History::read_json(read("history.jsonl").as_bytes()).unwrap(), history);
    for plot in ["latency.svg", "rate.svg"] {
        assert!(read(plot).starts_with("<svg") && read(plot).contains("publish"), "{plot}");
    }
    let page = read("timeline.html");
    assert!(page.contains("partition: n1 | n2") && !page.contains("<script") && !page.contains("\"<work>"));
    assert!(read("report.txt").contains("not judged: nothing was declared") && read("report.txt").contains("holds"));
}
