//! What carries Ethernet frames.

/// A way for Ethernet frames, without their checksum, to and from another machine: a packet ring, a tap, a NIC's descriptor
/// ring, or a queue in memory. Never blocks.
///
/// One of the three seams between the hosted and the bare-metal build. Frames may be lost, doubled and reordered.
pub trait Link {
    /// Hands the next received frame to `take`; false when none is waiting.
    ///
    /// Call until it is false: only then does a link with a file descriptor stop to be readable.
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool;

    /// Lets `fill` write a frame into a transmit buffer and return its length, or `None` for "nothing to send".
    ///
    /// The buffer holds whatever an earlier frame left there, so `fill` writes every byte that it counts. A link to real Ethernet pads
    /// short frames with zeros to 60 bytes.
    ///
    /// False when nothing was sent: `fill` had nothing, or (`fill` is then not called) there is no room now.
    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool;

    /// From now on frames may wait in the transmit buffers, to go out together at [`flush`](Self::flush). Where that gains nothing, nothing
    /// happens.
    fn hold(&mut self) {}

    /// Sends what [`hold`](Self::hold) kept back and ends the holding. False when some of it must still wait because the network
    /// can't take it now; a later `flush` or `transmit` tries again.
    fn flush(&mut self) -> bool {
        true
    }

    /// The largest Ethernet payload in bytes (the MTU): 1,500, or up to 9,000 and more with jumbo frames.
    fn mtu(&self) -> usize;

    /// Our own address on this link.
    fn mac(&self) -> [u8; 6];
}

impl<L: Link + ?Sized> Link for &mut L {
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool {
        (**self).receive(take)
    }

    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        (**self).transmit(fill)
    }

    fn hold(&mut self) {
        (**self).hold();
    }

    fn flush(&mut self) -> bool {
        (**self).flush()
    }

    fn mtu(&self) -> usize {
        (**self).mtu()
    }

    fn mac(&self) -> [u8; 6] {
        (**self).mac()
    }
}
