//! IDENTIFY DEVICE data that a target sent.

use core::fmt;

use alloc::string::String;

use super::{DMA, EXT, FLUSH, FLUSH_EXT, FUA, LBA, LBA28_SECTORS, SIGNATURE, VALID, word};
use crate::storage::Disk;

/// What a target's disk is and which commands it understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Size, names, and whether it can trim.
    pub disk: Disk,
    /// Firmware revision, at most 8 characters.
    pub firmware: String,
    /// 48-bit addresses.
    pub ext: bool,
    /// DMA commands. Over Ethernet they say the same as the PIO ones.
    pub dma: bool,
    /// WRITE DMA FUA EXT and WRITE MULTIPLE FUA EXT.
    pub fua: bool,
    /// FLUSH CACHE.
    pub flush: bool,
    /// FLUSH CACHE EXT.
    pub flush_ext: bool,
    /// Blocks of 512 bytes that DATA SET MANAGEMENT takes at once, 0 for not told.
    pub trim_blocks: u16,
}

/// Why IDENTIFY DEVICE data does not describe a disk that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotADisk {
    /// The checksum in word 255 is wrong: the data was damaged on its way.
    Checksum,
    /// It is a packet device, such as a CD drive.
    Packet,
    /// It does not know logical block addresses.
    NoLba,
    /// It has no sectors.
    Empty,
    /// Its sectors are not 512 bytes long.
    SectorSize,
}

impl fmt::Display for NotADisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotADisk::Checksum => "its IDENTIFY DEVICE data has a wrong checksum",
            NotADisk::Packet => "it is a packet device, not a disk",
            NotADisk::NoLba => "it does not know logical block addresses",
            NotADisk::Empty => "it has no sectors",
            NotADisk::SectorSize => "its sectors are not 512 bytes long",
        })
    }
}

impl core::error::Error for NotADisk {}

/// Reads IDENTIFY DEVICE data.
///
/// Generous with what old and simple targets leave empty, vblade for one: a missing checksum, and everything past word 88.
///
/// # Errors
/// [`NotADisk`] when no disk with sectors of 512 bytes can be made of it.
pub fn parse(data: &[u8; 512]) -> Result<Identity, NotADisk> {
    let word = |n: usize| u16::from_le_bytes([data[2 * n], data[2 * n + 1]]);
    let long = |first: usize, count: usize| {
        (0..count).fold(0u64, |value, i| value | u64::from(word(first + i)) << (16 * i))
    };
    // Words 83, 84 and 106 count only with bits 15:14 = 01b, which no floating bus gives.
    let valid = |n: usize| if word(n) & 0xc000 == VALID { word(n) } else { 0 };

    let sum = data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if data[2 * word::INTEGRITY] == SIGNATURE && sum != 0 {
        return Err(NotADisk::Checksum);
    }
    if word(word::CONFIGURATION) & 0x8000 != 0 {
        return Err(NotADisk::Packet);
    }
    if word(word::CAPABILITIES) & LBA == 0 {
        return Err(NotADisk::NoLba);
    }
    const LONG_SECTORS: u16 = 1 << 12;
    if valid(106) & LONG_SECTORS != 0 && long(117, 2) != 256 {
        return Err(NotADisk::SectorSize);
    }
    let commands = valid(word::COMMANDS_2);
    let ext = commands & EXT != 0;
    let sectors = match long(word::LBA48, 4) {
        sectors if ext && sectors != 0 => sectors.min(1 << 48),
        _ => long(word::LBA28, 2).min(LBA28_SECTORS),
    };
    if sectors == 0 {
        return Err(NotADisk::Empty);
    }
    let disk = Disk {
        sectors,
        serial: text(data, word::SERIAL),
        model: text(data, word::MODEL),
        trim: word(word::TRIM) & 1 != 0,
    };
    Ok(Identity {
        disk,
        firmware: text(data, word::FIRMWARE),
        ext,
        dma: word(word::CAPABILITIES) & DMA != 0,
        fua: valid(word::COMMANDS_3) & FUA != 0,
        flush: commands & FLUSH != 0,
        flush_ext: commands & FLUSH_EXT != 0,
        trim_blocks: word(word::TRIM_BLOCKS),
    })
}

