//! One message that the hardware sends, on its way into the guest.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kagero_devices::pci::Message;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::ends::Ends;
use crate::Route;

/// An event that starts at zero.
pub(super) fn new_event(ends: &mut Ends) -> Option<OwnedFd> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    ends.check("making an event for its interrupts", event.map_err(Into::into))
}

/// A vector: the event that the hardware rings, and the message that the guest gets.
///
/// While the vector is masked the hardware still rings the event, and the event keeps it: that is the vector's pending bit. KVM looks at an event
/// when it is connected, so that what was kept is sent as soon as the vector is unmasked (PCI Local Bus 3.0, 6.8.3.5).
pub(super) struct Vector {
    event: OwnedFd,
    route: Option<(Route, Message)>,
}

impl Vector {
    pub(super) fn new(ends: &mut Ends) -> Option<Self> {
        Some(Vector { event: new_event(ends)?, route: None })
    }

    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// The guest gets this message from now on; none while the vector is masked.
    pub(super) fn send(&mut self, message: Option<Message>, ends: &mut Ends) {
        match (self.route, message) {
            (None, None) => {}
            (Some((_, now)), Some(message)) if now == message => {}
            (Some((route, _)), Some(message)) => {
                let outcome = ends.machine.redirect(route, message);
                match ends.check("changing an interrupt message", outcome) {
                    Some(()) => self.route = Some((route, message)),
                    None => self.send(None, ends),
                }
            }
            (None, Some(message)) => {
                let outcome = ends.machine.connect(self.event.as_fd(), message);
                self.route = ends.check("connecting an interrupt", outcome).map(|route| (route, message));
            }
            (Some((route, _)), None) => {
                ends.machine.disconnect(route, self.event.as_fd());
                self.route = None;
            }
        }
    }

    /// Whether it has rung while nobody was told.
    pub(super) fn is_pending(&self) -> bool {
        let mut fds = [PollFd::new(&self.event, PollFlags::IN)];
        self.route.is_none() && poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}
