//! The end of a node's log, for error messages.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

const TAIL_BYTES: u64 = 4 * 1024;

/// The last lines of a log, or why there are none.
pub(crate) fn log_tail(path: &Path) -> String {
    match read_tail(path) {
        Ok(tail) if tail.is_empty() => format!("({} is empty)", path.display()),
        Ok(tail) => format!("{}:\n{tail}", path.display()),
        Err(error) => format!("({}: {error})", path.display()),
    }
}

fn read_tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line is a fragment unless the whole log is shown.
    let whole_lines = if start == 0 { &text } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
    Ok(whole_lines.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_last_whole_lines_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.log");
        let lines: Vec<String> = (0..1000).map(|number| format!("line {number:04}")).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let tail = read_tail(&path).unwrap();
        assert!(tail.ends_with("line 0999"), "{tail}");
        assert!(tail.starts_with("line 0"), "begins with a whole line: {tail}");
        assert!(tail.len() <= TAIL_BYTES as usize);
    }

    #[test]
    fn says_what_is_wrong_with_a_missing_log() {
        let tail = log_tail(Path::new("/nonexistent/server.log"));
        assert!(tail.contains("/nonexistent/server.log"), "{tail}");
    }
}
