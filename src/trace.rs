//! The trace of register accesses that `--trace` asks for: a line each.
//!
//! ```text
//! # seconds cpu device register access bytes value
//! 0.812345678 0 ide 1f7 read 1 0x50
//! ```

use std::fmt::{self, Display, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::config::{TraceConfig, TraceSink};
use crate::error::{UserError, nearest};

/// Whether a register was read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest read.
    Read,
    /// The guest wrote.
    Write,
}

impl Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Read => "read",
            Direction::Write => "write",
        })
    }
}

/// Where accesses are written down; when nothing is, a test of one pointer.
#[derive(Clone, Default)]
pub struct Trace(Option<Arc<Shared>>);

struct Shared {
    start: Instant,
    devices: Vec<String>,
    out: Mutex<Out>,
}

struct Out {
    to: Box<dyn Write + Send>,
    line: String,
    failed: bool,
}

impl Trace {
    /// A trace of nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Opens what `config` asks for.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn open(config: &TraceConfig) -> Result<Self, UserError> {
        let to: Box<dyn Write + Send> = match &config.sink {
            TraceSink::Stderr => Box::new(BufWriter::new(io::stderr())),
            TraceSink::File(path) => Box::new(BufWriter::new(File::create(path).map_err(|error| {
                UserError::new(
                    path.display(),
                    format!("can't write the trace: {error}"),
                    "check the folder's mode",
                )
            })?)),
        };
        Ok(Self::to(to, config.devices.clone()))
    }

    /// A trace into `out` of these `devices`, or of all when there are none.
    #[must_use]
    pub fn to(mut out: Box<dyn Write + Send>, devices: Vec<String>) -> Self {
        let failed = out.write_all(b"# seconds cpu device register access bytes value\n").is_err();
        let out = Mutex::new(Out { to: out, line: String::new(), failed });
        Self(Some(Arc::new(Shared { start: Instant::now(), devices, out })))
    }

    /// Whether anything is written down at all.
    #[must_use]
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes down one access: `data` is what was read or written, lowest byte first.
    #[inline]
    pub fn access(&self, cpu: u8, device: &str, register: impl Display, direction: Direction, data: &[u8]) {
        if let Some(shared) = &self.0 {
            shared.access(cpu, device, &register, direction, data);
        }
    }

    /// Hands what is buffered to the operating system.
    pub fn flush(&self) {
        if let Some(shared) = &self.0 {
            shared.out.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
    }
}

/// Checks the names of the devices to be traced against those that the `board` has.
///
/// # Errors
/// For the first name that no device has.
pub fn check_devices(config: &TraceConfig, board: &[&str]) -> Result<(), UserError> {
    let Some(name) = config.devices.iter().find(|name| !board.contains(&name.as_str())) else {
        return Ok(());
    };
    let mend = match nearest(name, board.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("the board has {}", board.join(", ")),
    };
    Err(UserError::new("--trace-device", format!("there is no device \"{name}\""), mend))
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({})", if self.is_on() { "on" } else { "off" })
    }
}

impl Shared {
    #[cold]
    fn access(&self, cpu: u8, device: &str, register: &dyn Display, direction: Direction, data: &[u8]) {
        if !self.devices.is_empty() && !self.devices.iter().any(|name| name == device) {
            return;
        }
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that the lines are in the order of their times.
        let now = self.start.elapsed();
        let mut line = std::mem::take(&mut out.line);
        line.clear();
        let _ = write!(
            line,
            "{}.{:09} {cpu} {device} {register} {direction} ",
            now.as_secs(),
            now.subsec_nanos()
        );
        let _ = write!(line, "{} 0x", data.len());
        // A string instruction moves more than a register: its bytes follow in the order of their addresses.
        match data.len() {
            0..=8 => data.iter().rev().try_for_each(|byte| write!(line, "{byte:02x}")),
            _ => data.iter().try_for_each(|byte| write!(line, "{byte:02x}")),
        }
        .unwrap_or_default();
        line.push('\n');
        out.write(line.as_bytes());
        out.line = line;
    }
}

impl Out {
    fn write(&mut self, line: &[u8]) {
        if !self.failed {
            let result = self.to.write_all(line);
            self.settle(result);
        }
    }

    fn flush(&mut self) {
        if !self.failed {
            let result = self.to.flush();
            self.settle(result);
        }
    }

    /// A full disk ends the trace, not the guest.
    fn settle(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.failed = true;
            tracing::warn!("the trace ends here: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Lines(mpsc::Sender<String>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_for_each_access_to_the_devices_asked_for() {
        let (sender, lines) = mpsc::channel();
        let trace = Trace::to(Box::new(Lines(sender)), vec!["ide".into()]);
        trace.access(1, "ide", format_args!("{:x}", 0x1f7), Direction::Read, &[0x50]);
        trace.access(0, "uart", "thr", Direction::Write, b"x");
        trace.access(0, "ide", "data", Direction::Write, &[0x34, 0x12]);
        drop(trace);
        let lines: Vec<String> = lines.iter().collect();
        let without_time: Vec<_> = lines.iter().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(
            without_time,
            [
                "seconds cpu device register access bytes value\n",
                "1 ide 1f7 read 1 0x50\n",
                "0 ide data write 2 0x1234\n"
            ]
        );
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let of = |name: &str| TraceConfig { sink: TraceSink::Stderr, devices: vec![name.into()] };
        assert_eq!(
            check_devices(&of("idee"), &["ide", "uart"]).unwrap_err().to_string(),
            "--trace-device: there is no device \"idee\": did you mean \"ide\"?"
        );
        assert!(check_devices(&of("ide"), &["ide", "uart"]).is_ok());
        assert!(!Trace::off().is_on());
    }
}
