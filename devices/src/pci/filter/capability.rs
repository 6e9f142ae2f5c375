//! The two lists of capabilities, walked with care: what the hardware says of itself may be nonsense.

use alloc::vec::Vec;

use crate::pci::register;

/// As many as fit between 40h and 100h, which is all that a list without a loop can have.
const MOST_STANDARD: usize = 48;
/// More than any function has.
const MOST_EXTENDED: usize = 256;
/// Where the standard ones may begin: behind the header.
const FIRST_STANDARD: u16 = 0x40;
/// Where the extended ones begin (PCI Express Base 4.0, 7.6.1).
pub(super) const FIRST_EXTENDED: u16 = 0x100;
/// Status, bit 4: there is a list (PCI Local Bus 3.0, 6.2.3).
pub(super) const STATUS_LIST: u8 = 1 << 4;

/// A capability of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capability {
    /// Where its header is.
    pub(super) offset: u16,
    /// Which: two lists, two namespaces.
    pub(super) id: u16,
    /// Of extended ones.
    pub(super) version: u8,
    /// Bytes before the next one in address order, or the end of the space: it can't be longer.
    pub(super) room: u16,
}

/// The standard capabilities, in the list's order. A link that leads below 40h, outside or back ends the list.
pub(super) fn standard(config: &[u8]) -> Vec<Capability> {
    let config = config.get(..256).unwrap_or(config);
    let mut found: Vec<Capability> = Vec::new();
    let listed = byte(config, register::STATUS.into()) & STATUS_LIST != 0;
    let mut next = if listed { link(config, register::CAPABILITIES.into()) } else { 0 };
    while found.len() < MOST_STANDARD
        && next >= FIRST_STANDARD
        && usize::from(next) + 1 < config.len()
        && found.iter().all(|known| known.offset != next)
    {
        found.push(Capability { offset: next, id: byte(config, next).into(), version: 0, room: 0 });
        next = link(config, next + 1);
    }
    measure(&mut found, config.len());
    found
}

/// The extended capabilities, in the list's order. A link that leads below 100h, outside or back ends the list.
pub(super) fn extended(config: &[u8]) -> Vec<Capability> {
    let config = config.get(..4096).unwrap_or(config);
    let mut found: Vec<Capability> = Vec::new();
    let mut next = FIRST_EXTENDED;
    while found.len() < MOST_EXTENDED && found.iter().all(|known| known.offset != next) {
        let header = dword(config, next);
        // Nothing there, or nothing answers.
        if header.is_none_or(|header| header == 0 || header == !0) {
            break;
        }
        let header = header.unwrap_or_default();
        let version = (header >> 16 & 0xf) as u8;
        found.push(Capability { offset: next, id: header as u16, version, room: 0 });
        next = (header >> 20) as u16 & 0xffc;
        if next < FIRST_EXTENDED {
            break;
        }
    }
    measure(&mut found, config.len());
    found
}

/// A byte; zero past the end.
pub(super) fn byte(config: &[u8], offset: u16) -> u8 {
    config.get(usize::from(offset)).copied().unwrap_or(0)
}

/// 16 bits; zero past the end.
pub(super) fn word(config: &[u8], offset: u16) -> u16 {
    u16::from_le_bytes([byte(config, offset), byte(config, offset.saturating_add(1))])
}

/// 32 bits, if they are there.
pub(super) fn dword(config: &[u8], offset: u16) -> Option<u32> {
    let offset = usize::from(offset);
    let bytes = config.get(offset..offset + 4)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// The low two bits of a link are reserved (PCI Local Bus 3.0, 6.7).
fn link(config: &[u8], offset: u16) -> u16 {
    u16::from(byte(config, offset) & 0xfc)
}

fn measure(found: &mut [Capability], end: usize) {
    let starts: Vec<u16> = found.iter().map(|capability| capability.offset).collect();
    for capability in found {
        let later = starts.iter().filter(|&&start| start > capability.offset).min();
        let end = later.copied().unwrap_or(end as u16);
        capability.room = end.saturating_sub(capability.offset);
    }
}
