//! The AoE wire format: Ethernet frames of type 88A2h, as "ATA over Ethernet" (AoEr11) lays them out.
//!
//! Parsing takes the bytes that were really received and believes no length or count beyond them; it borrows and never
//! allocates. A received frame is taken apart in two steps, since a server must answer a good header with a bad argument:
//! [`Frame::parse`] for the header, then the `parse` of [`Ata`], [`Config`], [`MaskList`] or [`ReserveList`] for the argument.
//! [`encode`] is the one way out: header, argument, padding.
//!
//! ```
//! use kagero_aoe::wire::{self, Address, Command, Config, Frame, Header, MacAddress};
//!
//! let header = Header::request(MacAddress([2, 0, 0, 0, 0, 1]), MacAddress::BROADCAST, Address::BROADCAST, Command::Config, 7);
//! let mut buffer = [0; 1514];
//! let length = wire::encode(&mut buffer, &header, |out| Config::query().encode(out)).unwrap();
//! assert_eq!(length, wire::MIN_FRAME);
//! let frame = Frame::parse(&buffer[..length]).unwrap();
//! assert_eq!(frame.header, header);
//! assert_eq!(Config::parse(frame.argument).unwrap(), Config::query());
//! ```

mod address;
mod ata;
mod config;
mod header;
mod list;

pub use address::{Address, MacAddress, ParseAddressError};
pub use ata::{ATA_LENGTH, Ata};
pub use config::{CONFIG_LENGTH, Config, ConfigCommand, MAX_CONFIG_STRING};
pub use header::{Command, ErrorCode, Frame, HEADER_LENGTH, Header};
pub use list::{
    DirectiveCommand, MaskCommand, MaskDirective, MaskError, MaskList, ReserveCommand, ReserveList,
};

use core::fmt;

/// The Ethernet type of AoE.
pub const ETHERTYPE: u16 = 0x88a2;

/// The protocol version that this crate speaks, the only one there is.
pub const VERSION: u8 = 1;

/// Bytes in an Ethernet header; the MTU of a link doesn't count them.
pub const ETHERNET_HEADER: usize = 14;

/// The shortest Ethernet frame without its checksum. Shorter ones are padded with zeros here: over a veth pair nobody else does it,
/// and some clients drop them.
pub const MIN_FRAME: usize = 60;

/// Bytes in a sector as AoE counts them.
pub const SECTOR: usize = 512;

/// Where the data of an ATA frame begins.
pub const DATA_OFFSET: usize = HEADER_LENGTH + ATA_LENGTH;

/// How many sectors of data an ATA frame carries on a link with this MTU; 0 when not even one fits.
///
/// The Ethernet payload holds 10 bytes of AoE header and 12 of ATA argument before the data: 2 sectors fit 1,500 bytes, 17 fit 9,000.
#[must_use]
pub const fn sectors_for_mtu(mtu: usize) -> usize {
    mtu.saturating_sub(DATA_OFFSET - ETHERNET_HEADER) / SECTOR
}

/// Why received bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The frame ends before the header, the argument or what a count in them announces.
    Short {
        /// Bytes that it takes, from the start of the part that was parsed.
        needed: usize,
        /// Bytes that are there.
        present: usize,
    },
    /// Not of Ethernet type 88A2h.
    NotAoe,
    /// A length beyond what the protocol allows, such as a configuration string of 2,000 bytes.
    TooLong,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Short { needed, present } => write!(f, "{present} bytes where {needed} are announced"),
            Malformed::NotAoe => f.write_str("not an AoE frame"),
            Malformed::TooLong => f.write_str("a length beyond what AoE allows"),
        }
    }
}

impl core::error::Error for Malformed {}

/// Writes a frame into `frame` and returns its length: the header, the argument that `argument` writes (it returns how many bytes), and
/// zeros up to [`MIN_FRAME`].
///
/// `None` when `argument` gives `None` or `frame` is too short; its contents are then undefined.
pub fn encode(
    frame: &mut [u8],
    header: &Header,
    argument: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> Option<usize> {
    let (head, rest) = frame.split_at_mut_checked(HEADER_LENGTH)?;
    header.encode(head)?;
    let length = HEADER_LENGTH + argument(rest)?;
    if length < MIN_FRAME {
        frame.get_mut(length..MIN_FRAME)?.fill(0);
    }
    (length <= frame.len()).then_some(length.max(MIN_FRAME))
}

/// The first `N` bytes of `bytes`, and what follows them.
fn take<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), Malformed> {
    bytes.split_first_chunk().ok_or(Malformed::Short { needed: N, present: bytes.len() })
}

/// The first `length` bytes of `bytes`.
fn front(bytes: &[u8], length: usize) -> Result<&[u8], Malformed> {
    bytes.get(..length).ok_or(Malformed::Short { needed: length, present: bytes.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_that_fit() {
        assert_eq!(sectors_for_mtu(1500), 2);
        assert_eq!(sectors_for_mtu(9000), 17);
        assert_eq!(sectors_for_mtu(512 + 22), 1);
        assert_eq!(sectors_for_mtu(512 + 21), 0);
        assert_eq!(sectors_for_mtu(0), 0);
    }

    #[test]
    fn padding_covers_what_the_buffer_held() {
        let header =
            Header::request(MacAddress([1; 6]), MacAddress([2; 6]), Address::BROADCAST, Command::Config, 1);
        let mut buffer = [0xaa; 64];
        let length = encode(&mut buffer, &header, |out| Config::query().encode(out)).unwrap();
        assert_eq!(length, MIN_FRAME);
        assert!(buffer[HEADER_LENGTH + CONFIG_LENGTH..MIN_FRAME].iter().all(|&byte| byte == 0));
        assert_eq!(buffer[MIN_FRAME], 0xaa);
        assert_eq!(encode(&mut buffer[..59], &header, |out| Config::query().encode(out)), None);
        assert_eq!(encode(&mut buffer[..10], &header, |_| Some(0)), None);
    }
}
