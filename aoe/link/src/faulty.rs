//! An unreliable network on a real link, by a real clock: for testing drivers, initiators and targets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kagero_aoe::Instant;
use kagero_aoe::link::Link;
use kagero_aoe::simulation::{Faults, FaultyLink, Tally};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

use crate::ServerLink;

/// A link whose frames are lost, doubled, delayed and reordered.
///
/// Its file descriptor is also readable when a frame that was held back is due, in either direction: who waits for it and then receives has
/// nothing else to do.
#[derive(Debug)]
pub struct Faulty<L> {
    link: FaultyLink<L, fn() -> Instant>,
    /// Readable while `link` or `timer` is.
    ready: OwnedFd,
    timer: OwnedFd,
    /// When the timer goes off, or went.
    due: Option<Instant>,
}

/// The kernel's monotonic clock, which the timer goes by as well.
fn now() -> Instant {
    let now = clock_gettime(ClockId::Monotonic);
    Instant::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

impl<L: Link + AsFd> Faulty<L> {
    /// Puts faults, thrown from `seed`, before both directions of a link.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new(link: L, faults: &Faults, seed: u64) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&ready, &link, EventData::new_u64(0), EventFlags::IN)?;
        epoll::add(&ready, &timer, EventData::new_u64(1), EventFlags::IN)?;
        Ok(Faulty { link: FaultyLink::new(link, faults, seed, now), ready, timer, due: None })
    }

    /// What happened to the frames sent, and to those received.
    #[must_use]
    pub fn tally(&self) -> (Tally, Tally) {
        self.link.tally()
    }

    /// The link inside.
    pub fn inner_mut(&mut self) -> &mut L {
        self.link.inner_mut()
    }

    /// The link without its faults. What was held back is lost.
    #[must_use]
    pub fn into_inner(self) -> L {
        self.link.into_inner()
    }

    /// Sets the timer to the next frame that is due. It stays readable from then until it is set anew.
    fn wake_when_due(&mut self) {
        let due = self.link.next_due();
        if due == self.due {
            return;
        }
        self.due = due;
        // Zero would stop the timer.
        let nanos = due.map_or(0, |due| due.as_nanos().max(1));
        let value =
            Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // Fails for times only that are no times.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once);
    }
}

impl<L: Link + AsFd> Link for Faulty<L> {
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
        let received = self.link.receive(take);
        self.wake_when_due();
        received
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let sent = self.link.transmit(fill);
        self.wake_when_due();
        sent
    }

    fn mtu(&self) -> usize {
        self.link.mtu()
    }

    fn mac(&self) -> [u8; 6] {
        self.link.mac()
    }
}

impl<L: Link + AsFd> ServerLink for Faulty<L> {}

impl<L> AsFd for Faulty<L> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}
