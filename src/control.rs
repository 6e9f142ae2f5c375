//! How a run ends: whoever sees a reason says so once, and everyone else notices.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Why the machine stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest asked for a reset: the machine starts again.
    Reset,
    /// The guest turned its power off.
    PowerOff,
    /// Somebody outside asked: a signal, the console's escape, a match or a time-out.
    Asked,
    /// The machine can't go on.
    Failed(String),
}

/// The one place where a run's end is decided; the first reason wins.
pub struct Control {
    ending: Mutex<Option<Ending>>,
    stopping: AtomicBool,
    wake: OwnedFd,
}

impl Control {
    /// A machine that runs.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> std::io::Result<Self> {
        Ok(Control {
            ending: Mutex::new(None),
            stopping: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// Ends the run. Later reasons are dropped.
    pub fn end(&self, why: Ending) {
        let mut ending = self.ending.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ending.is_none() {
            tracing::debug!("the machine stops: {why:?}");
            *ending = Some(why);
            self.stopping.store(true, Ordering::Release);
            // The only error is a counter at its limit: then the reader wakes anyway.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Whether threads of the machine should return.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Why the machine stops, once it does.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl AsFd for Control {
    /// Readable once the run has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
