//! Runs programs of the system: `ip`, `mount` and the like.

use std::process::{Command, Stdio};

use crate::harness::error::HarnessError;

/// Runs a program to its end and answers what it printed; what it printed is the error if it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, HarnessError> {
    let error = |output: String| {
        let line = std::iter::once(program).chain(arguments.iter().copied()).collect::<Vec<_>>().join(" ");
        HarnessError::Command { command: line, output }
    };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|source| error(source.to_string()))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(error(format!("{}: {}{}", output.status, complaint.trim(), printed.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_command_and_what_it_said() {
        let error = run("sh", &["-c", "echo no such disk >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("exit 3") && error.contains("no such disk"), "{error}");
        assert!(run("no-such-program-here", &[]).is_err());
        assert_eq!(run("echo", &["yes"]).unwrap(), "yes\n");
    }
}
