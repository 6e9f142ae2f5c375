//! What a passed-through function is reached through.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use kagero_devices::pci::Bar;

use crate::Mapping;

/// A region of a function's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// Configuration space.
    Config,
    /// What a BAR decodes, 0 to 5.
    Bar(u8),
    /// The expansion ROM.
    Rom,
}

/// A kind of interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interrupt {
    /// The line of an interrupt pin.
    Intx,
    /// Messages, up to 32.
    Msi,
    /// Messages from a table of up to 2,048.
    MsiX,
    /// The function has failed and is of no use any more.
    Error,
    /// Somebody wants the function back.
    Request,
}

/// What came of [`Hardware::ring`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rung {
    /// The events ring.
    All,
    /// None does, as so many vectors are not to be had. With this many it may work.
    AtMost(u32),
}

/// A PCI function that is ours alone. On Linux it is a VFIO device.
pub trait Hardware: Debug + Send + Sync {
    /// What people call it: `0000:03:00.0`.
    fn name(&self) -> &str;

    /// Bytes of a region; 0 when there is none.
    fn size(&self, region: Region) -> u64;

    /// What BAR `index` asks for, if there is one.
    fn bar(&self, index: u8) -> Option<Bar>;

    /// Reads registers, in one access where the bus knows such (1, 2, 4 or 8 bytes).
    ///
    /// # Errors
    /// When the function is gone, or sleeps, or decodes nothing; then `out` is all ones, as on the bus.
    fn read(&self, region: Region, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes registers, as with [`read`](Self::read).
    ///
    /// # Errors
    /// As with reading.
    fn write(&self, region: Region, offset: u64, data: &[u8]) -> io::Result<()>;

    /// The parts of a BAR, of whole pages, that may be mapped.
    fn areas(&self, bar: u8) -> Vec<Range<u64>>;

    /// Maps one of the [areas](Self::areas), or a part of it.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn map(&self, bar: u8, area: Range<u64>) -> io::Result<Mapping>;

    /// Interrupts of a kind that the function has; 0 when it has none.
    fn vectors(&self, kind: Interrupt) -> u32;

    /// Whether [MSI-X](Interrupt::MsiX) vectors can be had later that the first [`ring`](Self::ring) of the mode did not reach to.
    /// Where not (Linux before 6.5), the first has to reach to the last vector that will ever be wanted.
    fn grows(&self) -> bool;

    /// Rings these events from vector `first` on; where there is none, that vector rings no more. A function is in one mode of
    /// [`Intx`](Interrupt::Intx), [`Msi`](Interrupt::Msi) and [`MsiX`](Interrupt::MsiX) at a time: others must be
    /// [silenced](Self::silence) before.
    ///
    /// # Errors
    /// When the kernel refuses, or the function is gone.
    fn ring(&self, kind: Interrupt, first: u32, events: &[Option<BorrowedFd<'_>>]) -> io::Result<Rung>;

    /// No more interrupts of this kind.
    ///
    /// # Errors
    /// When the function is gone.
    fn silence(&self, kind: Interrupt) -> io::Result<()>;

    /// Holds the line back, or lets it ring again.
    ///
    /// # Errors
    /// When the function is gone.
    fn mask_line(&self, masked: bool) -> io::Result<()>;

    /// Lets the line ring again whenever this event does.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn unmask_line_on(&self, event: BorrowedFd<'_>) -> io::Result<()>;

    /// Puts the function, and it alone, into the state after a reset. Configuration space stays as it is.
    ///
    /// # Errors
    /// `Unsupported` when it has no reset of its own; others when it failed.
    fn reset(&self) -> io::Result<()>;

    /// Resets its bus, and so all functions there.
    ///
    /// # Errors
    /// `Unsupported` when there is no such reset, or when it would reset functions that are not ours; others when it failed.
    fn reset_bus(&self) -> io::Result<()>;
}
