//! One type for whatever link was asked for, so that its users need no type parameter.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use kagero_aoe::link::Link;
use kagero_aoe::simulation::{Faults, Tally};

use crate::capture::Writer;
use crate::{Captured, Counters, Error, Faulty, MemoryLink, PacketLink, ServerLink, Tail, TapLink, packet};

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

/// Some link, with or without a capture file and faults. The file shows what the network carries: behind the faults for what is sent, before
/// them for what is received.
#[derive(Debug)]
pub struct AnyLink {
    path: Way,
}

#[derive(Debug)]
enum Way {
    /// Nobody looks at frames on their way: that of nearly all frames of a server.
    Bare(Box<PacketLink>),
    Plain(Box<Captured<Carrier>>),
    Faulty(Box<Faulty<Captured<Carrier>>>),
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

impl AnyLink {
    /// Also writes every frame to a capture file.
    ///
    /// # Errors
    /// [`Error::Capture`] when the file can't be made.
    pub fn captured(self, file: &Path) -> Result<Self, Error> {
        let writer = Some(Writer::create(file)?);
        let path = match self.path {
            Way::Bare(link) => Way::Plain(Box::new(Captured::new(Carrier::Packet(*link), writer))),
            Way::Plain(mut link) => {
                link.capture(writer);
                Way::Plain(link)
            }
            Way::Faulty(mut faulty) => {
                faulty.inner_mut().capture(writer);
                Way::Faulty(faulty)
            }
        };
        Ok(AnyLink { path })
    }

    /// Also does to frames, in both directions, what an unreliable network does; from `seed` on, the same each time. In place of
    /// earlier faults.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn with_faults(self, faults: &Faults, seed: u64) -> io::Result<Self> {
        let link = match self.path {
            Way::Bare(link) => Captured::new(Carrier::Packet(*link), None),
            Way::Plain(link) => *link,
            Way::Faulty(faulty) => faulty.into_inner(),
        };
        Ok(AnyLink { path: Way::Faulty(Box::new(Faulty::new(link, faults, seed)?)) })
    }

    /// What the faults did to the frames sent, and to those received; `None` without faults.
    #[must_use]
    pub fn fault_tally(&self) -> Option<(Tally, Tally)> {
        match &self.path {
            Way::Bare(_) | Way::Plain(_) => None,
            Way::Faulty(faulty) => Some(faulty.tally()),
        }
    }

    /// Frames moved and lost so far by the carrier.
    pub fn counters(&mut self) -> Counters {
        let carrier = match &mut self.path {
            Way::Bare(link) => return link.counters(),
            Way::Plain(link) => link.link(),
            Way::Faulty(faulty) => faulty.inner_mut().link(),
        };
        carrier!(carrier, link => link.counters())
    }
}

impl From<Carrier> for AnyLink {
    fn from(carrier: Carrier) -> Self {
        AnyLink { path: Way::Plain(Box::new(Captured::new(carrier, None))) }
    }
}

impl From<MemoryLink> for AnyLink {
    fn from(link: MemoryLink) -> Self {
        Carrier::Memory(link).into()
    }
}

impl From<PacketLink> for AnyLink {
    fn from(link: PacketLink) -> Self {
        AnyLink { path: Way::Bare(Box::new(link)) }
    }
}

impl From<TapLink> for AnyLink {
    fn from(link: TapLink) -> Self {
        Carrier::Tap(link).into()
    }
}

macro_rules! way {
    ($way:expr, $link:ident => $call:expr) => {
        match $way {
            Way::Bare($link) => $call,
            Way::Plain($link) => $call,
            Way::Faulty($link) => $call,
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
        way!(&mut self.path, link => link.receive(take))
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        way!(&mut self.path, link => link.transmit(fill))
    }

    fn hold(&mut self) {
        way!(&mut self.path, link => link.hold());
    }

    fn flush(&mut self) -> bool {
        way!(&mut self.path, link => link.flush())
    }

    fn mtu(&self) -> usize {
        way!(&self.path, link => link.mtu())
    }

    fn mac(&self) -> [u8; 6] {
        way!(&self.path, link => link.mac())
    }
}

impl ServerLink for AnyLink {
    fn has_frame(&self) -> Option<bool> {
        way!(&self.path, link => link.has_frame())
    }

    /// A bare interface does: whoever looks at frames on their way must see all of them.
    fn takes_pages(&self) -> bool {
        way!(&self.path, link => link.takes_pages())
    }

    fn transmit_with(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<(usize, Option<Tail>)>) -> bool {
        way!(&mut self.path, link => link.transmit_with(fill))
    }
}

impl AsFd for AnyLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        way!(&self.path, link => link.as_fd())
    }
}
