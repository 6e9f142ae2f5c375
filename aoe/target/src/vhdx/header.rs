//! The two headers, of which one is current.

use std::ops::Range;

use super::fields::{Guid, MIB, array, checksum_matches, u16_at, u32_at, u64_at};
use super::storage::Storage;
use crate::Error;

/// Where they are ([MS-VHDX] 2.2.2).
const PLACES: [u64; 2] = [64 << 10, 128 << 10];
const LENGTH: usize = 4 << 10;
const SIGNATURE: &[u8] = b"head";
/// The only version of the format.
const VERSION: u16 = 1;

/// What the current header says.
#[derive(Debug)]
pub(super) struct Header {
    /// Entries with this are in the log; `None` when none is.
    pub(super) log_guid: Option<Guid>,
    /// Where the log is in the file.
    pub(super) log: Range<u64>,
}

/// Finds the current header ([MS-VHDX] 2.2.2): of those that are valid, the later one.
pub(super) fn current(storage: &Storage) -> Result<Header, Error> {
    let mut found: Option<Vec<u8>> = None;
    for place in PLACES {
        let header = storage.structure(place, LENGTH, "header")?;
        if !header.starts_with(SIGNATURE) || !checksum_matches([&*header].into_iter()) {
            continue;
        }
        match &found {
            Some(other) if sequence(other) == sequence(&header) && *other != header => {
                return Err(storage.unusable("has two headers of the same age that differ"));
            }
            Some(other) if sequence(other) >= sequence(&header) => {}
            _ => found = Some(header),
        }
    }
    let header = found.ok_or_else(|| storage.unusable("is damaged: no header is valid"))?;
    let version = u16_at(&header, 66);
    if version != VERSION {
        return Err(storage.unusable(format!("is of version {version}, not {VERSION}")));
    }
    let log_guid = Some(array(&header, 48)).filter(|guid| *guid != [0; 16]);
    let log_version = u16_at(&header, 64);
    if log_guid.is_some() && log_version != 0 {
        return Err(storage.unusable(format!("has a log of version {log_version}, not 0")));
    }
    let (start, length) = (u64_at(&header, 72), u64::from(u32_at(&header, 68)));
    let end = start.checked_add(length).filter(|&end| end <= storage.size());
    match end {
        Some(end) if (start | length).is_multiple_of(MIB) && start >= MIB => {
            Ok(Header { log_guid, log: start..end })
        }
        _ => Err(storage.unusable("has its log where none can be")),
    }
}

fn sequence(header: &[u8]) -> u64 {
    u64_at(header, 8)
}
