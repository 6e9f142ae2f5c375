//! Guest memory as a device sees it: by guest physical address.

use core::fmt;

/// Guest memory that a device reads and writes by itself.
///
/// One of the three seams between the hosted and the bare-metal build. Implementations check every address: a device
/// hands on whatever the guest programmed.
pub trait DmaMemory {
    /// Fills `out` from guest memory at guest physical address `gpa`.
    ///
    /// # Errors
    /// [`DmaFault`] when any byte lies outside guest memory; `out` may be partly filled.
    fn read(&self, gpa: u64, out: &mut [u8]) -> Result<(), DmaFault>;

    /// Writes `data` to guest memory at guest physical address `gpa`.
    ///
    /// # Errors
    /// [`DmaFault`] when any byte lies outside guest memory; part of `data` may have been written.
    fn write(&self, gpa: u64, data: &[u8]) -> Result<(), DmaFault>;
}

/// A device was told to access an address that is not guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaFault {
    /// The guest physical address at which the access began.
    pub gpa: u64,
}

impl fmt::Display for DmaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DMA to {:#x}, which is not guest memory", self.gpa)
    }
}

impl core::error::Error for DmaFault {}

impl<M: DmaMemory + ?Sized> DmaMemory for &M {
    fn read(&self, gpa: u64, out: &mut [u8]) -> Result<(), DmaFault> {
        (**self).read(gpa, out)
    }

    fn write(&self, gpa: u64, data: &[u8]) -> Result<(), DmaFault> {
        (**self).write(gpa, data)
    }
}
