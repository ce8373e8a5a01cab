//! Scenarios that anyone can read: what was asked of the machine, and beside it what came of it.
//!
//! A transcript is a file of blocks. A block is one or more lines of input, a line `----`, and the outcome, up
//! to the next empty line. The commands of a block are one log entry, which a leading `@TIME` stamps; see
//! [`script::parse`] for them. A block may instead be one of these, which do not reach the machine's log:
//!
//! - `show QUEUE`: its counts and totals
//! - `schedule NAME`: its next due time and its firings
//! - `next`: when the machine next wants a release pulse
//! - `restart`: opens the machine anew from its store
//! - `rows`: how many rows the store holds, by table
//!
//! `UPDATE_TRANSCRIPTS=1` rewrites the outcomes; read the difference before believing it.

#[path = "transcripts/plans.rs"]
mod plans;
#[path = "transcripts/script.rs"]
mod script;
#[path = "transcripts/session.rs"]
mod session;

use std::path::{Path, PathBuf};

use session::Session;

/// One block of a transcript.
struct Block {
    /// Comments and empty lines before it.
    preface: String,
    input: Vec<String>,
}

/// Splits a transcript into blocks, and the comments after the last one.
fn blocks(text: &str) -> Result<(Vec<Block>, String), String> {
    let (mut blocks, mut preface) = (Vec::new(), String::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            preface.push_str(line);
            preface.push('\n');
            continue;
        }
        let mut input = vec![line.to_owned()];
        loop {
            match lines.next() {
                Some("----") => break,
                Some(line) if !line.is_empty() => input.push(line.to_owned()),
                _ => return Err(format!("no line `----` after the input `{}`", input.join("\n"))),
            }
        }
        // The recorded outcome: the texts are compared as wholes.
        while lines.next_if(|line| !line.is_empty()).is_some() {}
        blocks.push(Block { preface: std::mem::take(&mut preface), input });
    }
    Ok((blocks, preface))
}

/// Runs a transcript, and gives it back with the outcomes that really came.
fn run(text: &str) -> Result<String, String> {
    let (blocks, ending) = blocks(text)?;
    let mut session = Session::new()?;
    let mut actual = String::new();
    for block in blocks {
        let outcome = session.run(&block.input).map_err(|error| format!("{}: {error}", block.input.join("\n")))?;
        actual.push_str(&format!("{}{}\n----\n{outcome}", block.preface, block.input.join("\n")));
    }
    Ok(actual + &ending)
}

/// The first line in which two texts differ, with its number.
fn first_difference(recorded: &str, actual: &str) -> String {
    let mut lines = (1..).zip(recorded.lines().zip(actual.lines()));
    match lines.find(|(_, (recorded, actual))| recorded != actual) {
        Some((number, (recorded, actual))) => format!("line {number}\n  recorded: {recorded}\n  came:     {actual}"),
        None => "one of the two is longer".to_owned(),
    }
}

fn check(path: &Path) -> Result<(), String> {
    let recorded = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let actual = run(&recorded)?;
    if recorded == actual {
        return Ok(());
    }
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some_and(|value| value == "1") {
        return std::fs::write(path, actual).map_err(|error| error.to_string());
    }
    Err(first_difference(&recorded, &actual))
}

#[test]
fn every_transcript_comes_out_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let entries = std::fs::read_dir(&directory).expect("the transcripts are beside this file");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(paths.len() >= 10, "only {} transcripts were found", paths.len());
    let failures: Vec<String> =
        paths.iter().filter_map(|path| check(path).err().map(|error| format!("{}: {error}", path.display()))).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

#[test]
fn a_changed_outcome_is_noticed() {
    let text = "@1000 declare jobs\n----\nqueue declared already\n";
    let actual = run(text).expect("the input is well formed");
    assert_eq!(actual, "@1000 declare jobs\n----\nqueue declared\n");
    assert!(first_difference(text, &actual).contains("recorded: queue declared already"));
}

#[test]
fn input_that_is_not_understood_is_refused() {
    for text in
        ["@1000 sing\n----\n", "@1000 publish jobs a dely=3\n----\n", "declare jobs\n", "@x declare jobs\n----\n"]
    {
        assert!(run(text).is_err(), "{text}");
    }
}
