//! IDENTIFY DEVICE data (7.16): 256 words that say what a disk is and can do.

mod build;
mod parse;

pub use build::{Position, build};
pub use parse::{Identity, NotADisk, parse};

/// Sectors that a 28-bit LBA reaches at most, as words 60 and 61 give them.
pub const LBA28_SECTORS: u64 = 0x0fff_ffff;

/// Word numbers that both directions use.
mod word {
    pub(super) const CONFIGURATION: usize = 0;
    pub(super) const SERIAL: core::ops::Range<usize> = 10..20;
    pub(super) const FIRMWARE: core::ops::Range<usize> = 23..27;
    pub(super) const MODEL: core::ops::Range<usize> = 27..47;
    pub(super) const CAPABILITIES: usize = 49;
    pub(super) const LBA28: usize = 60;
    pub(super) const COMMANDS_1: usize = 82;
    pub(super) const COMMANDS_2: usize = 83;
    pub(super) const COMMANDS_3: usize = 84;
    pub(super) const LBA48: usize = 100;
    pub(super) const TRIM_BLOCKS: usize = 105;
    pub(super) const TRIM: usize = 169;
    pub(super) const INTEGRITY: usize = 255;
}

/// Word 49: LBAs are understood.
const LBA: u16 = 1 << 9;
/// Word 49: DMA is understood.
const DMA: u16 = 1 << 8;
/// Word 83: FLUSH CACHE EXT.
const FLUSH_EXT: u16 = 1 << 13;
/// Word 83: FLUSH CACHE.
const FLUSH: u16 = 1 << 12;
/// Word 83: 48-bit addresses.
const EXT: u16 = 1 << 10;
/// Word 84: WRITE DMA FUA EXT and WRITE MULTIPLE FUA EXT.
const FUA: u16 = 1 << 6;
/// Words 83, 84, 87, 106, 119 and 120 hold something when bits 15:14 are 01b.
const VALID: u16 = 1 << 14;
/// Word 255's low byte when the high byte is a checksum.
const SIGNATURE: u8 = 0xa5;
