//! A function's configuration space: 256 bytes, what a guest may change of each, and where its BARs decode.

use core::array;

/// Offsets of the registers that every function has (PCI Local Bus 3.0, 6.1).
pub mod register {
    /// Command, 16 bits.
    pub const COMMAND: u8 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u8 = 0x06;
    /// Cache Line Size.
    pub const CACHE_LINE_SIZE: u8 = 0x0c;
    /// Latency Timer.
    pub const LATENCY_TIMER: u8 = 0x0d;
    /// Header Type: bit 7 says that the device has further functions.
    pub const HEADER_TYPE: u8 = 0x0e;
    /// The first of six Base Address Registers of 32 bits.
    pub const BAR0: u8 = 0x10;
    /// Subsystem Vendor ID, 16 bits; the Subsystem ID follows.
    pub const SUBSYSTEM: u8 = 0x2c;
    /// Interrupt Line: firmware notes here, for the operating system, where the interrupt pin leads.
    pub const INTERRUPT_LINE: u8 = 0x3c;
    /// Interrupt Pin: 1 for INTA to 4 for INTD, 0 for none.
    pub const INTERRUPT_PIN: u8 = 0x3d;
}

/// Bits of the Command register.
pub mod command {
    /// The function decodes I/O space.
    pub const IO: u16 = 1 << 0;
    /// The function decodes memory space.
    pub const MEMORY: u16 = 1 << 1;
    /// The function may access memory by itself.
    pub const MASTER: u16 = 1 << 2;
    /// SERR# may be driven.
    pub const SERR: u16 = 1 << 8;
    /// INTx is held back (PCI 2.3; not in the PIIX).
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Status bits that record an error until software writes a one to them (PCI Local Bus 3.0, 6.2.3).
const STATUS_ERRORS: u16 = 0xf900;

/// What a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Base class, subclass and programming interface, as in a class code: `0x01_01_80`.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
}

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
}

/// A BAR decodes elsewhere than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarChange {
    /// Which, 0 to 5.
    pub bar: u8,
    /// Where it decoded: port or guest physical address; `None` when it did not.
    pub from: Option<u64>,
    /// Where it decodes now.
    pub to: Option<u64>,
}

/// All that one write changed: an iterator, empty for most writes.
pub type BarChanges = core::iter::Flatten<array::IntoIter<Option<BarChange>, 6>>;

/// The configuration space of one function with a type 0 header.
///
/// Every byte has a mask of the bits that a guest may write and a mask of those that it clears by writing ones. BARs need
/// no more than that: sizing them is writing ones and reading back what stuck. There is no expansion ROM.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; 256],
    at_reset: [u8; 256],
    writable: [u8; 256],
    clears: [u8; 256],
    bars: [Option<Bar>; 6],
}

