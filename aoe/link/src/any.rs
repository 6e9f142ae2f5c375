//! One type for whatever link was asked for, so that its users need no type parameter.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use kagero_aoe::link::Link;

use crate::capture::Writer;
use crate::{Captured, Counters, Error, MemoryLink, PacketLink, TapLink, packet};

/// What carries the frames in the end.
#[derive(Debug)]
pub enum Carrier {
    /// A cable in memory.
    Memory(MemoryLink),
    /// A network interface.
    Packet(PacketLink),
    /// A tap.
    Tap(TapLink),
}

/// Some link, with or without a capture file.
#[derive(Debug)]
pub struct AnyLink {
    path: Captured<Carrier>,
}

/// Opens the link that a user named: an interface (`eth1`), or `tap:NAME` for a tap of that name.
///
/// # Errors
/// As [`PacketLink::open`] and [`TapLink::open`].
pub fn open(name: &str) -> Result<AnyLink, Error> {
    match name.strip_prefix("tap:") {
        Some(tap) => TapLink::open(tap).map(AnyLink::from),
        None => PacketLink::open(name, packet::Options::default()).map(AnyLink::from),
    }
}

impl AnyLink {
    /// Also writes every frame to a capture file.
    ///
    /// # Errors
    /// [`Error::Capture`] when the file can't be made.
    pub fn captured(mut self, file: &Path) -> Result<Self, Error> {
        self.path.capture(Writer::create(file)?);
        Ok(self)
    }

    /// Frames moved and lost so far.
    pub fn counters(&mut self) -> Counters {
        match self.path.link() {
            Carrier::Memory(link) => link.counters(),
            Carrier::Packet(link) => link.counters(),
            Carrier::Tap(link) => link.counters(),
        }
    }
}

impl From<Carrier> for AnyLink {
    fn from(carrier: Carrier) -> Self {
        AnyLink { path: Captured::new(carrier, None) }
    }
}

impl From<MemoryLink> for AnyLink {
    fn from(link: MemoryLink) -> Self {
        Carrier::Memory(link).into()
    }
}

impl From<PacketLink> for AnyLink {
    fn from(link: PacketLink) -> Self {
        Carrier::Packet(link).into()
    }
}

impl From<TapLink> for AnyLink {
    fn from(link: TapLink) -> Self {
        Carrier::Tap(link).into()
    }
}

/// Calls the same method of whichever link it is.
macro_rules! carrier {
    ($carrier:expr, $link:ident => $call:expr) => {
        match $carrier {
            Carrier::Memory($link) => $call,
            Carrier::Packet($link) => $call,
            Carrier::Tap($link) => $call,
        }
    };
}

impl Link for Carrier {
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
        carrier!(self, link => link.receive(take))
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        carrier!(self, link => link.transmit(fill))
    }

    fn hold(&mut self) {
        carrier!(self, link => link.hold());
    }

    fn flush(&mut self) -> bool {
        carrier!(self, link => link.flush())
    }

    fn mtu(&self) -> usize {
        carrier!(self, link => link.mtu())
    }

    fn mac(&self) -> [u8; 6] {
        carrier!(self, link => link.mac())
    }
}

impl AsFd for Carrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        carrier!(self, link => link.as_fd())
    }
}

impl Link for AnyLink {
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
        self.path.receive(take)
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        self.path.transmit(fill)
    }

    fn hold(&mut self) {
        self.path.hold();
    }

    fn flush(&mut self) -> bool {
        self.path.flush()
    }

    fn mtu(&self) -> usize {
        self.path.mtu()
    }

    fn mac(&self) -> [u8; 6] {
        self.path.mac()
    }
}

impl AsFd for AnyLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.path.as_fd()
    }
}