/// An ATA string without the spaces around it. Some targets end theirs with zeros.
fn text(data: &[u8; 512], words: core::ops::Range<usize>) -> String {
    let bytes = &data[2 * words.start..2 * words.end];
    let in_order = bytes.chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]);
    let text: String = in_order
        .take_while(|byte| *byte != 0)
        .map(|byte| if byte.is_ascii_graphic() { byte as char } else { ' ' })
        .collect();
    text.trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ata::Settings;
    use crate::ata::identify::{Position, build};
    use proptest::prelude::*;

    fn with(words: &[(usize, u16)]) -> [u8; 512] {
        let mut data = [0; 512];
        for (n, word) in words {
            data[2 * n..2 * n + 2].copy_from_slice(&word.to_le_bytes());
        }
        data
    }

    /// What vblade 25 sends: nothing of 53, 63 to 68, 80, 82, 85, 88, 255, and names that end with zeros.
    #[test]
    fn a_simple_target_is_understood() {
        let mut data = with(&[
            (47, 0x8000),
            (49, 0x0200),
            (50, 0x4000),
            (83, 0x5400),
            (84, 0x4000),
            (86, 0x1400),
            (87, 0x4000),
            (93, 0x400b),
            (60, 0x2000),
            (100, 0x2000),
        ]);
        data[20..28].copy_from_slice(b"i:1e\0\0\0\0");
        let identity = parse(&data).expect("a disk");
        assert_eq!((identity.disk.sectors, identity.disk.serial.as_str()), (0x2000, ":ie1"));
        assert!(identity.ext && identity.flush && !identity.flush_ext && !identity.fua && !identity.dma);
        assert!(!identity.disk.trim);
    }

    #[test]
    fn what_is_no_disk_of_ours_is_named() {
        const DISK: [(usize, u16); 2] = [(49, 0x0200), (60, 8)];
        let parse =
            |words: &[(usize, u16)]| parse(&with(&[&DISK[..], words].concat())).map(|it| it.disk.sectors);
        assert_eq!(parse(&[]), Ok(8));
        assert_eq!(parse(&[(0, 0x8580)]), Err(NotADisk::Packet));
        assert_eq!(parse(&[(49, 0)]), Err(NotADisk::NoLba));
        assert_eq!(parse(&[(60, 0)]), Err(NotADisk::Empty));
        assert_eq!(parse(&[(255, 0x00a5)]), Err(NotADisk::Checksum));
        assert_eq!(parse(&[(106, 0x5000), (117, 2_048)]), Err(NotADisk::SectorSize));
        assert_eq!(parse(&[(106, 0x5000), (117, 256)]), Ok(8));
        assert_eq!(parse(&[(100, 99)]), Ok(8), "48-bit addresses are not claimed");
        assert_eq!(parse(&[(83, 0x4400), (100, 99)]), Ok(99));
    }

    proptest! {
        #[test]
        fn our_own_data_comes_back(
            sectors in 1u64..=1 << 48,
            serial in "[!-~]([ -~]{0,18}[!-~])?",
            model in "([!-~]([ -~]{0,38}[!-~])?)?",
            trim in any::<bool>(),
        ) {
            let disk = Disk { sectors, serial, model, trim };
            let data = build(&disk, &Settings::power_on(sectors), Position::Device1);
            let identity = parse(&data);
            prop_assert_eq!(identity.as_ref().map(|it| &it.disk), Ok(&disk));
            prop_assert!(identity.is_ok_and(|it| it.ext && it.dma && it.fua && it.flush && it.flush_ext));

            let mut damaged = data;
            damaged[100] ^= 0x10;
            prop_assert_eq!(parse(&damaged), Err(NotADisk::Checksum));
        }

        #[test]
        fn no_data_upsets_it(data in proptest::collection::vec(any::<u8>(), 512)) {
            if let Ok(data) = <[u8; 512]>::try_from(data) {
                let _any = parse(&data);
            }
        }
    }
}
