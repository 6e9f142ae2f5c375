//! Copy-on-write overlays: what each client wrote over a base image that all read. docs/overlay.md has the file format.

mod clients;
mod commit;
mod contents;
mod info;
mod layout;
mod map;
mod opening;
mod rebase;
mod state;
#[cfg(test)]
mod tests;

pub use clients::Overlays;
pub use commit::{Committed, commit};
pub use contents::Left;
pub use info::OverlayInfo;
pub use layout::Identity;
pub(crate) use layout::MAGIC;
pub use rebase::{OldBase, Rebased, rebase};

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kagero_aoe::target::{Fault, Range};

use crate::backend::{Backend, after};
use crate::{Error, Image};
use layout::{CLUSTER, Half, Header, Layout};
use map::{Map, Place};
use opening::Opening;
use state::State;

/// Clusters that may be copied at once.
const COPIES: usize = 16;

/// One client's overlay of a base image.
///
/// A cluster that the client never wrote to is the base's. Its first write copies it here; until the next flush the map in the file doesn't
/// know of it, but the journal does, which is good for as long as the machine runs. So neither a killed process nor a loss of power makes
/// the map point to data that isn't there.
///
/// Reads, and writes to what was copied before, take no lock. Locks are taken in the order of the fields; `flush` takes none of `copying`,
/// and holds `state` only while it makes its list.
#[derive(Debug)]
pub struct Overlay {
    store: Box<dyn Backend>,
    path: PathBuf,
    base: Arc<Image>,
    layout: Layout,
    map: Map,
    /// Held while a cluster is copied: one of them for each, by its number.
    copying: [Mutex<()>; COPIES],
    /// Held by a flush: one at a time.
    flushing: Mutex<()>,
    state: Mutex<State>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Overlay {
    /// Opens the overlay at `path`.
    ///
    /// # Errors
    /// One line: in use, damaged, made for another base or for this one before it was changed, half committed.
    pub fn open(path: &Path, base: Arc<Image>, identity: &Identity) -> Result<Self, Error> {
        let opening = Opening::new(path)?;
        opening.check(&base, identity)?;
        opening.over(base)
    }

    /// Makes an empty overlay at `path`, where there is none, and opens it.
    ///
    /// # Errors
    /// As [`open`](Self::open); also when it can't be made.
    pub fn create(path: &Path, base: Arc<Image>, identity: &Identity) -> Result<Self, Error> {
        let kernel = |source| Error::Kernel { path: path.into(), doing: "make it", source };
        let new = path.with_extension("new");
        let make = || -> io::Result<()> {
            // What a killed process may have left. It may be another name of an overlay.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = File::create_new(&new)?;
            file.write_all_at(&Header { over: *identity, committing: false }.encode(), 0)?;
            file.write_all_at(&layout::encode_path(base.path()), layout::BASE_PATH)?;
            let closed = Half { boot: layout::CLOSED, generation: 0 }.encode();
            for half in 0..2 {
                file.write_all_at(&closed, layout::half_header(half))?;
            }
            file.sync_all()?;
            // Never over one that is there.
            fs::hard_link(&new, path)?;
            fs::remove_file(&new)?;
            sync_folder(path)
        };
        make().map_err(|error| {
            // Without room, at least this much is given back.
            let _ = fs::remove_file(&new);
            kernel(error)
        })?;
        Self::open(path, base, identity)
    }

    /// The parts of a range that lie in one piece each, in the base or here.
    fn runs(&self, offset: u64, length: usize) -> impl Iterator<Item = Run> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let begin = offset + done as u64;
            let (mut cluster, within) = (begin / CLUSTER, begin % CLUSTER);
            let first = self.map.get(cluster);
            let (at, mut end) = (done, (done + (CLUSTER - within) as usize).min(length));
            while end < length {
                cluster += 1;
                let continues = match first {
                    Place::Here(at) => Place::Here(at + (cluster - begin / CLUSTER) * CLUSTER),
                    other => other,
                };
                if self.map.get(cluster) != continues {
                    break;
                }
                end = (end + CLUSTER as usize).min(length);
            }
            done = end;
            let place = match first {
                Place::Here(at) => Place::Here(at + within),
                other => other,
            };
            (end > at).then_some(Run { place, offset: begin, at, length: end - at })
        })
    }

    /// Writes to a cluster that was the base's when we looked: copies it, with `data` over it from `within` on.
    fn copy_up(&self, cluster: u64, within: usize, data: &[u8]) -> Result<(), Fault> {
        let _copying = lock(&self.copying[(cluster % COPIES as u64) as usize]);
        let before = self.map.get(cluster);
        if let Place::Here(at) = before {
            return self.store.write(at + within as u64, data, false);
        }
        let mut copy = vec![0; CLUSTER as usize];
        let begin = cluster * CLUSTER;
        let length = CLUSTER.min(self.layout.size - begin) as usize;
        if before == Place::Base && data.len() < length {
            self.base.read(begin, &mut copy[..length]).map_err(at_first)?;
        }
        copy[within..within + data.len()].copy_from_slice(data);
        let at = lock(&self.state).take_room();
        let copied = self.store.write(at, &copy, false).and_then(|()| self.record(cluster, at));
        if copied.is_err() {
            // What could be written of it takes room that others need.
            let _ = self.store.trim(Range { offset: at, length: CLUSTER });
            lock(&self.state).give_room(at);
        }
        copied.map_err(at_first)
    }

    /// Makes a cluster of the base's, or of zeros already, read as zeros. This is for a trim or before a flush, since no journal says it.
    fn zero(&self, cluster: u64) -> Result<(), Fault> {
        let mut state = lock(&self.state);
        if self.map.get(cluster) == Place::Base {
            self.set(&mut state, cluster, Place::Zeros)?;
        }
        Ok(())
    }

    /// Writes what the overlay was made over, durably, with the base's path.
    fn write_header(&self, header: &Header, base: &Path) -> Result<(), Fault> {
        self.store.write(0, &header.encode(), false)?;
        self.store.flush()?;
        self.store.write(layout::BASE_PATH, &layout::encode_path(base), false)?;
        self.store.flush()
    }
}

