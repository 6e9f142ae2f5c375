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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// When the function is gone; then `out` is all ones, as on the bus.
    fn read(&self, region: Region, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes registers, as with [`read`](Self::read).
    ///
    /// # Errors
    /// When the function is gone.
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

    /// Rings these events from vector `first` on; where there is none, that vector rings no more. For the first events of a kind, others must be
    /// [silenced](Self::silence) before.
    ///
    /// # Errors
    /// When the kernel refuses. `ENOSPC` with the number that it can give in [`Interrupt::Msi`]'s case is for the caller to try again with fewer.
    fn ring(&self, kind: Interrupt, first: u32, events: &[Option<BorrowedFd<'_>>]) -> io::Result<()>;

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

    /// Whether [`reset`](Self::reset) does something.
    fn has_reset(&self) -> bool;

    /// Puts the function alone, or with it all that are ours, into the state after a reset.
    ///
    /// # Errors
    /// When it has no reset, or others would be reset with it.
    fn reset(&self) -> io::Result<()>;
}
