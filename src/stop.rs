//! Why and when a run ends: whoever knows first says so, everyone else hears it on one file descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use serde::Serialize;

use crate::error::Error;

/// How a run ended, when nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum Exit {
    /// The guest switched its machine off.
    PowerOff,
    /// The guest reset its machine, and the run was to end there (`--no-reboot`).
    Reset,
    /// The text of `--expect` was seen on the console.
    Expected,
    /// The time of `--timeout` is over.
    TimedOut,
    /// A signal asked for the end.
    Signal {
        /// Its number: 2 for ctrl-C, 15 for `kill`.
        number: u8,
    },
    /// Ctrl-A x on the terminal.
    Quit,
}

impl Exit {
    /// The process's exit code. A run that ends by itself without having seen what it was `expecting` has failed.
    #[must_use]
    pub fn code(self, expecting: bool) -> u8 {
        match self {
            Exit::Expected => 0,
            Exit::PowerOff | Exit::Reset | Exit::Quit => u8::from(expecting),
            Exit::TimedOut => 124,
            Exit::Signal { number } => 128 + number.min(127),
        }
    }
}

/// A handle with which any thread ends the run; the first reason stands.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    outcome: Mutex<State>,
    event: OwnedFd,
}

#[derive(Debug)]
enum State {
    Running,
    Stopped(Result<Exit, Error>),
    Taken,
}

impl Stop {
    /// A run that goes on.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Shared { outcome: Mutex::new(State::Running), event })))
    }

    /// Ends the run for this reason, unless it has ended already.
    pub fn request(&self, exit: Exit) {
        self.settle(Ok(exit));
    }

    /// Ends the run because something failed, unless it has ended already.
    pub fn fail(&self, error: impl Into<Error>) {
        self.settle(Err(error.into()));
    }

    fn settle(&self, outcome: Result<Exit, Error>) {
        let mut state = self.state();
        if matches!(*state, State::Running) {
            *state = State::Stopped(outcome);
            // The counter can't overflow: it is written once.
            let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        }
    }

    /// Whether the run has ended.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        !matches!(*self.state(), State::Running)
    }

    /// Readable from the end of the run on, for ever: nobody needs to read it.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }

    /// Waits for the end, at most for `limit` when there is one; true when the run has ended.
    #[must_use]
    pub fn wait(&self, limit: Option<Duration>) -> bool {
        let deadline = limit.map(|limit| std::time::Instant::now() + limit);
        loop {
            if self.is_requested() {
                return true;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.0.event, PollFlags::IN)];
            // An interrupted wait is simply begun again.
            let _ = poll(&mut fds, timeout.as_ref());
        }
    }

    /// Ends the run once `limit` is over, if it has not ended before.
    ///
    /// # Errors
    /// When the thread that waits can't be made.
    pub fn after(&self, limit: Duration) -> io::Result<()> {
        let stop = self.clone();
        std::thread::Builder::new().name("timeout".into()).spawn(move || {
            if !stop.wait(Some(limit)) {
                stop.request(Exit::TimedOut);
            }
        })?;
        Ok(())
    }

    /// How the run ended, once: `None` while it goes on or when somebody has taken it.
    #[must_use]
    pub fn take(&self) -> Option<Result<Exit, Error>> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Stopped(outcome) => Some(outcome),
            State::Running => {
                *state = State::Running;
                None
            }
            State::Taken => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stands() {
        let stop = Stop::new().unwrap();
        assert!(!stop.wait(Some(Duration::ZERO)));
        assert!(stop.take().is_none());
        stop.request(Exit::PowerOff);
        stop.fail(anyhow::anyhow!("too late"));
        assert!(stop.wait(None));
        assert!(matches!(stop.take(), Some(Ok(Exit::PowerOff))));
        assert!(stop.take().is_none());
        assert!(stop.is_requested());
    }

    #[test]
    fn another_thread_wakes_the_waiting_one() {
        let stop = Stop::new().unwrap();
        let other = stop.clone();
        let thread = std::thread::spawn(move || other.request(Exit::Signal { number: 15 }));
        assert!(stop.wait(None));
        thread.join().unwrap();
        assert_eq!(stop.take().unwrap().unwrap().code(false), 143);
    }

    #[test]
    fn time_ends_a_silent_run() {
        let stop = Stop::new().unwrap();
        stop.after(Duration::from_millis(1)).unwrap();
        assert!(stop.wait(None));
        assert_eq!(stop.take().unwrap().unwrap(), Exit::TimedOut);
    }

    #[test]
    fn a_run_that_never_showed_what_was_expected_has_failed() {
        assert_eq!(Exit::PowerOff.code(false), 0);
        assert_eq!(Exit::PowerOff.code(true), 1);
        assert_eq!(Exit::Expected.code(true), 0);
        assert_eq!(Exit::TimedOut.code(true), 124);
        assert_eq!(Exit::Signal { number: 2 }.code(true), 130);
    }
}
