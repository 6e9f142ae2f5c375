//! The region table: where BAT and metadata are.

use std::ops::Range;

use super::fields::{Guid, MIB, array, checksum_matches, guid, u32_at, u64_at};
use super::header::Header;
use super::storage::Storage;
use crate::Error;

/// Where the table's two copies are ([MS-VHDX] 2.2.3).
const PLACES: [u64; 2] = [192 << 10, 256 << 10];
const LENGTH: usize = 64 << 10;
const SIGNATURE: &[u8] = b"regi";
/// Of the table's header and of an entry, in bytes.
const HEADER: usize = 16;
const ENTRY: usize = 32;

const BAT: Guid = guid(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
const METADATA: Guid = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);

/// The regions that we need, in bytes of the file, and what else is taken.
#[derive(Debug)]
pub(super) struct Regions {
    pub(super) bat: Range<u64>,
    pub(super) metadata: Range<u64>,
    pub(super) taken: Taken,
}

/// Parts of the file that no block may lie in, in order.
#[derive(Debug, Default)]
pub(super) struct Taken(Vec<Range<u64>>);

impl Taken {
    /// Whether something in this part is taken.
    pub(super) fn overlaps(&self, part: &Range<u64>) -> bool {
        let next = self.0.partition_point(|taken| taken.end <= part.start);
        self.0.get(next).is_some_and(|taken| taken.start < part.end)
    }

    /// Takes a part; `false` if some of it is taken.
    fn take(&mut self, part: Range<u64>) -> bool {
        let free = !self.overlaps(&part);
        if free && !part.is_empty() {
            let place = self.0.partition_point(|taken| taken.end <= part.start);
            self.0.insert(place, part);
        }
        free
    }
}

/// Reads the table, from its second copy if the first is damaged.
pub(super) fn regions(storage: &Storage, header: &Header) -> Result<Regions, Error> {
    let mut valid = None;
    for place in PLACES {
        let table = storage.structure(place, LENGTH, "region table")?;
        if table.starts_with(SIGNATURE) && checksum_matches([&*table].into_iter()) {
            valid = Some(table);
            break;
        }
    }
    let table = valid.ok_or_else(|| storage.unusable("is damaged: no region table is valid"))?;
    let count = u32_at(&table, 8) as usize;
    let entries = table.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY);
    if count > entries.len() {
        return Err(storage.unusable("is damaged: its region table is too long"));
    }
    let (mut bat, mut metadata) = (None, None);
    let mut taken = Taken::default();
    taken.take(header.log.clone());
    for entry in entries.take(count) {
        let (start, length) = (u64_at(entry, 16), u64::from(u32_at(entry, 24)));
        let end = start.checked_add(length).filter(|&end| end <= storage.size());
        let Some(end) = end.filter(|_| (start | length).is_multiple_of(MIB) && start >= MIB) else {
            return Err(storage.unusable("is cut short or damaged: a region lies outside the file"));
        };
        if !taken.take(start..end) {
            return Err(storage.unusable("is damaged: two of its regions overlap"));
        }
        let known = match array(entry, 0) {
            BAT => &mut bat,
            METADATA => &mut metadata,
            _ if u32_at(entry, 28) & 1 != 0 => {
                return Err(storage.unusable("has a required region of an unknown kind"));
            }
            _ => continue,
        };
        if known.replace(start..end).is_some() {
            return Err(storage.unusable("is damaged: it has a region twice"));
        }
    }
    match (bat, metadata) {
        (Some(bat), Some(metadata)) => Ok(Regions { bat, metadata, taken }),
        _ => Err(storage.unusable("is damaged: it has no block allocation table, or no metadata")),
    }
}
