//! Histories as EDN, the way Jepsen stores them.

use std::io::Write;

use serde_json::Value as Json;

use super::{Event, HistoryError, Kind, Process, Value};

/// Writes one operation and a line's end.
pub(super) fn write_event(event: &Event, out: &mut impl Write) -> Result<(), HistoryError> {
    let kind = match event.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    };
    write!(out, "{{:index {}, :type :{kind}, :f :{}, :process ", event.index, event.function.name())?;
    match event.process {
        Process::Client(process) => write!(out, "{process}")?,
        Process::Nemesis => write!(out, ":nemesis")?,
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
