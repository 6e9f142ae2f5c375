//! A tap: this process is the machine at the other end of the cable that is plugged into a virtual interface of this host.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use kagero_aoe::link::Link;
use rustix::io::Errno;

use crate::interface::LEAST_MTU;
use crate::sys::{self, Name};
use crate::{Counters, ETHERNET_HEADER, Error, Interface, ServerLink};

/// Frames through a tap interface, made by this process or attached to if it is a persistent one. A tap of our own making is gone
/// when the link is dropped.
///
/// Its interface still needs `ip link set dev X up`; while it is down, frames are lost.
#[derive(Debug)]
pub struct TapLink {
    tap: OwnedFd,
    interface: Interface,
    mac: [u8; 6],
    receive: Box<[u8]>,
    transmit: Box<[u8]>,
    counters: Counters,
}

impl TapLink {
    /// Makes or attaches to the tap `name`.
    ///
    /// # Errors
    /// No permission, in use by another process, or a name that an interface of another kind has.
    pub fn open(name: &str) -> Result<Self, Error> {
        let kernel = |doing| move |source: io::Error| Error::Kernel { name: name.into(), doing, source };
        let denied = |source: io::Error, doing| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                Error::Permission { name: name.into(), capability: "CAP_NET_ADMIN" }
            }
            Some(libc::EBUSY) => Error::TapInUse(name.into()),
            Some(libc::EINVAL) => {
                Error::Kernel { name: name.into(), doing, source: io::Error::other("it is not a tap") }
            }
            _ => Error::Kernel { name: name.into(), doing, source },
        };
        let key = Name::new(name)
            .ok_or_else(|| kernel("make it")(io::Error::other("a name has 1 to 15 bytes, and no zero")))?;
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let tap = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/net/tun");
        let tap = OwnedFd::from(tap.map_err(|e| denied(e, "open /dev/net/tun for it"))?);
        sys::attach_tap(&tap, key).map_err(|e| denied(e, "attach to it"))?;
        let interface = Interface::find(name)?;
        if interface.mtu < LEAST_MTU {
            return Err(Error::SmallMtu { name: name.into(), mtu: interface.mtu });
        }
        let frame = || vec![0; ETHERNET_HEADER + interface.mtu].into_boxed_slice();
        let (receive, transmit) = (frame(), frame());
        // The host's end has the interface's address; ours is its neighbour, marked as locally administered.
        let mut mac = interface.mac;
        mac[0] = mac[0] & !1 | 2;
        mac[5] ^= 1;
        Ok(TapLink { tap, interface, mac, receive, transmit, counters: Counters::default() })
    }

    /// The host's side of the tap, as it was when the link was opened.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Frames moved and lost so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

impl ServerLink for TapLink {}

impl Link for TapLink {
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
        loop {
            match rustix::io::read(&self.tap, &mut self.receive[..]) {
                Ok(len) => {
                    self.counters.received += 1;
                    take(&self.receive[..len]);
                    return true;
                }
                Err(Errno::INTR) => {}
                // AGAIN: nothing waits. Anything else: the interface is gone, and nothing will ever wait.
                Err(_) => return false,
            }
        }
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let Some(len) = fill(&mut self.transmit).filter(|&len| len <= self.transmit.len()) else {
            return false;
        };
        let len = crate::pad(&mut self.transmit, len);
        // A tap takes a frame or loses it; EIO means that the interface is down.
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.tap, &self.transmit[..len])) {
            Ok(_) => self.counters.sent += 1,
            Err(_) => self.counters.unsent += 1,
        }
        true
    }

    fn mtu(&self) -> usize {
        self.interface.mtu
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }
}

impl AsFd for TapLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}
