//! Bits of the task file's registers.

/// Status register (6.2 of ATA8-ACS; DSC is from ATA-4 and earlier, and guests look for it).
pub mod status {
    /// Error: the Error register says which.
    pub const ERR: u8 = 1 << 0;
    /// Data request: the data port awaits the guest.
    pub const DRQ: u8 = 1 << 3;
    /// Device seek complete.
    pub const DSC: u8 = 1 << 4;
    /// Device fault.
    pub const DF: u8 = 1 << 5;
    /// Device ready.
    pub const DRDY: u8 = 1 << 6;
    /// Busy: no other bit and no other register means anything.
    pub const BSY: u8 = 1 << 7;
}

/// Error register.
pub mod error {
    /// Command aborted.
    pub const ABRT: u8 = 1 << 2;
    /// The address was not found: past the end of the disk.
    pub const IDNF: u8 = 1 << 4;
    /// Uncorrectable data.
    pub const UNC: u8 = 1 << 6;
    /// Interface CRC error.
    pub const ICRC: u8 = 1 << 7;
    /// After a reset and EXECUTE DEVICE DIAGNOSTIC: device 0 passed; device 1 passed or is not there.
    pub const PASSED: u8 = 0x01;
}

/// Device register.
pub mod device {
    /// The address is an LBA rather than cylinder, head and sector.
    pub const LBA: u8 = 1 << 6;
    /// Device 1 is meant.
    pub const DEV: u8 = 1 << 4;
    /// LBA 27:24, or the head.
    pub const HEAD: u8 = 0x0f;
}

/// Device Control register.
pub mod control {
    /// INTRQ is held back.
    pub const NIEN: u8 = 1 << 1;
    /// Software reset while set.
    pub const SRST: u8 = 1 << 2;
    /// Reads give the older value of the count and address registers.
    pub const HOB: u8 = 1 << 7;
}
