//! Links that carry Ethernet frames: packet ring, tap, in memory; and what can be put between: a capture file, an unreliable network.
//!
//! Every link implements [`kagero_aoe::link::Link`] and [`AsFd`](std::os::fd::AsFd): its file descriptor is readable while frames wait, until
//! [`receive`](kagero_aoe::link::Link::receive) has returned false.

use kagero_aoe::link::Link;

pub mod any;
pub mod buffer;
pub mod capture;
pub mod error;
pub mod faulty;
pub mod interface;
pub mod memory;
pub mod packet;
pub mod pages;
pub mod tail;
pub mod tap;

mod sys;

pub use any::{AnyLink, open};
pub use buffer::{Buffer, Buffers};
pub use capture::Captured;
pub use error::Error;
pub use faulty::Faulty;
pub use interface::Interface;
pub use memory::MemoryLink;
pub use packet::PacketLink;
pub use tail::Tail;
pub use tap::TapLink;

/// A link that may do more for a server: send data from where it is, which spares the copy in between, and tell of frames without a system call.
pub trait ServerLink: Link {
    /// Whether a frame waits; `None` if that can't be seen at once.
    fn has_frame(&self) -> Option<bool> {
        None
    }

    /// Whether [`transmit_with`](Self::transmit_with) takes a file's mapped pages.
    fn takes_pages(&self) -> bool {
        false
    }

    /// As [`transmit`](Link::transmit), for a frame that `fill` writes the beginning of, and that ends with the tail, if there is one: 24 bytes at
    /// least, so that nothing is left to pad.
    fn transmit_with(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<(usize, Option<Tail>)>) -> bool {
        self.transmit(tail::copied(fill))
    }
}

/// The shortest Ethernet frame without its checksum: what is shorter is padded with zeros before it goes to a network.
///
/// Network cards pad by themselves, but a veth pair or a tap hands on what it got, and some AoE clients drop such frames.
pub(crate) const SHORTEST_FRAME: usize = 60;

/// Ethernet header: destination, source, type.
pub(crate) const ETHERNET_HEADER: usize = 14;

/// Frames that a link moved and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed to the caller.
    pub received: u64,
    /// Frames given to the network.
    pub sent: u64,
    /// Received frames that were lost because the receive ring was full.
    pub overrun: u64,
    /// Received frames that were passed over: too long for the ring, or of another VLAN or address.
    pub ignored: u64,
    /// Frames the network did not take: the interface was down, the peer's queue was full.
    pub unsent: u64,
}

/// Pads a frame of `len` bytes at the start of `buffer` with zeros; the length to send.
pub(crate) fn pad(buffer: &mut [u8], len: usize) -> usize {
    match buffer.get_mut(len..SHORTEST_FRAME) {
        Some(tail) => {
            tail.fill(0);
            SHORTEST_FRAME
        }
        None => len,
    }
}