/// A part of a range that lies in one piece.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Where it lies; `Here` is where it begins in the file.
    place: Place,
    /// Where it is on the disk.
    offset: u64,
    /// Where in the range.
    at: usize,
    length: usize,
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

/// What failed while a whole cluster was copied is told of the first sector that the client meant.
fn at_first(fault: Fault) -> Fault {
    match fault {
        Fault::Medium { .. } => Fault::Medium { done: 0 },
        Fault::Aborted => fault,
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
}

impl Backend for Overlay {
    fn size(&self) -> u64 {
        self.layout.size
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        for Run { place, offset, at, length } in self.runs(offset, out.len()) {
            let part = &mut out[at..at + length];
            match place {
                Place::Base => self.base.read(offset, part),
                Place::Here(here) => self.store.read(here, part),
                Place::Zeros => {
                    part.fill(0);
                    Ok(())
                }
            }
            .map_err(|fault| after(at, fault))?;
        }
        Ok(())
    }

    fn place_to_read(&self, offset: u64, length: usize) -> Option<crate::Place> {
        let run = self.runs(offset, length).next()?;
        match run.place {
            _ if run.length < length => None,
            Place::Base => self.base.backend().place_to_read(offset, length),
            Place::Here(here) => self.store.place_to_read(here, length),
            Place::Zeros => None,
        }
    }

    fn place_to_write(&self, offset: u64, data: &[u8]) -> Option<crate::Place> {
        let run = self.runs(offset, data.len()).next()?;
        match run.place {
            Place::Here(here) if run.length == data.len() => self.store.place_to_write(here, data),
            _ => None,
        }
    }

    fn rest(&self) {
        self.store.rest();
    }

    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Fault> {
        let mut flush = false;
        for (cluster, within, at, length) in pieces(offset, data.len()) {
            let part = &data[at..at + length];
            match self.map.get(cluster) {
                Place::Here(here) => {
                    // Where the medium knows of the cluster already, its data is all there is to flush.
                    let sync = durable && self.is_mapped(cluster);
                    flush |= durable && !sync;
                    self.store.write(here + within as u64, part, sync)
                }
                Place::Base | Place::Zeros => {
                    flush |= durable;
                    self.copy_up(cluster, within, part)
                }
            }
            .map_err(|fault| after(at, fault))?;
        }
        if flush { self.flush() } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), Fault> {
        self.checkpoint()
    }

    /// Gives back what lies here. Whole clusters of the base's read as zeros from then on, parts of them stay as they are.
    fn trim(&self, range: Range) -> Result<(), Fault> {
        let end = range.offset.saturating_add(range.length).min(self.layout.size);
        let length = usize::try_from(end.saturating_sub(range.offset)).unwrap_or(usize::MAX);
        for Run { place, offset, length, .. } in self.runs(range.offset, length) {
            match place {
                Place::Here(here) => self.store.trim(Range { offset: here, length: length as u64 })?,
                Place::Zeros => {}
                Place::Base => {
                    let end = offset + length as u64;
                    let whole = if end == self.layout.size { self.layout.clusters } else { end / CLUSTER };
                    for cluster in offset.div_ceil(CLUSTER)..whole {
                        if self.zero(cluster).is_err() {
                            // Without room for its map it stays the base's: a trim is a hint.
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // The journal doesn't outlive the machine's next start.
        if self.flush().is_ok() {
            self.end_journal();
        }
    }
}
