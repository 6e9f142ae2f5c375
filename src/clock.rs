//! The machine's monotonic clock, handed to devices and protocol as an argument, and timers on it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::LazyLock;

use kagero_devices::time::Instant;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

static ORIGIN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

/// Now, counted from the first call in this process.
pub fn now() -> Instant {
    Instant::from_nanos(u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// Wakes the thread that waits for its file descriptor, at the earliest of the moments it was given since it last fired.
///
/// A timer that fires early costs its thread one look; setting it for every command would cost a system call each.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: OwnedFd,
    armed: Option<Instant>,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Timer { fd, armed: None })
    }

    /// A descriptor to wait for: readable once the timer has fired.
    pub(crate) fn waitable(&self) -> io::Result<OwnedFd> {
        self.fd.as_fd().try_clone_to_owned()
    }

    /// Makes the timer fire at `at`, unless it will do so earlier.
    pub(crate) fn wake_at(&mut self, at: Option<Instant>, now: Instant) {
        let Some(at) = at.filter(|at| self.armed.is_none_or(|armed| *at < armed)) else { return };
        self.armed = Some(at);
        // Zero would switch it off.
        let nanos = at.saturating_since(now).as_nanos().clamp(1, u64::MAX.into()) as u64;
        let it_value =
            Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        if let Err(error) = timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once) {
            tracing::error!("a timer can't be set: {error}");
        }
    }

    /// It has fired, or may have.
    pub(crate) fn clear(&mut self) {
        // Fails only when there is nothing to clear.
        let _ = rustix::io::read(&self.fd, &mut [0; 8]);
        self.armed = None;
    }
}
