//! Where a function answers.

use kagero_devices::pci::{Bar, ROM};

use super::Function;
use crate::Region;

/// The two address spaces that BARs decode in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// I/O ports.
    Io,
    /// Guest physical memory.
    Memory,
}

/// A range of addresses that a function answers at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decode {
    /// Ports or memory.
    pub space: Space,
    /// The first port or guest physical address.
    pub first: u64,
    /// Ports or bytes.
    pub length: u64,
    /// What answers there: a BAR or the ROM.
    pub region: Region,
}

impl Function {
    /// All ranges that the function answers at now, those that the guest reaches without an exit included.
    #[must_use]
    pub fn decodes(&self) -> Vec<Decode> {
        let decode = |index| {
            let first = self.filter.decoded(index)?;
            let (space, length) = match self.filter.bar(index)? {
                Bar::Io { size } => (Space::Io, size.into()),
                Bar::Memory32 { size, .. } => (Space::Memory, size.into()),
                Bar::Memory64 { size, .. } => (Space::Memory, size),
            };
            let region = if index == ROM { Region::Rom } else { Region::Bar(index) };
            Some(Decode { space, first, length, region })
        };
        (0..=ROM).filter_map(decode).collect()
    }
}
