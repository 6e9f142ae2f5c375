//! The block allocation table: where in the file a block lies.

use super::fields::{MIB, u64_at};
use super::metadata::Geometry;
use super::region::Regions;
use super::storage::Storage;
use crate::Error;

/// Of an entry, in bytes.
const ENTRY: usize = 8;
/// Blocks that are kept together in memory.
const GROUP: usize = 512;

/// Where blocks lie.
#[derive(Debug)]
pub(super) struct Bat {
    /// Offsets in MiB, 0 for no place, in groups; no group where there would only be zeros.
    ///
    /// The table of a disk of 64 TiB may have half a gigabyte. This has at most half of what of it isn't zeros.
    groups: Vec<Option<Box<[u32; GROUP]>>>,
}

impl Bat {
    /// Reads and checks the table.
    pub(super) fn read(storage: &Storage, regions: &Regions, geometry: &Geometry) -> Result<Self, Error> {
        let &Geometry { size, block_size, chunk_ratio } = geometry;
        let blocks = size.div_ceil(block_size);
        // [MS-VHDX] 2.5: after each full chunk's entries, there is one for its sector bitmap.
        let entries = blocks + blocks.saturating_sub(1) / chunk_ratio;
        if entries * ENTRY as u64 > regions.bat.end - regions.bat.start {
            return Err(storage.unusable("is damaged: its block allocation table is too short"));
        }
        let groups = usize::try_from(blocks).unwrap_or(usize::MAX).div_ceil(GROUP);
        let mut bat = Bat { groups: std::iter::repeat_with(|| None).take(groups).collect() };
        let mut bytes = Vec::new();
        for index in 0..entries {
            let within = (index as usize * ENTRY) % (64 << 10);
            if within == 0 {
                let length = ((entries - index) as usize * ENTRY).min(64 << 10);
                let at = regions.bat.start + index * ENTRY as u64;
                bytes = storage.structure(at, length, "block allocation table")?;
            }
            let (chunk, place) = (index / (chunk_ratio + 1), index % (chunk_ratio + 1));
            if place == chunk_ratio {
                // Means nothing without a parent.
                continue;
            }
            let block = chunk * chunk_ratio + place;
            let used = block_size.min(size - block * block_size);
            let Some(place) = place_of(u64_at(&bytes, within), used, storage, regions)? else { continue };
            if let Some(group) = bat.groups.get_mut(block as usize / GROUP) {
                group.get_or_insert_with(|| Box::new([0; GROUP]))[block as usize % GROUP] = place;
            }
        }
        Ok(bat)
    }

    /// The offset of a block in the file; `None` when it holds zeros.
    pub(super) fn place(&self, block: u64) -> Option<u64> {
        let block = usize::try_from(block).ok()?;
        let place = self.groups.get(block / GROUP)?.as_deref()?[block % GROUP];
        (place > 0).then(|| u64::from(place) * MIB)
    }
}

/// Where a block lies by its entry, in MiB, of which so many bytes are used ([MS-VHDX] 2.5.1.1).
fn place_of(entry: u64, used: u64, storage: &Storage, regions: &Regions) -> Result<Option<u32>, Error> {
    /// The offset in MiB is in the bits from here on.
    const OFFSET: u32 = 20;
    match entry & 7 {
        // Not present, undefined, zero, unmapped: zeros are right for all of them.
        0..=3 => Ok(None),
        6 => {
            let start = entry >> OFFSET << OFFSET;
            let place = u32::try_from(entry >> OFFSET).ok();
            // QEMU ends the file of a fixed disk where the disk ends, within the last block.
            let end = start.checked_add(used).filter(|&end| end <= storage.size());
            match (place, end) {
                (Some(1..), Some(end)) if !regions.taken.overlaps(&(start..end)) => Ok(place),
                (Some(1..), Some(_)) => Err(storage.unusable("is damaged: a block lies over its tables")),
                _ => Err(storage.unusable("is cut short or damaged: a block lies outside the file")),
            }
        }
        state => Err(storage.unusable(format!("is damaged: a block has the state {state}"))),
    }
}
