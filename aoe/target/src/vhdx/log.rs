//! The log: changes to the file that may not have been made before it was closed.

use super::fields::{Guid, array, checksum_matches, u32_at, u64_at};
use super::header::Header;
use super::patches::{PAGE, Patches};
use super::storage::Storage;
use crate::Error;

/// Longer logs are not replayed. Hyper-V's and QEMU's have 1 MiB.
const LONGEST: usize = 16 << 20;
/// Of an entry's header and of a descriptor, in bytes ([MS-VHDX] 2.3.1).
const HEADER: usize = 64;
const DESCRIPTOR: usize = 32;

/// Replays the log, if there is anything in it ([MS-VHDX] 2.3.3).
pub(super) fn replay(storage: &mut Storage, header: &Header) -> Result<(), Error> {
    let Some(guid) = header.log_guid else { return Ok(()) };
    let length = usize::try_from(header.log.end - header.log.start).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(storage.unusable(
            "was not closed, and has a log that is too long (`qemu-img check -r all` empties it)",
        ));
    }
    let bytes = storage.structure(header.log.start, length, "log")?;
    let log = Log { pages: bytes.as_chunks().0, guid };
    let sequence = log.active_sequence();
    let Some(head) = sequence.last() else {
        return Err(storage.unusable("was not closed, and its log is damaged"));
    };
    if storage.size() < head.flushed_file_size {
        return Err(storage.unusable("is cut short"));
    }
    let mut patches = Patches::default();
    for update in sequence.iter().flat_map(|entry| &entry.updates) {
        match *update {
            Update::Zero { offset, length } => patches.zero(offset, length),
            Update::Data { offset, leading, trailing, page } => {
                let mut data = Box::new(*log.page(page));
                data[..8].copy_from_slice(&leading);
                data[PAGE - 4..].copy_from_slice(&trailing);
                patches.write(offset, data);
            }
        }
    }
    let path = storage.path().display();
    tracing::info!(%path, entries = sequence.len(), "the image was not closed: its log is replayed in memory");
    storage.replay(patches, head.last_file_offset);
    Ok(())
}

/// A ring of pages.
struct Log<'a> {
    pages: &'a [[u8; PAGE]],
    guid: Guid,
}

/// A valid entry.
struct Entry {
    /// Its first page.
    place: usize,
    /// Its length in pages.
    length: usize,
    sequence: u64,
    /// The first page of the oldest entry that had to be replayed with it.
    tail: usize,
    flushed_file_size: u64,
    last_file_offset: u64,
    updates: Vec<Update>,
}

/// What a descriptor says to do.
enum Update {
    Zero { offset: u64, length: u64 },
    Data { offset: u64, leading: [u8; 8], trailing: [u8; 4], page: usize },
}

impl Log<'_> {
    fn page(&self, number: usize) -> &[u8; PAGE] {
        &self.pages[number % self.pages.len()]
    }

    /// The newest valid and complete sequence, from its tail to its head; empty if there is none.
    ///
    /// What ends a run of entries ends all that begin within it, so each run is looked at once, or twice where it wraps: [MS-VHDX] 2.3.3
    /// would begin again a page later.
    fn active_sequence(&self) -> Vec<Entry> {
        let mut active: Vec<Entry> = Vec::new();
        let mut place = 0;
        while place < self.pages.len() {
            let mut run: Vec<Entry> = Vec::new();
            let mut length = 0;
            while length < self.pages.len()
                && let Some(entry) = self.entry((place + length) % self.pages.len())
                && run.last().is_none_or(|last| last.sequence.checked_add(1) == Some(entry.sequence))
            {
                length += entry.length;
                run.push(entry);
            }
            if let Some((head, tail)) = run.last().map(|head| (head.sequence, head.tail))
                && active.last().is_none_or(|active| active.sequence < head)
                && let Some(tail) = run.iter().position(|entry| entry.place == tail)
            {
                active = run.split_off(tail);
            }
            place += length.max(1);
        }
        active
    }

    /// The entry that begins on this page, if a valid one does ([MS-VHDX] 2.3.1).
    fn entry(&self, place: usize) -> Option<Entry> {
        let header = self.page(place);
        let sequence = u64_at(header, 16);
        let (bytes, tail) = (u32_at(header, 8) as usize, u32_at(header, 12) as usize);
        let (length, tail) = (bytes / PAGE, tail / PAGE);
        let valid = header.starts_with(b"loge")
            && bytes.is_multiple_of(PAGE)
            && (1..=self.pages.len()).contains(&length)
            && u32_at(header, 12).is_multiple_of(PAGE as u32)
            && sequence > 0
            && array(header, 32) == self.guid;
        // An entry does not begin within another, so the checksums of all of them take one pass over the log.
        if !valid || (1..length).any(|page| self.page(place + page).starts_with(b"loge")) {
            return None;
        }
        let count = u32_at(header, 24) as usize;
        let mut page = (HEADER + count.checked_mul(DESCRIPTOR)?).div_ceil(PAGE);
        if page > length {
            return None;
        }
        let mut updates = Vec::with_capacity(count);
        for number in 0..count {
            let at = HEADER + number * DESCRIPTOR;
            let descriptor = &self.page(place + at / PAGE)[at % PAGE..][..DESCRIPTOR];
            updates.push(self.update(descriptor, sequence, place, &mut page)?);
        }
        let all = (0..length).map(|page| self.page(place + page).as_slice());
        (page <= length && checksum_matches(all)).then(|| Entry {
            place,
            length,
            sequence,
            tail,
            flushed_file_size: u64_at(header, 48),
            last_file_offset: u64_at(header, 56),
            updates,
        })
    }

    /// What a descriptor says, if it is valid ([MS-VHDX] 2.3.1.2 to 2.3.1.4). `page` counts the pages of the entry at `place`.
    fn update(&self, descriptor: &[u8], sequence: u64, place: usize, page: &mut usize) -> Option<Update> {
        let offset = u64_at(descriptor, 16);
        let length = if descriptor.starts_with(b"zero") { u64_at(descriptor, 8) } else { PAGE as u64 };
        if u64_at(descriptor, 24) != sequence
            || !(offset | length).is_multiple_of(PAGE as u64)
            || offset.checked_add(length).is_none()
        {
            return None;
        }
        if descriptor.starts_with(b"zero") {
            return Some(Update::Zero { offset, length });
        }
        let number = place + *page;
        *page += 1;
        let data = self.page(number);
        // Half of the number at each end shows that all of the page was written.
        let written = u64::from(u32_at(data, 4)) << 32 | u64::from(u32_at(data, PAGE - 4));
        (descriptor.starts_with(b"desc") && data.starts_with(b"data") && written == sequence).then(|| {
            Update::Data {
                offset,
                leading: array(descriptor, 8),
                trailing: array(descriptor, 4),
                page: number,
            }
        })
    }
}
