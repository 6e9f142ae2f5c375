//! Copy-on-write overlays: what each client wrote over a base image that all read. docs/overlay.md has the file format.

mod clients;
mod layout;

pub use clients::Overlays;
pub use layout::Identity;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kagero_aoe::target::{Fault, Range};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::backend::{Backend, after};
use crate::file::ImageFile;
use crate::raw::Raw;
use crate::{Error, Image, Place};
pub(crate) use layout::MAGIC;
use layout::{CLUSTER, Journal, Layout, PAGE, PAGE_ENTRIES, RECORDS, Record};

/// One client's overlay of a base image.
///
/// A cluster that the client never wrote to is the base's. Its first write copies it here; until the next flush the map in the file doesn't
/// know of it, but the journal does, which is good for as long as the machine runs. So neither a killed process nor a loss of power makes
/// the map point to data that isn't there.
#[derive(Debug)]
pub struct Overlay {
    raw: Raw,
    base: Arc<Image>,
    layout: Layout,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where clusters lie in the file, 0 for in the base; only pages with one that isn't 0.
    pages: BTreeMap<u64, Page>,
    /// Where the next cluster goes.
    next: u64,
    journal: Journal,
    /// Records in it.
    records: u64,
}

#[derive(Clone, Debug)]
struct Page {
    entries: Box<[u64; PAGE_ENTRIES]>,
    /// Unlike in the file.
    dirty: bool,
}

impl Overlay {
    /// Opens the overlay at `path`.
    ///
    /// # Errors
    /// One line: in use, damaged, made for another base or for this one before it was changed.
    pub fn open(path: &Path, base: Arc<Image>, identity: &Identity) -> Result<Self, Error> {
        let file = ImageFile::open(path, true)?;
        let read = |at: u64, out: &mut [u8]| file.read_exact_at(out, at);
        let mut header = [0; layout::HEADER];
        let damaged = |why: String| Error::OverlayDamaged { path: path.into(), why };
        read(0, &mut header).map_err(|_| damaged("it is too short".into()))?;
        let made_for = Identity::decode(&header).map_err(|why| damaged(why.into()))?;
        if made_for != *identity {
            let (path, base, what) = (path.into(), base.path().into(), made_for.difference(identity));
            return Err(Error::OverlayBase { path, base, what });
        }
        let layout = Layout::new(base.size());
        let mut state = State {
            pages: load(&file, &layout).map_err(|error| file.kernel("read its map", error))?,
            next: layout.data,
            journal: Journal::new().map_err(|error| file.kernel("find the boot's name for", error))?,
            records: 0,
        };
        let mut before = [0; layout::JOURNAL_HEADER];
        // Too short: it was made, and nothing was written yet.
        if read(layout::JOURNAL, &mut before).is_ok()
            && let Some(before) = Journal::decode(&before)
            && before.boot == state.journal.boot
        {
            for i in 0..RECORDS {
                let mut bytes = [0; layout::RECORD];
                let Ok(()) = read(layout::record(i), &mut bytes) else { break };
                let Some(record) = Record::decode(&bytes, before.generation) else { break };
                if record.cluster >= layout.clusters {
                    return Err(damaged(format!("its journal has cluster {}", record.cluster)));
                }
                state.set(record.cluster, record.place);
            }
        }
        let mut places = BTreeSet::new();
        for (page, content) in &state.pages {
            for (i, &place) in (0..).zip(content.entries.iter()).filter(|(_, place)| **place != 0) {
                let cluster = page * PAGE_ENTRIES as u64 + i;
                let inside = place >= layout.data
                    && (place - layout.data).is_multiple_of(CLUSTER)
                    && place.checked_add(CLUSTER).is_some_and(|end| end <= file.size());
                if cluster >= layout.clusters || !inside || !places.insert(place) {
                    return Err(damaged(format!("cluster {cluster} can't lie at byte {place}")));
                }
            }
        }
        state.next = places.last().map_or(layout.data, |last| last + CLUSTER);
        let overlay = Overlay { raw: Raw::new(file, u64::MAX), base, layout, state: Mutex::new(state) };
        let failed = |_| Error::OverlayDamaged { path: path.into(), why: "it can't be written".into() };
        {
            let mut state = overlay.state();
            overlay.checkpoint(&mut state).map_err(failed)?;
            overlay.start_journal(&mut state).map_err(failed)?;
        }
        Ok(overlay)
    }

