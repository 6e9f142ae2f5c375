//! Waiting for file descriptors: a thread that does one thing whenever any of them is readable.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};

/// Calls `ready` with the descriptor whenever one of `fds` is readable, and `going_on` before each wait, until that says no.
///
/// # Errors
/// When the process is out of file descriptors.
pub(crate) fn serve(
    fds: &[BorrowedFd<'_>],
    going_on: impl Fn() -> bool,
    ready: impl FnMut(RawFd),
) -> io::Result<()> {
    let mut manager = EventManager::new_with_capacity(fds.len()).map_err(io::Error::other)?;
    let subscriber = Subscriber { fds, ready, failed: None };
    let id = manager.add_subscriber(subscriber);
    if let Some(error) = manager.subscriber_mut(id).map_err(io::Error::other)?.failed.take() {
        return Err(io::Error::other(error));
    }
    while going_on() {
        match manager.run() {
            Ok(_) => {}
            Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(())
}

struct Subscriber<'a, F> {
    fds: &'a [BorrowedFd<'a>],
    ready: F,
    failed: Option<event_manager::Error>,
}

impl<F: FnMut(RawFd)> MutEventSubscriber for Subscriber<'_, F> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let add = |fd: &BorrowedFd<'_>| ops.add(Events::new_raw(fd.as_raw_fd(), EventSet::IN));
        self.failed = self.fds.iter().try_for_each(add).err();
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        (self.ready)(events.fd());
    }
}
