//! Printing, in a way that a closed pipe ends quietly.

use std::io::{ErrorKind, Write};

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::arguments::Output;

/// Prints a line.
pub fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Prints a sentence for people, or a JSON value.
pub fn say(format: Output, text: impl std::fmt::Display, value: Value) -> anyhow::Result<()> {
    match format {
        Output::Table => line(text),
        Output::Json => line(value),
    }
}

/// Prints names and values below each other.
pub fn rows(rows: &[(impl AsRef<str>, String)]) -> anyhow::Result<()> {
    let width = rows.iter().map(|(name, _)| name.as_ref().len()).max().unwrap_or(0);
    rows.iter().try_for_each(|(name, value)| line(format!("{:<width$}  {value}", name.as_ref())))
}

/// True if nobody reads what is printed any more, as after `dwell consume q | head`.
pub fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// A table with these column titles.
pub fn table(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(titles.iter().map(|title| title.to_uppercase()));
    table
}

/// Prints a table, without the blanks at the ends of its lines.
pub fn print_table(table: &Table) -> anyhow::Result<()> {
    let text: Vec<_> = table.lines().map(|row| row.trim_end().to_owned()).collect();
    line(text.join("\n"))
}

/// A body for people: its text, or what it is instead.
pub fn body_text(body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) => text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'"),
        Err(_) => format!("<{} bytes>", body.len()),
    }
}

/// A body as JSON: its text, or its bytes in hexadecimal.
pub fn body_json(body: &[u8]) -> Value {
    match std::str::from_utf8(body) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "hex": body.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_one_line() {
        assert_eq!(body_text(b"say \"hi\"\nthere"), "say \"hi\"\\nthere");
        assert_eq!(body_text(&[0xff, 0xfe]), "<2 bytes>");
    }

    #[test]
    fn a_body_that_is_no_text_is_hexadecimal() {
        assert_eq!(body_json(&[0xff, 0x01]), json!({ "hex": "ff01" }));
        assert_eq!(body_json(b"text"), json!({ "text": "text" }));
    }

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_blanks() {
        let mut table = table(&["name", "ready"]);
        table.add_row(["a-long-name", "1"]);
        assert!(table.to_string().lines().next().unwrap().contains("NAME"));
    }
}