    /// Makes an empty overlay at `path`, where there is none, and opens it.
    ///
    /// # Errors
    /// As [`open`](Self::open); also when it can't be made.
    pub fn create(path: &Path, base: Arc<Image>, identity: &Identity) -> Result<Self, Error> {
        let kernel = |source| Error::Kernel { path: path.into(), doing: "make it", source };
        let new = path.with_extension("new");
        let make = || -> io::Result<()> {
            let file = File::create(&new)?;
            file.write_all_at(&identity.encode(), 0)?;
            file.sync_all()?;
            // Never over one that is there.
            fs::hard_link(&new, path)?;
            fs::remove_file(&new)?;
            File::open(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?
                .sync_all()
        };
        make().map_err(kernel)?;
        Self::open(path, base, identity)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new generation of journal records; what the old ones say is in the map, on the medium.
    fn start_journal(&self, state: &mut State) -> Result<(), Fault> {
        state.journal.generation = state.journal.generation.wrapping_add(1);
        self.raw.write(layout::JOURNAL, &state.journal.encode(), false)?;
        state.records = 0;
        Ok(())
    }

    /// Makes all survive a loss of power: first the data, then the map that points to it.
    fn checkpoint(&self, state: &mut State) -> Result<(), Fault> {
        self.raw.flush()?;
        if state.pages.values().all(|page| !page.dirty) {
            return Ok(());
        }
        for (number, page) in state.pages.iter().filter(|(_, page)| page.dirty) {
            let bytes: Vec<u8> = page.entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
            self.raw.write(layout::MAP + number * PAGE, &bytes, false)?;
        }
        self.raw.flush()?;
        self.start_journal(state)?;
        state.pages.values_mut().for_each(|page| page.dirty = false);
        Ok(())
    }

    /// Copies a cluster that is the base's, with `data` written over it from `within` on.
    fn copy_up(&self, state: &mut State, cluster: u64, within: usize, data: &[u8]) -> Result<(), Fault> {
        if state.records >= RECORDS {
            self.checkpoint(state)?;
        }
        let mut copy = vec![0; CLUSTER as usize];
        let begin = cluster * CLUSTER;
        let length = CLUSTER.min(self.layout.size - begin) as usize;
        if data.len() < length {
            self.base.read(begin, &mut copy[..length])?;
        }
        copy[within..within + data.len()].copy_from_slice(data);
        let place = state.next;
        self.raw.write(place, &copy, false)?;
        let record = Record { cluster, place }.encode(state.journal.generation);
        self.raw.write(layout::record(state.records), &record, false)?;
        state.records += 1;
        state.next += CLUSTER;
        state.set(cluster, place);
        Ok(())
    }
}

impl State {
    fn place(&self, cluster: u64) -> u64 {
        let (page, entry) = (cluster / PAGE_ENTRIES as u64, (cluster % PAGE_ENTRIES as u64) as usize);
        self.pages.get(&page).map_or(0, |page| page.entries[entry])
    }

    fn set(&mut self, cluster: u64, place: u64) {
        let (page, entry) = (cluster / PAGE_ENTRIES as u64, (cluster % PAGE_ENTRIES as u64) as usize);
        let empty = || Page { entries: Box::new([0; PAGE_ENTRIES]), dirty: true };
        let page = self.pages.entry(page).or_insert_with(empty);
        page.entries[entry] = place;
        page.dirty = true;
    }
}

/// The parts of a range that lie in one cluster each: the cluster, where in it, where in the range, how long.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % CLUSTER) as usize;
        let piece = (length - done).min(CLUSTER as usize - within);
        let item = (at / CLUSTER, within, done, piece);
        done += piece;
        (piece > 0).then_some(item)
    })
}

impl Backend for Overlay {
    fn size(&self) -> u64 {
        self.layout.size
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        for (cluster, within, at, length) in pieces(offset, out.len()) {
            let part = &mut out[at..at + length];
            // Never changes once it is set.
            let place = self.state().place(cluster);
            match place {
                0 => self.base.read(cluster * CLUSTER + within as u64, part),
                place => self.raw.read(place + within as u64, part),
            }
            .map_err(|fault| after(at, fault))?;
        }
        Ok(())
    }

    fn place_to_read(&self, offset: u64, length: usize) -> Option<Place> {
        let (cluster, within) = (offset / CLUSTER, offset % CLUSTER);
        if within + length as u64 > CLUSTER {
            return None;
        }
        let place = self.state().place(cluster);
        match place {
            0 => self.base.backend().place_to_read(offset, length),
            place => self.raw.place_to_read(place + within, length),
        }
    }

    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Fault> {
        let mut state = self.state();
        for (cluster, within, at, length) in pieces(offset, data.len()) {
            let part = &data[at..at + length];
            match state.place(cluster) {
                0 => self.copy_up(&mut state, cluster, within, part),
                place => self.raw.write(place + within as u64, part, false),
            }
            .map_err(|fault| after(at, fault))?;
        }
        if durable { self.checkpoint(&mut state) } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), Fault> {
        self.checkpoint(&mut self.state())
    }

    /// Gives back what lies here; what is the base's stays.
    fn trim(&self, range: Range) -> Result<(), Fault> {
        let state = self.state();
        let end = range.offset.saturating_add(range.length).min(self.layout.size);
        let mut at = range.offset;
        while at < end {
            let within = at % CLUSTER;
            let length = (end - at).min(CLUSTER - within);
            let place = state.place(at / CLUSTER);
            if place != 0 {
                self.raw.trim(Range { offset: place + within, length })?;
            }
            at += length;
        }
        Ok(())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // The journal doesn't outlive the machine's next start.
        let _ = self.flush();
    }
}

/// The map's pages that are in the file.
fn load(file: &File, layout: &Layout) -> io::Result<BTreeMap<u64, Page>> {
    let mut pages = BTreeMap::new();
    let mut at = layout::MAP;
    loop {
        at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => layout::MAP.max(data - data % PAGE),
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        if at >= layout.data {
            break;
        }
        let mut bytes = [0; PAGE as usize];
        match file.read_exact_at(&mut bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            other => other?,
        }
        let (entries, _) = bytes.as_chunks::<8>();
        let mut page = Page { entries: Box::new([0; PAGE_ENTRIES]), dirty: false };
        for (entry, bytes) in page.entries.iter_mut().zip(entries) {
            *entry = u64::from_le_bytes(*bytes);
        }
        if page.entries.iter().any(|&entry| entry != 0) {
            pages.insert((at - layout::MAP) / PAGE, page);
        }
        at += PAGE;
    }
    Ok(pages)
}
