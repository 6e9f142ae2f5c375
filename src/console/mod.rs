//! The guest's serial console: to the terminal, a pipe or a file, and watched on the way.

mod escape;
mod input;
mod output;
pub mod terminal;
mod watch;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};

pub use escape::{Escape, HELP, Key};
pub use input::Input;
pub use output::Output;
pub use watch::{Matcher, Milestones};

use crate::config::ConsoleSink;
use crate::error::{Error, UserError};
use crate::report::Recorder;
use crate::stop::{Exit, Stop};

/// The other end of the guest's serial line; cheap to clone, for any thread.
///
/// [`write`](Self::write) takes what the guest sends, [`input`](Self::input) has what it is to receive. The guest's text reaches the report
/// as phases, and ends the run when it is what `--expect` waits for.
#[derive(Clone, Debug)]
pub struct Console(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    input: Input,
    output: Option<Output>,
    on_terminal: bool,
    watch: Mutex<Watch>,
    stop: Stop,
    recorder: Recorder,
}

#[derive(Debug)]
struct Watch {
    bytes: u64,
    /// Whether the guest has left its cursor within a line.
    within_line: bool,
    expect: Option<Matcher>,
    milestones: Milestones,
}

/// The terminal and the thread that reads it; both end with this.
#[derive(Debug)]
pub struct Attached {
    console: Console,
    _terminal: Option<terminal::Lent>,
}

impl Console {
    /// Opens the console; nothing is read yet, and the terminal stays as it is.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn open(
        sink: &ConsoleSink,
        expect: Option<&str>,
        stop: &Stop,
        recorder: &Recorder,
    ) -> Result<Self, Error> {
        let output = match sink {
            ConsoleSink::Stdio => Some(Output::new(io::stdout(), stop)),
            ConsoleSink::File(path) => Some(Output::new(create(path)?, stop)),
            ConsoleSink::None => None,
        };
        let watch = Watch {
            bytes: 0,
            within_line: false,
            expect: expect.map(Matcher::new),
            milestones: Milestones::default(),
        };
        Ok(Self(Arc::new(Shared {
            input: Input::new().context("the console's event")?,
            output: output.transpose().context("the console's thread")?,
            on_terminal: *sink == ConsoleSink::Stdio && io::stdout().is_terminal(),
            watch: Mutex::new(watch),
            stop: stop.clone(),
            recorder: recorder.clone(),
        })))
    }

    /// Waits when whoever reads our output has stopped for long; until there is room again, the run ends, or the caller `gives_up`.
    ///
    /// Call it without a lock that others need.
    pub fn wait_for_room(&self, gives_up: impl Fn() -> bool) {
        if let Some(output) = &self.0.output {
            output.wait_for_room(gives_up);
        }
    }

    /// Takes what the guest sent; never waits.
    pub fn write(&self, bytes: &[u8]) {
        // Not under the lock, which the end of the run takes. The order of the bytes is the serial port's to keep.
        if let Some(output) = &self.0.output {
            output.push(bytes);
        }
        let mut watch = self.watch();
        watch.bytes += bytes.len() as u64;
        watch.within_line = bytes.last().map_or(watch.within_line, |&last| last != b'\n');
        for &byte in bytes {
            if let Some(name) = watch.milestones.push(byte) {
                self.0.recorder.phase(name);
            }
            if watch.expect.as_mut().is_some_and(|expect| expect.push(byte)) {
                watch.expect = None;
                self.0.recorder.phase("expected text");
                self.0.stop.request(Exit::Expected);
            }
        }
    }

    /// What the guest is to receive.
    #[must_use]
    pub fn input(&self) -> &Input {
        &self.0.input
    }

    /// The guest's machine starts again: its firmware will be seen again.
    pub fn reboot(&self) {
        self.watch().milestones = Milestones::default();
    }

    /// Begins to read standard input for the guest, and lends it the terminal when there is one.
    ///
    /// # Errors
    /// When the terminal's modes can't be set, or the thread can't be made.
    pub fn attach_stdin(&self) -> io::Result<Attached> {
        let stdin = io::stdin();
        let is_terminal = stdin.is_terminal();
        if is_terminal && !terminal::is_ours(stdin.as_fd()) {
            tracing::debug!("in the background: the terminal's keys are not read");
            return Ok(Attached { console: self.clone(), _terminal: None });
        }
        let fd = stdin.as_fd().try_clone_to_owned()?;
        let lent = if is_terminal { Some(terminal::lend(fd.as_fd())?) } else { None };
        let console = self.clone();
        std::thread::Builder::new()
            .name("console-in".into())
            .spawn(move || console.feed(&fd, is_terminal))?;
        Ok(Attached { console: self.clone(), _terminal: lent })
    }

    /// Reads `from` until its end, or the run's.
    fn feed(&self, from: &OwnedFd, is_terminal: bool) {
        let mut escape = Escape::default();
        let mut buffer = [0; 1024];
        loop {
            let mut fds =
                [PollFd::new(from, PollFlags::IN), PollFd::from_borrowed_fd(self.0.stop.fd(), PollFlags::IN)];
            if poll(&mut fds, None).is_err() {
                continue;
            }
            if self.0.stop.is_requested() {
                return;
            }
            let count = match rustix::io::read(from, &mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
                Err(error) => {
                    tracing::debug!("the console's input ends here: {error}");
                    return;
                }
            };
            let bytes = &buffer[..count];
            if is_terminal {
                self.typed(&mut escape, bytes);
            } else if !self.0.input.push_piped(bytes) {
                return;
            }
        }
    }

    fn typed(&self, escape: &mut Escape, bytes: &[u8]) {
        for &byte in bytes {
            match escape.push(byte) {
                Some(Key::Guest(byte)) => self.0.input.push_typed(&[byte]),
                Some(Key::Quit) => self.0.stop.request(Exit::Quit),
                Some(Key::Help) => crate::log::say(HELP),
                None => {}
            }
        }
    }

    /// Writes out what is waiting, and puts the counts into the report.
    pub fn close(&self) {
        self.0.input.close();
        let (bytes_out, within_line) = {
            let watch = self.watch();
            (watch.bytes, watch.within_line)
        };
        if let Some(output) = &self.0.output {
            // What we say next on the same terminal begins on a line of its own.
            if within_line && self.0.on_terminal {
                output.push(b"\r\n");
            }
            output.close();
        }
        let (taken, dropped) = self.0.input.counts();
        self.0.recorder.with(|report| {
            report.console.bytes_out = bytes_out;
            report.console.bytes_in = taken;
            report.console.dropped_in = dropped;
        });
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.0.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn create(path: &Path) -> Result<File, UserError> {
    File::create(path).map_err(|error| {
        let problem = format!("can't write the console's output: {error}");
        UserError::new(path.display(), problem, "check the folder's mode")
    })
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.console.0.input.close();
    }
}