impl ConfigSpace {
    /// A function without BARs, interrupt pin and capabilities.
    ///
    /// Writable are the Command register's I/O, Memory, Master and SERR bits, Cache Line Size, Latency Timer and Interrupt Line.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let Identity { vendor, device, class, revision } = identity;
        let zero = [0; 256];
        let mut new = Self { bytes: zero, at_reset: zero, writable: zero, clears: zero, bars: [None; 6] };
        new.preset(0x00, &vendor.to_le_bytes());
        new.preset(0x02, &device.to_le_bytes());
        new.preset(0x08, &((class << 8) | u32::from(revision)).to_le_bytes());
        put(&mut new.clears, register::STATUS, &STATUS_ERRORS.to_le_bytes());
        let command = command::IO | command::MEMORY | command::MASTER | command::SERR;
        new.with_writable(register::COMMAND, &command.to_le_bytes())
            .with_writable(register::CACHE_LINE_SIZE, &[0xff, 0xff])
            .with_writable(register::INTERRUPT_LINE, &[0xff])
    }

    /// Marks the device as one with several functions. Guests look at function 0 for it.
    #[must_use]
    pub fn with_multifunction(self) -> Self {
        self.with_value(register::HEADER_TYPE, &[0x80])
    }

    /// Sets the subsystem's vendor and ID.
    #[must_use]
    pub fn with_subsystem(self, vendor: u16, id: u16) -> Self {
        self.with_value(register::SUBSYSTEM, &(u32::from(id) << 16 | u32::from(vendor)).to_le_bytes())
    }

    /// Sets the value that the bytes from `offset` on have after a reset.
    #[must_use]
    pub fn with_value(mut self, offset: u8, value: &[u8]) -> Self {
        self.preset(offset, value);
        self
    }

    /// Sets which bits a guest may write in the bytes from `offset` on.
    #[must_use]
    pub fn with_writable(mut self, offset: u8, mask: &[u8]) -> Self {
        put(&mut self.writable, offset, mask);
        self
    }

    /// Sets which bits a guest clears by writing ones in the bytes from `offset` on.
    #[must_use]
    pub fn with_write_one_to_clear(mut self, offset: u8, mask: &[u8]) -> Self {
        put(&mut self.clears, offset, mask);
        self
    }

    /// Gives the function BAR `index`.
    ///
    /// # Panics
    /// When `index` is not a BAR, when a 64-bit BAR has no register to follow it, or when the size is no power of two or too small.
    #[must_use]
    pub fn with_bar(mut self, index: u8, bar: Bar) -> Self {
        let (registers, least) = match bar {
            Bar::Io { .. } => (1, 4),
            Bar::Memory32 { .. } => (1, 16),
            Bar::Memory64 { .. } => (2, 16),
        };
        assert!(usize::from(index) + registers <= 6, "there is no BAR {index} for {bar:?}");
        assert!(bar.size().is_power_of_two() && bar.size() >= least, "no BAR has the size of {bar:?}");
        self.bars[usize::from(index)] = Some(bar);
        let offset = register::BAR0 + 4 * index;
        self.preset(offset, &bar.kind_bits().to_le_bytes()[..4 * registers]);
        self.with_writable(offset, &bar.address_mask().to_le_bytes()[..4 * registers])
    }

    /// Back to the values after a reset; no BAR decodes then unless it was preset so.
    pub fn reset(&mut self) -> BarChanges {
        self.change(|Self { bytes, at_reset, writable: _, clears: _, bars: _ }| *bytes = *at_reset)
    }

    /// Fills `out` from `offset` on. Past the last register there are ones.
    pub fn read(&self, offset: u8, out: &mut [u8]) {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = self.bytes.get(usize::from(offset) + i).copied().unwrap_or(0xff);
        }
    }

    /// A guest's write from `offset` on, with what it did to the BARs. What is not writable stays as it is.
    #[must_use = "BARs may have moved"]
    pub fn write(&mut self, offset: u8, data: &[u8]) -> BarChanges {
        self.change(|space| {
            for (at, new) in (usize::from(offset)..space.bytes.len()).zip(data) {
                let (writable, clears) = (space.writable[at], space.clears[at]);
                let old = space.bytes[at];
                space.bytes[at] = ((old & !writable) | (new & writable)) & !(new & clears);
            }
        })
    }

    /// The device's own change of a byte, whatever a guest may write there: a status bit, say. Don't move BARs with it.
    pub fn set(&mut self, offset: u8, value: u8) {
        self.bytes[usize::from(offset)] = value;
    }

    /// The byte at `offset`.
    #[must_use]
    pub fn byte(&self, offset: u8) -> u8 {
        self.bytes[usize::from(offset)]
    }

    /// The 16 bits at `offset`; zero past the last register.
    #[must_use]
    pub fn word(&self, offset: u8) -> u16 {
        u16::from_le_bytes(self.array(offset))
    }

    /// The 32 bits at `offset`; zero past the last register.
    #[must_use]
    pub fn dword(&self, offset: u8) -> u32 {
        u32::from_le_bytes(self.array(offset))
    }

    /// The Command register; its bits are in [`command`].
    #[must_use]
    pub fn command(&self) -> u16 {
        self.word(register::COMMAND)
    }

    /// What BAR `index` asks for, if there is one.
    #[must_use]
    pub fn bar(&self, index: u8) -> Option<Bar> {
        *self.bars.get(usize::from(index))?
    }

    /// Where BAR `index` decodes now.
    ///
    /// Not at zero, which is how firmware leaves a BAR without an address. Not where its range would end past the last port or reach
    /// the top of its address space either: guests that size a BAR without turning decoding off leave it there for a moment.
    #[must_use]
    pub fn decoded(&self, index: u8) -> Option<u64> {
        let bar = self.bar(index)?;
        let offset = register::BAR0 + 4 * index;
        let low = u64::from(self.dword(offset));
        let (enable, value, last) = match bar {
            Bar::Io { .. } => (command::IO, low, 0xffff),
            Bar::Memory32 { .. } => (command::MEMORY, low, u64::from(u32::MAX) - 1),
            Bar::Memory64 { .. } => {
                (command::MEMORY, low | u64::from(self.dword(offset + 4)) << 32, u64::MAX - 1)
            }
        };
        let base = value & bar.address_mask();
        let end = base.checked_add(bar.size() - 1)?;
        (self.command() & enable != 0 && base != 0 && end <= last).then_some(base)
    }

    fn array<const N: usize>(&self, offset: u8) -> [u8; N] {
        array::from_fn(|i| self.bytes.get(usize::from(offset) + i).copied().unwrap_or(0))
    }

    fn preset(&mut self, offset: u8, value: &[u8]) {
        put(&mut self.bytes, offset, value);
        put(&mut self.at_reset, offset, value);
    }

    fn change(&mut self, edit: impl FnOnce(&mut Self)) -> BarChanges {
        let before: [_; 6] = array::from_fn(|i| self.decoded(i as u8));
        edit(self);
        let changes: [_; 6] = array::from_fn(|i| {
            let (bar, from) = (i as u8, before[i]);
            let to = self.decoded(bar);
            (from != to).then_some(BarChange { bar, from, to })
        });
        changes.into_iter().flatten()
    }
}

/// Copies `value` to the bytes from `offset` on; what would lie past the last is left out.
fn put(bytes: &mut [u8; 256], offset: u8, value: &[u8]) {
    for (byte, value) in bytes.iter_mut().skip(offset.into()).zip(value) {
        *byte = *value;
    }
}
