//! What an overlay file holds, as it is found.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::layout::{self, CLUSTER, Half, Header, Layout, PAGE, PAGE_ENTRIES, RECORDS, Record};
use super::map::Place;
use crate::Error;

/// Gaps between clusters that are used again. More than these stay gaps.
const MOST_FREE: usize = 65_536;

/// How an overlay was left by whoever had it open last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It was closed.
    Closed,
    /// It wasn't, but the machine has run ever since: nothing is lost. Or it is still open.
    Open {
        /// Clusters that the journal alone knows of.
        journal: usize,
    },
    /// The machine has stopped since: what was not flushed may be lost.
    MachineStopped,
}

/// A sound overlay, without its base.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) header: Header,
    /// The base's path, for messages.
    pub(super) base: Option<PathBuf>,
    pub(super) layout: Layout,
    /// Every cluster that isn't the base's.
    pub(super) places: BTreeMap<u64, Place>,
    /// Those of them that the journal says.
    pub(super) replayed: Vec<u64>,
    pub(super) left: Left,
    /// Where there is room after all clusters.
    pub(super) next: u64,
    /// Room between them.
    pub(super) free: Vec<u64>,
}

impl Contents {
    /// Reads all but the clusters.
    ///
    /// # Errors
    /// One line: damaged, or it can't be read.
    pub(super) fn read(file: &File, path: &Path, boot: [u8; 16]) -> Result<Self, Error> {
        let damaged = |why: String| Error::OverlayDamaged { path: path.into(), why };
        let kernel = |source| Error::Kernel { path: path.into(), doing: "read it", source };
        let mut header = [0; layout::HEADER];
        file.read_exact_at(&mut header, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it is too short".into()),
            _ => kernel(error),
        })?;
        let header = Header::decode(&header).map_err(|why| damaged(why.into()))?;
        let layout = Layout::new(header.over.size());
        let mut path_note = [0; 16 + layout::LONGEST_PATH];
        let _ = file.read_at(&mut path_note, layout::BASE_PATH).map_err(kernel)?;

        let mut places = map(file, &layout).map_err(kernel)?;
        let halves = [0, 1].map(|half| header_of(file, half));
        let left = match halves {
            _ if halves.iter().flatten().any(|half| half.boot == boot) => Left::Open { journal: 0 },
            [Some(one), Some(other)] if [one.boot, other.boot] == [layout::CLOSED; 2] => Left::Closed,
            _ => Left::MachineStopped,
        };
        let mut replayed = Vec::new();
        for (number, half) in halves.iter().enumerate() {
            let Some(half) = half.filter(|half| half.boot == boot) else { continue };
            for Record { cluster, place } in records(file, number, half.generation) {
                // A record names no other place than a map that was written later.
                if places.insert(cluster, Place::decode(place)).is_none_or(|old| old == Place::Zeros) {
                    replayed.push(cluster);
                }
            }
        }
        let left = match left {
            Left::Open { .. } => Left::Open { journal: replayed.len() },
            left => left,
        };

        let end = file.metadata().map_err(kernel)?.len();
        let mut taken = Vec::new();
        for (&cluster, &place) in &places {
            let bad = |at| damaged(format!("cluster {cluster} can't lie at byte {at}"));
            match place {
                Place::Here(at) => {
                    let inside = at >= layout.data
                        && (at - layout.data).is_multiple_of(CLUSTER)
                        && at.checked_add(CLUSTER).is_some_and(|after| after <= end);
                    if cluster >= layout.clusters || !inside {
                        return Err(bad(at));
                    }
                    taken.push((at, cluster));
                }
                other if cluster >= layout.clusters => return Err(bad(other.encode())),
                _ => {}
            }
        }
        taken.sort_unstable();
        if let Some(pair) = taken.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(damaged(format!("clusters {} and {} lie in one place", pair[0].1, pair[1].1)));
        }
        let (mut next, mut free) = (layout.data, Vec::new());
        for (at, _) in taken {
            let gap = (next..at).step_by(CLUSTER as usize);
            free.extend(gap.take(MOST_FREE - free.len()));
            next = at + CLUSTER;
        }
        let base = layout::decode_path(&path_note);
        Ok(Contents { header, base, layout, places, replayed, left, next, free })
    }
}

fn header_of(file: &File, half: usize) -> Option<Half> {
    let mut bytes = [0; layout::HALF_HEADER];
    file.read_exact_at(&mut bytes, layout::half_header(half)).ok()?;
    Half::decode(&bytes)
}

/// The records of half a journal that count.
fn records(file: &File, half: usize, generation: u64) -> impl Iterator<Item = Record> {
    (0..RECORDS).map_while(move |number| {
        let mut bytes = [0; layout::RECORD];
        file.read_exact_at(&mut bytes, layout::record(half, number)).ok()?;
        Record::decode(&bytes, generation)
    })
}

/// What the map in the file says. Holes in it are the base's.
fn map(file: &File, layout: &Layout) -> io::Result<BTreeMap<u64, Place>> {
    let mut places = BTreeMap::new();
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
        let first = (at - layout::MAP) / PAGE * PAGE_ENTRIES as u64;
        let (entries, _) = bytes.as_chunks::<8>();
        let held = (first..).zip(entries).map(|(cluster, entry)| (cluster, u64::from_le_bytes(*entry)));
        places.extend(
            held.map(|(cluster, entry)| (cluster, Place::decode(entry))).filter(|(_, p)| *p != Place::Base),
        );
        at += PAGE;
    }
    Ok(places)
}
