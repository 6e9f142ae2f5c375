//! Bad register accesses: the device names them, the bus counts them.

use core::fmt;

/// A register access that no hardware register answers.
///
/// Reads that fault float to ones, writes are dropped; both are counted by the bus. What the *hardware* defines for a guest's mistake
/// (an unknown ATA command ends with ABRT) is device state and never a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is decoded at this address.
    NoRegister,
    /// The register exists but not in this access width.
    Width,
    /// The access does not start at the register's first byte.
    Unaligned,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::NoRegister => "no register at this address",
            Fault::Width => "access of the wrong width",
            Fault::Unaligned => "unaligned access",
        })
    }
}

impl core::error::Error for Fault {}
