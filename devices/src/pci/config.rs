//! A function's configuration space: 256 bytes, what a guest may change of each, and where its BARs decode.

use core::array;

use super::bar::{self, Bar, BarChanges, Bars};

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
    /// Built-In Self Test.
    pub const BIST: u8 = 0x0f;
    /// The first of six Base Address Registers of 32 bits.
    pub const BAR0: u8 = 0x10;
    /// Subsystem Vendor ID, 16 bits; the Subsystem ID follows.
    pub const SUBSYSTEM: u8 = 0x2c;
    /// The expansion ROM's Base Address Register, 32 bits.
    pub const ROM: u8 = 0x30;
    /// Where the list of capabilities begins.
    pub const CAPABILITIES: u8 = 0x34;
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
    bars: Bars,
}

impl ConfigSpace {
    /// A function without BARs, interrupt pin and capabilities.
    ///
    /// Writable are the Command register's I/O, Memory, Master and SERR bits, Cache Line Size, Latency Timer and Interrupt Line.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let Identity { vendor, device, class, revision } = identity;
        let zero = [0; 256];
        let mut new =
            Self { bytes: zero, at_reset: zero, writable: zero, clears: zero, bars: Bars::default() };
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
        assert!(bar.is_valid(), "no BAR has the size of {bar:?}");
        assert!(self.bars.place(index, bar), "there is no BAR {index} for {bar:?}");
        if let Some(register) = self.bars.register(index) {
            self.preset(register.offset, register.preset());
            self = self.with_writable(register.offset, register.writable());
        }
        self
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
        self.bars.get(index)
    }

    /// Where BAR `index` decodes now.
    ///
    /// Not at zero, which is how firmware leaves a BAR without an address. Not where its range would end past the last port or reach
    /// the top of its address space either: guests that size a BAR without turning decoding off leave it there for a moment.
    #[must_use]
    pub fn decoded(&self, index: u8) -> Option<u64> {
        self.bars.decoded(index, self.command(), |offset| self.dword(offset))
    }

    fn array<const N: usize>(&self, offset: u8) -> [u8; N] {
        array::from_fn(|i| self.bytes.get(usize::from(offset) + i).copied().unwrap_or(0))
    }

    fn preset(&mut self, offset: u8, value: &[u8]) {
        put(&mut self.bytes, offset, value);
        put(&mut self.at_reset, offset, value);
    }

    fn change(&mut self, edit: impl FnOnce(&mut Self)) -> BarChanges {
        let before = self.all_decoded();
        edit(self);
        bar::changes(before, self.all_decoded())
    }

    fn all_decoded(&self) -> [Option<u64>; bar::COUNT] {
        self.bars.all_decoded(self.command(), |offset| self.dword(offset))
    }
}

/// Copies `value` to the bytes from `offset` on; what would lie past the last is left out.
fn put(bytes: &mut [u8; 256], offset: u8, value: &[u8]) {
    for (byte, value) in bytes.iter_mut().skip(offset.into()).zip(value) {
        *byte = *value;
    }
}
