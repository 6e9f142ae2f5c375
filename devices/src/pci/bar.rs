//! Base Address Registers: what they ask for, how they are sized, and where they decode.

use core::array;

use super::config::{command, register};

/// What a Base Address Register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// I/O ports.
    Io {
        /// How many: a power of two, at least 4.
        size: u32,
    },
    /// Memory below 4 GiB.
    Memory32 {
        /// Bytes: a power of two, at least 16.
        size: u32,
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere. Takes this register and the next one.
    Memory64 {
        /// Bytes: a power of two, at least 16.
        size: u64,
        /// Reads have no side effects.
        prefetchable: bool,
    },
}

impl Bar {
    /// Ports or bytes.
    #[must_use]
    pub fn size(self) -> u64 {
        match self {
            Bar::Io { size } | Bar::Memory32 { size, .. } => size.into(),
            Bar::Memory64 { size, .. } => size,
        }
    }

    /// Whether a register can ask for this size.
    pub(super) fn is_valid(self) -> bool {
        let least = match self {
            Bar::Io { .. } => 4,
            Bar::Memory32 { .. } | Bar::Memory64 { .. } => 16,
        };
        self.size().is_power_of_two() && self.size() >= least
    }

    /// The registers that it takes.
    fn registers(self) -> u8 {
        match self {
            Bar::Io { .. } | Bar::Memory32 { .. } => 1,
            Bar::Memory64 { .. } => 2,
        }
    }

    /// The low bits, which are fixed and say what kind of BAR this is.
    fn kind_bits(self) -> u64 {
        match self {
            Bar::Io { .. } => 0b01,
            Bar::Memory32 { prefetchable, .. } => u64::from(prefetchable) << 3,
            Bar::Memory64 { prefetchable, .. } => 0b100 | u64::from(prefetchable) << 3,
        }
    }

    /// The bits that hold the address.
    fn address_mask(self) -> u64 {
        let width = match self {
            Bar::Io { .. } | Bar::Memory32 { .. } => u64::from(u32::MAX),
            Bar::Memory64 { .. } => u64::MAX,
        };
        width & !(self.size() - 1)
    }

    /// Where it decodes with this value in its registers.
    ///
    /// Not at zero, which is how firmware leaves a BAR without an address. Not where its range would end past the last port or reach
    /// the top of its address space either: guests that size a BAR without turning decoding off leave it there for a moment.
    fn decoded(self, value: u64, command: u16) -> Option<u64> {
        let (enable, last) = match self {
            Bar::Io { .. } => (command::IO, 0xffff),
            Bar::Memory32 { .. } => (command::MEMORY, u64::from(u32::MAX) - 1),
            Bar::Memory64 { .. } => (command::MEMORY, u64::MAX - 1),
        };
        let base = value & self.address_mask();
        let end = base.checked_add(self.size() - 1)?;
        (command & enable != 0 && base != 0 && end <= last).then_some(base)
    }
}

/// A BAR decodes elsewhere than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarChange {
    /// Which, 0 to 5, or [`ROM`].
    pub bar: u8,
    /// Where it decoded: port or guest physical address; `None` when it did not.
    pub from: Option<u64>,
    /// Where it decodes now.
    pub to: Option<u64>,
}

/// The expansion ROM's BAR, where BARs are numbered.
pub const ROM: u8 = 6;

/// The six BARs and the expansion ROM's.
pub(super) const COUNT: usize = 7;

/// All that one write changed: an iterator, empty for most writes.
pub type BarChanges = core::iter::Flatten<array::IntoIter<Option<BarChange>, COUNT>>;

/// Where each BAR decoded, and where it does now, as changes.
pub(super) fn changes(before: [Option<u64>; COUNT], after: [Option<u64>; COUNT]) -> BarChanges {
    let changes: [_; COUNT] = array::from_fn(|i| {
        let (from, to) = (before[i], after[i]);
        (from != to).then_some(BarChange { bar: i as u8, from, to })
    });
    changes.into_iter().flatten()
}

