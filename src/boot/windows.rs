//! What of the address spaces is free for BARs.

use std::ops::RangeInclusive;

use crate::memory::{CHIPSET, PCI_HOLE};

/// Ports from here on are free.
const FIRST_PORT: u16 = 0xc000;
/// SeaBIOS puts BARs from here on when RAM ends below.
const USUAL_START: u64 = 0x8000_0000;
/// What lies above 4 GiB begins and ends with whole pages of the largest size.
const LARGE_PAGE: u64 = 1 << 30;

/// Where BARs may be. What firmware chooses lies inside, so that an operating system finds nothing to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Ports.
    pub ports: RangeInclusive<u16>,
    /// Memory below 4 GiB.
    pub memory32: RangeInclusive<u32>,
    /// Memory above 4 GiB, and above all RAM.
    pub memory64: Option<RangeInclusive<u64>>,
}

impl Windows {
    /// On a machine of which RAM below 4 GiB ends at `low_end` and all of it at `end`, and of which CPUs have addresses of `bits`.
    ///
    /// The upper window reaches to the CPUs' last address, as SeaBIOS from 1.16.3 on puts BARs at its end (or at 64 TiB): when there is RAM above
    /// 4 GiB, all of 64 bits but those of USB and NVMe controllers, else when they don't fit below. Older ones begin behind RAM, as the window
    /// does; `etc/reserved-memory-end` would move that beginning. When there is no RAM above 4 GiB, SeaBIOS leaves no room for alignment, so that
    /// a small BAR may lie past the end: operating systems move it.
    ///
    /// # Panics
    /// When `low_end` is not below the chipset.
    #[must_use]
    pub fn new(low_end: u64, end: u64, bits: u8) -> Self {
        assert!(low_end < CHIPSET.start, "RAM ends at {low_end:#x}, behind the chipset");
        let first = end.max(PCI_HOLE.end).next_multiple_of(LARGE_PAGE);
        let last = 1u64.checked_shl(bits.into()).map_or(u64::MAX, |end| end - 1);
        Windows {
            ports: FIRST_PORT..=u16::MAX,
            memory32: low_end.max(USUAL_START) as u32..=(CHIPSET.start - 1) as u32,
            memory64: (first < last).then_some(first..=last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_beside_ram() {
        const GIB: u64 = 1 << 30;
        let small = Windows::new(GIB, GIB, 40);
        assert_eq!(small.memory32, 0x8000_0000..=0xfebf_ffff);
        assert_eq!(small.memory64, Some(4 * GIB..=(1 << 40) - 1));
        let large = Windows::new(3 * GIB, 6 * GIB + 4096, 36);
        assert_eq!(large.memory32, 0xc000_0000..=0xfebf_ffff);
        assert_eq!(large.memory64, Some(7 * GIB..=(1 << 36) - 1));
        assert_eq!(Windows::new(3 * GIB, 1 << 36, 36).memory64, None);
    }
}
