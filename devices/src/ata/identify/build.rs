//! IDENTIFY DEVICE data of our own disks.

use super::{DMA, EXT, FLUSH, FLUSH_EXT, FUA, LBA, LBA28_SECTORS, SIGNATURE, VALID, word};
use crate::ata::{MULTIPLE_MAX, Settings, TRIM_BLOCKS_MAX, TransferMode};
use crate::storage::Disk;

/// Firmware revision that every disk reports. It stays the same so that guests see the same disk after an update.
const FIRMWARE: &str = "1.0";

/// Which of two disks on a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Device 0, the "master".
    Device0,
    /// Device 1, the "slave".
    Device1,
}

/// What IDENTIFY DEVICE answers. The same arguments give the same answer; nothing is said that is not implemented.
#[must_use]
pub fn build(disk: &Disk, settings: &Settings, position: Position) -> [u8; 512] {
    let mut words = Words([0; 256]);
    what_it_is(&mut words, disk, position);
    geometry(&mut words, disk, settings);
    modes(&mut words, settings);
    command_sets(&mut words, settings);
    if disk.trim {
        words.0[word::TRIM_BLOCKS] = TRIM_BLOCKS_MAX;
        words.0[word::TRIM] = 1;
    }
    words.sealed()
}

fn what_it_is(words: &mut Words, disk: &Disk, position: Position) {
    words.0[word::CONFIGURATION] = 1 << 6; // an ATA disk, not removable
    words.0[2] = 0xc837; // no SET FEATURES is needed to spin up, and this data is complete
    words.text(word::SERIAL, &disk.serial);
    words.text(word::FIRMWARE, FIRMWARE);
    words.text(word::MODEL, &disk.model);
    words.0[80] = 0x01f0; // ATA8-ACS and ATA/ATAPI-4 to 7; the minor version is not reported
    // The result of the hardware reset: 80-conductor cable, found by jumper, passed.
    words.0[93] = match position {
        Position::Device0 => 0x600b,
        Position::Device1 => 0x6b00,
    };
    words.0[106] = VALID; // 512 bytes a sector, logical and physical
    words.0[217] = 1; // nothing rotates: seeks cost nothing, and Windows does not defragment over a network
}

fn geometry(words: &mut Words, disk: &Disk, settings: &Settings) {
    // Words 1, 3 and 6 are obsolete since ATA/ATAPI-6, and every BIOS reads them.
    let preset = Settings::power_on(disk.sectors).geometry;
    words.0[1] = preset.cylinders;
    words.0[3] = preset.heads.into();
    words.0[6] = preset.sectors.into();
    let now = settings.geometry;
    words.0[53] |= 1 << 0; // words 54 to 58
    words.0[54] = now.cylinders;
    words.0[55] = now.heads.into();
    words.0[56] = now.sectors.into();
    words.long(57, now.capacity().into(), 2);
    words.long(word::LBA28, disk.sectors.min(LBA28_SECTORS), 2);
    words.long(word::LBA48, disk.sectors, 4);
}

fn modes(words: &mut Words, settings: &Settings) {
    words.0[47] = 0x8000 | u16::from(MULTIPLE_MAX);
    words.0[48] = VALID;
    words.0[word::CAPABILITIES] = 1 << 11 | LBA | DMA; // 11: IORDY
    words.0[50] = VALID;
    if settings.multiple != 0 {
        words.0[59] = 1 << 8 | u16::from(settings.multiple);
    }
    words.0[51] = 0x0200; // PIO timing, obsolete
    words.0[53] |= 1 << 1 | 1 << 2; // words 64 to 70, word 88
    words.0[63] = 0x07; // multiword DMA 0 to 2
    words.0[64] = 0x03; // PIO 3 and 4
    for cycle_time in 65..=68 {
        words.0[cycle_time] = 120; // ns, of the fastest mode
    }
    words.0[88] = 0x3f; // Ultra DMA 0 to 5
    match settings.transfer_mode {
        TransferMode::Pio(_) => {}
        TransferMode::Multiword(mode) => words.0[63] |= 0x100 << mode,
        TransferMode::Ultra(mode) => words.0[88] |= 0x100 << mode,
    }
}

fn command_sets(words: &mut Words, settings: &Settings) {
    const NOP: u16 = 1 << 14;
    const LOOK_AHEAD: u16 = 1 << 6;
    const WRITE_CACHE: u16 = 1 << 5;
    const POWER: u16 = 1 << 3;
    const SMART: u16 = 1 << 0;
    const WORDS_119: u16 = 1 << 15;
    words.0[word::COMMANDS_1] = NOP | LOOK_AHEAD | WRITE_CACHE | POWER | SMART;
    words.0[word::COMMANDS_2] = VALID | FLUSH_EXT | FLUSH | EXT;
    words.0[word::COMMANDS_3] = VALID | FUA;
    // The same again: what is enabled.
    let enabled = |on, bit| if on { bit } else { 0 };
    words.0[85] = NOP
        | POWER
        | enabled(settings.look_ahead, LOOK_AHEAD)
        | enabled(settings.write_cache, WRITE_CACHE)
        | enabled(settings.smart, SMART);
    words.0[86] = WORDS_119 | FLUSH_EXT | FLUSH | EXT;
    words.0[87] = VALID | FUA;
    words.0[119] = VALID;
    words.0[120] = VALID;
}

struct Words([u16; 256]);

impl Words {
    /// A number over `count` words, the lowest first.
    fn long(&mut self, first: usize, value: u64, count: usize) {
        for (i, word) in self.0[first..first + count].iter_mut().enumerate() {
            *word = (value >> (16 * i)) as u16;
        }
    }

    /// An ATA string (3.3.9): the first character of two in the upper byte, filled up with spaces.
    fn text(&mut self, at: core::ops::Range<usize>, text: &str) {
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c as u8 } else { b'?' };
        let mut characters = text.chars().map(printable).chain(core::iter::repeat(b' '));
        for word in &mut self.0[at] {
            let mut next = || characters.next().unwrap_or(b' ');
            *word = u16::from_be_bytes([next(), next()]);
        }
    }

    /// As bytes, with word 255 such that all bytes add up to zero.
    fn sealed(self) -> [u8; 512] {
        let mut bytes = [0; 512];
        for (pair, word) in bytes.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&word.to_le_bytes());
        }
        let at = 2 * word::INTEGRITY;
        bytes[at] = SIGNATURE;
        bytes[at + 1] = bytes[..=at].iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        bytes
    }
}
