//! The MSI and MSI-X capabilities: all of them is ours, as interrupts on the hardware's side are none of the guest's.

use super::capability::{Capability, byte, dword, word};
use super::table::Table;
use crate::pci::Message;
use crate::pci::bar::Bars;

/// Message Control, 16 bits, in both.
const CONTROL: u16 = 2;

/// MSI as the guest has programmed it (PCI Local Bus 3.0, 6.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// Where the capability is.
    pub offset: u16,
    /// How many vectors the function could use.
    pub capable: u16,
    /// How many it uses: a power of two, at most `capable`.
    pub vectors: u16,
    /// Whether it uses them, in place of its line.
    pub enabled: bool,
    /// The message of vector 0.
    pub first: Message,
    /// A bit for each vector that is held back.
    pub masked: u32,
}

impl Msi {
    /// What vector `vector` sends; `None` when the function does not use it or it is masked.
    ///
    /// The vector's number takes the place of the data's low bits (6.8.1.6).
    #[must_use]
    pub fn message(&self, vector: u16) -> Option<Message> {
        let Message { address, data } = self.first;
        let below = u32::from(self.vectors).saturating_sub(1);
        let held = self.masked.checked_shr(vector.into()).is_none_or(|bits| bits & 1 != 0);
        (vector < self.vectors && !held)
            .then(|| Message { address, data: (data & !below) | (u32::from(vector) & below) })
    }
}

/// Where the MSI capability's registers are.
#[derive(Clone, Copy, Debug)]
pub(super) struct MsiRegisters {
    offset: u16,
    /// The address has 64 bits.
    wide: bool,
    /// Vectors can be masked one by one.
    maskable: bool,
}

impl MsiRegisters {
    const ENABLE: u16 = 1 << 0;
    const CAPABLE: u16 = 7 << 1;
    const ENABLED_VECTORS: u16 = 7 << 4;
    const WIDE: u16 = 1 << 7;
    const MASKABLE: u16 = 1 << 8;

    pub(super) fn new(capability: Capability, config: &[u8], table: &mut Table) -> Option<Self> {
        let Capability { offset, room, .. } = capability;
        // Of the rest, extended message data is of no use on a PC: the upper half of the data is zero.
        let control = word(config, offset + CONTROL) & (Self::CAPABLE | Self::WIDE | Self::MASKABLE);
        let new = Self { offset, wide: control & Self::WIDE != 0, maskable: control & Self::MASKABLE != 0 };
        // 6 and 7 are reserved.
        if room < new.length() || control & Self::CAPABLE > 5 << 1 {
            return None;
        }
        table.hide(offset, new.length());
        table.hold(offset + CONTROL, &control.to_le_bytes());
        table.allow(offset + CONTROL, &(Self::ENABLE | Self::ENABLED_VECTORS).to_le_bytes());
        table.allow(offset + 4, &[0xfc, 0xff, 0xff, 0xff]);
        if new.wide {
            table.allow(offset + 8, &[0xff; 4]);
        }
        table.allow(new.data(), &[0xff; 2]);
        if new.maskable {
            let masks = (u32::MAX >> (32 - (1 << ((control & Self::CAPABLE) >> 1)))).to_le_bytes();
            table.allow(new.data() + 4, &masks);
        }
        Some(new)
    }

    fn length(self) -> u16 {
        10 + if self.wide { 4 } else { 0 } + if self.maskable { 10 } else { 0 }
    }

    fn data(self) -> u16 {
        self.offset + if self.wide { 12 } else { 8 }
    }

    pub(super) fn get(self, table: &Table) -> Msi {
        let control = table.word(self.offset + CONTROL);
        let capable = (control & Self::CAPABLE) >> 1;
        let asked = (control & Self::ENABLED_VECTORS) >> 4;
        let address = table.bits(self.offset + 4, if self.wide { 8 } else { 4 });
        Msi {
            offset: self.offset,
            capable: 1 << capable,
            // More than it is capable of is reserved (6.8.1.3).
            vectors: 1 << asked.min(capable),
            enabled: control & Self::ENABLE != 0,
            first: Message { address, data: table.word(self.data()).into() },
            masked: if self.maskable { table.dword(self.data() + 4) } else { 0 },
        }
    }

    /// Sets the pending bits, of a function that has them.
    pub(super) fn set_pending(self, pending: u32, table: &mut Table) {
        if self.maskable {
            table.set(self.data() + 8, &pending.to_le_bytes());
        }
    }
}

/// Something in memory that a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which BAR.
    pub bar: u8,
    /// Bytes from its start.
    pub offset: u32,
}

/// MSI-X as the guest has programmed it, but for the table itself (PCI Local Bus 3.0, 6.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiX {
    /// Where the capability is.
    pub offset: u16,
    /// Entries of the table, 1 to 2,048.
    pub vectors: u16,
    /// The table, 16 bytes for each vector. Lies inside its BAR.
    pub table: Place,
    /// The pending bits, 8 bytes for each 64 vectors. Lie inside their BAR.
    pub pending: Place,
    /// Whether the function sends messages, in place of using its line.
    pub enabled: bool,
    /// Function Mask: all vectors are held back.
    pub masked: bool,
}

/// Where the MSI-X capability's registers are.
#[derive(Clone, Copy, Debug)]
pub(super) struct MsiXRegisters {
    offset: u16,
    vectors: u16,
    table: Place,
    pending: Place,
}

impl MsiXRegisters {
    const VECTORS: u16 = 0x7ff;
    const MASKED: u16 = 1 << 14;
    const ENABLE: u16 = 1 << 15;
    const LENGTH: u16 = 12;

    pub(super) fn new(capability: Capability, config: &[u8], bars: &Bars, table: &mut Table) -> Option<Self> {
        let Capability { offset, room, .. } = capability;
        if room < Self::LENGTH {
            return None;
        }
        let size = word(config, offset + CONTROL) & Self::VECTORS;
        let vectors = size + 1;
        let inside = |register, length| {
            let value = dword(config, offset + register)?;
            let place = Place { bar: (value & 7) as u8, offset: value & !7 };
            let decoded = bars.memory(place.bar)?;
            (u64::from(place.offset) + length <= decoded).then_some(place)
        };
        let new = Self {
            offset,
            vectors,
            table: inside(4, u64::from(vectors) * 16)?,
            pending: inside(8, u64::from(vectors).div_ceil(64) * 8)?,
        };
        for at in offset..offset + Self::LENGTH {
            table.hold(at, &[byte(config, at)]);
        }
        table.hold(offset + CONTROL, &size.to_le_bytes());
        table.allow(offset + CONTROL, &(Self::MASKED | Self::ENABLE).to_le_bytes());
        Some(new)
    }

    pub(super) fn get(self, config: &Table) -> MsiX {
        let Self { offset, vectors, table, pending } = self;
        let control = config.word(offset + CONTROL);
        let (enabled, masked) = (control & Self::ENABLE != 0, control & Self::MASKED != 0);
        MsiX { offset, vectors, table, pending, enabled, masked }
    }
}
