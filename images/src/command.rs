//! Runs the tools of others, with errors that name the tool and what it said.

use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::process::{Command, Stdio};

/// A command from its words, without a shell and without standard input.
pub fn command<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().expect("a command has at least its name"));
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs `command` and returns its standard output.
///
/// # Errors
/// It could not be started (a missing tool is named, with the mend), or it failed: then the error holds the
/// last lines of what it wrote to standard error.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| match e.kind() {
        ErrorKind::NotFound => anyhow::anyhow!("{name}: not installed; run `cargo xtask setup`"),
        _ => anyhow::Error::new(e).context(name.clone()),
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.trim().is_empty() {
        said = String::from_utf8_lossy(&output.stdout).into_owned();
    }
    bail!("{name} failed ({}): {}", output.status, last_lines(&said, 5));
}

/// Runs `command`; its output is shown only when it fails.
///
/// # Errors
/// As [`output`].
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// As [`output`], as text.
///
/// # Errors
/// As [`output`], and output that is not UTF-8.
pub fn text(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    String::from_utf8(output(command)?).with_context(|| format!("{name} wrote something that is not UTF-8"))
}

/// The last `count` lines of `text` that hold something, joined to one line.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}
