//! Histories as EDN, the way Jepsen stores them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde_json::Value as Json;

use super::{Event, HistoryError, Kind, Process, Value};

/// The processes of Jepsen's operations. Jepsen pairs an invocation with what its process says next, and takes a process
/// whose call had no outcome for dead. Ours make several calls at a time, and go on: such calls are written as those of
/// further processes.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// By the invocation's index.
    busy: BTreeMap<u64, u64>,
    /// By our own process, those that it may call by.
    idle: BTreeMap<u32, BTreeSet<u64>>,
    /// How many there are.
    count: u64,
}

impl Processes {
    /// Who makes, or made, the call of the next event.
    pub(super) fn of(&mut self, event: &Event) -> Option<u64> {
        let Process::Client(client) = event.process else { return None };
        let idle = self.idle.entry(client).or_default();
        match &event.value {
            Value::Answer { call, .. } => {
                let process = self.busy.remove(call)?;
                if event.kind != Kind::Info {
                    idle.insert(process);
                }
                Some(process)
            }
            _ => {
                let process = idle.pop_first().unwrap_or_else(|| {
                    self.count += 1;
                    self.count - 1
                });
                self.busy.insert(event.index, process);
                Some(process)
            }
        }
    }
}

/// Writes one operation and a line's end.
pub(super) fn write_event(event: &Event, process: Option<u64>, out: &mut impl Write) -> Result<(), HistoryError> {
    let kind = match event.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    };
    write!(out, "{{:index {}, :type :{kind}, :f :{}, :process ", event.index, event.function.name())?;
    match process {
        Some(process) => write!(out, "{process}")?,
        None => write!(out, ":nemesis")?,
    }
    if let Process::Client(client) = event.process {
        write!(out, ", :client {client}")?;
    }
    write!(out, ", :time {}, :value ", event.time_ns)?;
    match &event.value {
        Value::Call(call) => write_tagged(&serde_json::to_value(call)?, out)?,
        Value::Deed(deed) => write_tagged(&serde_json::to_value(deed)?, out)?,
        Value::Answer { call, answer, error } => {
            write_tagged(&serde_json::to_value(answer)?, out)?;
            write!(out, ", :invocation {call}")?;
            if let Some(error) = error {
                write!(out, ", :error ")?;
                write_string(error, out)?;
            }
        }
    }
    writeln!(out, "}}")?;
    Ok(())
}

/// The outermost name is the operation's own, which is written as `:f` already.
fn write_tagged(json: &Json, out: &mut impl Write) -> Result<(), HistoryError> {
    match json {
        Json::Object(fields) if fields.len() == 1 => fields.values().try_for_each(|value| write_value(value, out)),
        Json::String(name) => Ok(write!(out, ":{name}")?),
        other => write_value(other, out),
    }
}

fn write_value(json: &Json, out: &mut impl Write) -> Result<(), HistoryError> {
    match json {
        Json::Null => write!(out, "nil")?,
        Json::Bool(value) => write!(out, "{value}")?,
        Json::Number(number) => write!(out, "{number}")?,
        Json::String(text) => write_string(text, out)?,
        Json::Array(items) => {
            write!(out, "[")?;
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    write!(out, " ")?;
                }
                write_value(item, out)?;
            }
            write!(out, "]")?;
        }
        Json::Object(fields) => {
            write!(out, "{{")?;
            for (position, (name, value)) in fields.iter().enumerate() {
                if position > 0 {
                    write!(out, ", ")?;
                }
                write!(out, ":{} ", name.replace('_', "-"))?;
                write_value(value, out)?;
            }
            write!(out, "}}")?;
        }
    }
    Ok(())
}

/// EDN knows fewer escapes than JSON; control characters, which it has none for, become spaces.
fn write_string(text: &str, out: &mut impl Write) -> Result<(), HistoryError> {
    write!(out, "\"")?;
    for character in text.chars() {
        match character {
            '"' => write!(out, "\\\"")?,
            '\\' => write!(out, "\\\\")?,
            '\n' => write!(out, "\\n")?,
            control if control.is_control() => write!(out, " ")?,
            other => write!(out, "{other}")?,
        }
    }
    write!(out, "\"")?;
    Ok(())
}