/// The registers of one BAR: 4 or 8 bytes of configuration space.
///
/// Sizing a BAR is writing ones and reading back what stuck, so that a mask of what may be written is all it takes (PCI Local Bus 3.0, 6.2.5.1).
pub(super) struct Register {
    pub(super) offset: u8,
    preset: [u8; 8],
    writable: [u8; 8],
    length: usize,
}

impl Register {
    /// The value after a reset: no address, and the bits that are fixed.
    pub(super) fn preset(&self) -> &[u8] {
        &self.preset[..self.length]
    }

    /// The bits that hold the address, and the enable bit of a ROM.
    pub(super) fn writable(&self) -> &[u8] {
        &self.writable[..self.length]
    }
}

/// The BARs of a function with a type 0 header.
#[derive(Clone, Debug, Default)]
pub(super) struct Bars {
    bars: [Option<Bar>; 6],
    /// Always [`Bar::Memory32`].
    rom: Option<Bar>,
}

impl Bars {
    /// An expansion ROM decodes only while this bit of its register is set (PCI Local Bus 3.0, 6.2.5.2).
    const ROM_ENABLE: u32 = 1;

    /// Gives the function BAR `index`, unless there is no such register, or no free one for the upper half.
    pub(super) fn place(&mut self, index: u8, bar: Bar) -> bool {
        let end = index.saturating_add(bar.registers());
        let free = end <= 6 && bar.is_valid() && (index..end).all(|register| !self.taken(register));
        if let (true, Some(place)) = (free, self.bars.get_mut(usize::from(index))) {
            *place = Some(bar);
        }
        free
    }

    /// Gives the function an expansion ROM of at least so many bytes. Its register can't ask for less than 2 KiB.
    pub(super) fn place_rom(&mut self, bytes: u32) {
        let size = bytes.max(2048).checked_next_power_of_two();
        self.rom = size.map(|size| Bar::Memory32 { size, prefetchable: false });
    }

    /// BAR `index`, or [`ROM`].
    pub(super) fn get(&self, index: u8) -> Option<Bar> {
        if index == ROM { self.rom } else { *self.bars.get(usize::from(index))? }
    }

    /// Bytes of memory behind BAR `index`.
    pub(super) fn memory(&self, index: u8) -> Option<u64> {
        match *self.bars.get(usize::from(index))? {
            Some(bar @ (Bar::Memory32 { .. } | Bar::Memory64 { .. })) => Some(bar.size()),
            Some(Bar::Io { .. }) | None => None,
        }
    }

    /// The registers of BAR `index`, or [`ROM`].
    pub(super) fn register(&self, index: u8) -> Option<Register> {
        let bar = self.get(index)?;
        let (offset, enable) = if index == ROM {
            (register::ROM, u64::from(Self::ROM_ENABLE))
        } else {
            (register::BAR0 + 4 * index, 0)
        };
        Some(Register {
            offset,
            preset: bar.kind_bits().to_le_bytes(),
            writable: (bar.address_mask() | enable).to_le_bytes(),
            length: 4 * usize::from(bar.registers()),
        })
    }

    /// Where BAR `index`, or [`ROM`], decodes; `dword` gives the registers.
    pub(super) fn decoded(&self, index: u8, command: u16, dword: impl Fn(u8) -> u32) -> Option<u64> {
        let bar = self.get(index)?;
        if index == ROM {
            let value = dword(register::ROM);
            return bar.decoded(value.into(), command).filter(|_| value & Self::ROM_ENABLE != 0);
        }
        let offset = register::BAR0 + 4 * index;
        let high = if bar.registers() == 2 { dword(offset + 4) } else { 0 };
        bar.decoded(u64::from(high) << 32 | u64::from(dword(offset)), command)
    }

    /// Where each decodes, the ROM last.
    pub(super) fn all_decoded(&self, command: u16, dword: impl Fn(u8) -> u32) -> [Option<u64>; COUNT] {
        array::from_fn(|i| self.decoded(i as u8, command, &dword))
    }

    /// Whether a BAR, or the upper half of one, has this register.
    fn taken(&self, register: u8) -> bool {
        let below = register.checked_sub(1).and_then(|below| self.get(below));
        self.get(register).is_some() || below.is_some_and(|below| below.registers() == 2)
    }
}
