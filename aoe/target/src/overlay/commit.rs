//! Writing what an overlay holds into its base.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kagero_aoe::target::{Fault, Range};

use super::contents::Contents;
use super::layout::{CLUSTER, Header};
use super::map::Place;
use super::{Identity, Opening, Overlay, layout, sync_folder};
use crate::format::{Signature, signature};
use crate::{Access, Backend, Error, Format, Image, info};

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Clusters that were written into the base, zeros included.
    pub clusters: u64,
    /// An earlier commit had been interrupted, and this one finished it.
    pub resumed: bool,
}

/// Writes what the overlay at `path` holds into the raw image `base`, and removes the overlay. `progress` is told how many clusters are
/// done, and of how many.
///
/// Killed, or without power, on the way, it can be done again with the same result; until then the overlay can't be served. Other overlays
/// of the base mean nothing afterwards: where there are some beside this one, it is refused, unless `even_so`.
///
/// # Errors
/// One line, as for [`Image::open_as`] and [`Overlay::open`].
pub fn commit(
    path: &Path,
    base: &Path,
    format: Option<Format>,
    even_so: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Committed, Error> {
    let raw = raw_image(base, format)?;
    let opening = Opening::new(path)?;
    let resumed = opening.contents.header.committing;
    if !resumed {
        opening.check(&raw, &Identity::of(&raw)?)?;
        if !even_so {
            refuse_others(path, &opening.contents.header.over)?;
        }
    }
    let noted = opening.contents.header.over;
    if raw.size() != noted.size() {
        return Err(different(path, base, "its size"));
    }
    let overlay = opening.over(Arc::new(raw))?;
    let clusters = overlay.commit(noted, resumed, format.is_some(), overlay.base.backend(), progress)?;
    drop(overlay);
    fs::remove_file(path).and_then(|()| sync_folder(path)).map_err(|source| Error::Kernel {
        path: path.into(),
        doing: "remove it (it is in its base)",
        source,
    })?;
    Ok(Committed { clusters, resumed })
}

impl Overlay {
    /// All of a commit but its beginning and end. `base` is the overlay's.
    pub(super) fn commit(
        &self,
        noted: Identity,
        resumed: bool,
        any_beginning: bool,
        base: &dyn Backend,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64, Error> {
        let unreadable = |_| failed(&self.path, "read it");
        // However much of it is in the base, this stays the same.
        let seen =
            Identity::sampled(self.layout.size, (0, 0), |at, out| self.read(at, out)).map_err(unreadable)?;
        if resumed {
            if seen != noted {
                return Err(different(&self.path, self.base.path(), "its contents"));
            }
        } else {
            let mut first = [0; 512];
            self.read(0, &mut first).map_err(unreadable)?;
            if let Some(format) = signature(&first).filter(|_| !any_beginning) {
                return Err(Error::OverlayBeginsLike { path: self.path.clone(), format: format.name() });
            }
            let header = Header { over: seen, committing: true };
            self.write_header(&header, self.base.path()).map_err(|_| failed(&self.path, "write to it"))?;
        }
        let held: Vec<_> = self.map.held().collect();
        let written = write_all(self, &held, base, progress);
        written.and_then(|()| base.flush()).map_err(|_| failed(self.base.path(), "write to it"))?;
        Ok(held.len() as u64)
    }
}

fn write_all(
    overlay: &Overlay,
    held: &[(u64, Place)],
    base: &dyn Backend,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Fault> {
    let mut data = vec![0; CLUSTER as usize];
    for (done, &(cluster, place)) in (0..).zip(held) {
        progress(done, held.len() as u64);
        let offset = cluster * CLUSTER;
        let length = CLUSTER.min(overlay.layout.size - offset);
        let data = &mut data[..length as usize];
        match place {
            Place::Base => continue,
            Place::Here(at) => overlay.store.read(at, data)?,
            Place::Zeros => data.fill(0),
        }
        if is_zero(data) {
            // A hole, where the base can have one.
            base.read(offset, data)?;
            if is_zero(data) {
                continue;
            }
            base.trim(Range { offset, length })?;
            base.read(offset, data)?;
            if is_zero(data) {
                continue;
            }
            data.fill(0);
        }
        base.write(offset, data, false)?;
    }
    progress(held.len() as u64, held.len() as u64);
    Ok(())
}

pub(super) fn is_zero(data: &[u8]) -> bool {
    data.iter().all(|&byte| byte == 0)
}

/// The base, opened for writing.
fn raw_image(path: &Path, format: Option<Format>) -> Result<Image, Error> {
    let other = match format {
        Some(Format::Raw) => None,
        Some(other) => Some(other.to_string()),
        // What else is wrong with it, the opening says.
        None => info::open(path).ok().and_then(|(_, begin)| match signature(&begin) {
            Some(Signature::Overlay) | None => None,
            Some(other) => Some(other.name()),
        }),
    };
    match other {
        Some(format) => Err(Error::NotRawBase { path: path.into(), format }),
        None => Image::open_as(path, Access::ReadWrite, format),
    }
}

/// Refuses when other overlays beside this one are over the same base.
fn refuse_others(path: &Path, base: &Identity) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let kernel = |source| Error::Kernel { path: folder.into(), doing: "list the overlays in", source };
    let name = path.file_name();
    let boot = layout::this_boot().map_err(kernel)?;
    let mut others: Vec<PathBuf> = Vec::new();
    for entry in folder.read_dir().map_err(kernel)? {
        let other = path.with_file_name(entry.map_err(kernel)?.file_name());
        let is_other = other.extension().is_some_and(|kind| kind == "overlay") && other.file_name() != name;
        let needs = |contents: Contents| contents.header.over == *base;
        let read = |file: File| Contents::read(&file, &other, boot);
        if is_other && info::open(&other).and_then(|(file, _)| read(file)).is_ok_and(needs) {
            others.push(other);
        }
    }
    others.sort();
    match others.first() {
        None => Ok(()),
        Some(other) => {
            Err(Error::OverlayNotAlone { path: path.into(), other: other.clone(), more: others.len() - 1 })
        }
    }
}

fn different(path: &Path, base: &Path, what: &'static str) -> Error {
    Error::OverlayBase { path: path.into(), base: base.into(), what }
}

/// What a fault is when there is no client to tell.
pub(super) fn failed(path: &Path, doing: &'static str) -> Error {
    let source = io::Error::other("no room, or a failing disk; the log says which");
    Error::Kernel { path: path.into(), doing, source }
}
