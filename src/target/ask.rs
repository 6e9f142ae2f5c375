//! The client's side: one question to a server that runs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::de::DeserializeOwned;

use super::protocol::{Complaint, Reply};
use crate::error::{Error, UserError};

/// Longer than a server takes for anything: a disk that is removed may have requests under way for a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// More than the longest listing.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Asks the server that listens at `socket`, and takes its answer.
///
/// # Errors
/// Nobody is there, or what the server says.
pub fn ask<T: DeserializeOwned>(socket: &Path, request: &serde_json::Value) -> Result<T, Error> {
    let stream = UnixStream::connect(socket).map_err(|error| nobody(socket, &error))?;
    let answer = exchange(stream, request)
        .with_context(|| format!("{}: no answer from the server", socket.display()))?;
    let reply = serde_json::from_str(&answer)
        .with_context(|| format!("{}: an answer that can't be understood", socket.display()))?;
    match reply {
        Reply::Ok(payload) => Ok(payload),
        Reply::Error(Complaint { line, code: 2 }) => Err(UserError::new("", line, "").into()),
        Reply::Error(Complaint { line, code: _ }) => Err(Error::Failure(anyhow::Error::msg(line))),
    }
}

fn exchange(mut stream: UnixStream, request: &serde_json::Value) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(LONGEST_ANSWER)).read_line(&mut answer)?;
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}

fn nobody(socket: &Path, error: &io::Error) -> UserError {
    let (problem, mend) = match error.kind() {
        io::ErrorKind::NotFound => {
            ("no server listens there".into(), "start `kagero serve`, or name its socket with --control")
        }
        io::ErrorKind::ConnectionRefused => {
            ("the server that listened there has ended".into(), "start `kagero serve` again")
        }
        io::ErrorKind::PermissionDenied => {
            ("no permission to use this control socket".into(), "be root, or the user that serves")
        }
        _ => (format!("can't reach a server there: {error}"), "name its socket with --control"),
    };
    UserError::new(socket.display(), problem, mend)
}
