//! The metadata: sizes of disk, blocks and sectors.

use std::ops::Range;

use super::fields::{Guid, MIB, array, guid, u16_at, u32_at, u64_at};
use super::storage::Storage;
use crate::Error;

/// Of the table, its header and an entry, in bytes ([MS-VHDX] 2.6.1).
const TABLE: usize = 64 << 10;
const HEADER: usize = 32;
const ENTRY: usize = 32;
const SIGNATURE: &[u8] = b"metadata";

const IS_USER: u32 = 1 << 0;
const IS_REQUIRED: u32 = 1 << 2;
const HAS_PARENT: u32 = 1 << 1;

const FILE_PARAMETERS: Guid = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
const DISK_SIZE: Guid = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
const DISK_ID: Guid = guid(0xbeca_12ab, 0xb2e6, 0x4523, 0x93ef_c309_e000_c746);
const LOGICAL_SECTOR: Guid = guid(0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f);
const PHYSICAL_SECTOR: Guid = guid(0xcda3_48c7, 0x445d, 0x4471, 0x9cc9_e988_5251_c556);
const PARENT: Guid = guid(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c);

/// A disk may not be larger ([MS-VHDX] 2.6.2.2).
const LARGEST_DISK: u64 = 64 << 40;
/// A sector bitmap block has bits for so many sectors ([MS-VHDX] 2.4).
const SECTORS_OF_CHUNK: u64 = 1 << 23;

/// How a disk is cut into blocks.
#[derive(Debug)]
pub(super) struct Geometry {
    /// Of the disk, in bytes.
    pub(super) size: u64,
    /// In bytes: a power of two, 1 MiB to 256 MiB.
    pub(super) block_size: u64,
    /// Blocks that share an entry for a sector bitmap, which follows theirs in the BAT.
    pub(super) chunk_ratio: u64,
}

/// Reads the metadata in this region.
pub(super) fn geometry(storage: &Storage, region: &Range<u64>) -> Result<Geometry, Error> {
    let table = storage.structure(region.start, TABLE, "metadata table")?;
    let entries = table.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY);
    let count = usize::from(u16_at(&table, 10));
    if !table.starts_with(SIGNATURE) || count > entries.len() {
        return Err(storage.unusable("is damaged: its metadata table is not valid"));
    }
    let (mut parameters, mut size, mut sector) = (None, None, None);
    for entry in entries.take(count) {
        let flags = u32_at(entry, 24);
        let (known, needed) = match array(entry, 0) {
            FILE_PARAMETERS if flags & IS_USER == 0 => (&mut parameters, 8),
            DISK_SIZE if flags & IS_USER == 0 => (&mut size, 8),
            LOGICAL_SECTOR if flags & IS_USER == 0 => (&mut sector, 4),
            DISK_ID | PHYSICAL_SECTOR | PARENT if flags & IS_USER == 0 => continue,
            _ if flags & IS_REQUIRED != 0 => {
                return Err(storage.unusable("has required metadata of an unknown kind"));
            }
            _ => continue,
        };
        let (at, length) = (u64::from(u32_at(entry, 16)), u64::from(u32_at(entry, 20)));
        if at < TABLE as u64 || length < needed || at + length > region.end - region.start {
            return Err(storage.unusable("is damaged: its metadata lie outside their region"));
        }
        let item = storage.structure(region.start + at, needed as usize, "metadata")?;
        if known.replace(array::<8>(&item, 0)).is_some() {
            return Err(storage.unusable("is damaged: it has metadata twice"));
        }
    }
    let (Some(parameters), Some(size), Some(sector)) = (parameters, size, sector) else {
        return Err(
            storage.unusable("is damaged: it does not say the size of the disk, of blocks or of sectors")
        );
    };
    if u32_at(&parameters, 4) & HAS_PARENT != 0 {
        return Err(Error::Differencing(storage.path().into()));
    }
    let (size, block_size) = (u64_at(&size, 0), u64::from(u32_at(&parameters, 0)));
    let sector = u64::from(u32_at(&sector, 0));
    if !block_size.is_power_of_two() || !(MIB..=256 * MIB).contains(&block_size) {
        return Err(storage.unusable(format!("has blocks of {block_size} bytes")));
    }
    if ![512, 4096].contains(&sector) {
        return Err(storage.unusable(format!("has sectors of {sector} bytes")));
    }
    if size > LARGEST_DISK || !size.is_multiple_of(sector) {
        return Err(storage.unusable(format!("holds a disk of {size} bytes")));
    }
    Ok(Geometry { size, block_size, chunk_ratio: SECTORS_OF_CHUNK * sector / block_size })
}
