//! What carries Ethernet frames.

/// A way for Ethernet frames, without their checksum, to and from another machine: a packet ring, a tap, a NIC's descriptor
/// ring, or a queue in memory. Never blocks.
///
/// One of the three seams between the hosted and the bare-metal build. Frames may be lost, doubled and reordered.
pub trait Link {
    /// Hands the next received frame to `take`; false when none is waiting.
    fn receive(&mut self, take: impl FnOnce(&[u8])) -> bool;

    /// Lets `fill` write a frame into a transmit buffer and return its length, or `None` for "nothing to send".
    ///
    /// False when nothing was sent: `fill` had nothing, or (`fill` is then not called) there is no room now.
    fn transmit(&mut self, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool;

    /// The largest Ethernet payload in bytes (the MTU): 1,500, or up to 9,000 and more with jumbo frames.
    fn mtu(&self) -> usize;

    /// Our own address on this link.
    fn mac(&self) -> [u8; 6];
}
