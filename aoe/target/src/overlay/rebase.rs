//! Putting an overlay over another base.

use std::path::Path;
use std::sync::Arc;

use kagero_aoe::target::{Fault, Range};

use super::commit::{failed, is_zero};
use super::layout::{CLUSTER, Header};
use super::map::Place;
use super::{Identity, Opening, Overlay, lock};
use crate::{Backend, Error, Image};

/// What is known of the base before.
#[derive(Debug)]
pub enum OldBase {
    /// This is it.
    Image(Image),
    /// It had the same contents as the new one: the user says so.
    Same,
}

/// What a rebase did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebased {
    /// Clusters that differ between the bases, and so were copied into the overlay.
    pub copied: u64,
    /// Clusters that the overlay held and the new base has too, and so were dropped.
    pub dropped: u64,
}

/// Makes the overlay at `path` one over `new`. Its client sees the same disk as before. `progress` is told how many clusters are done, and
/// of how many.
///
/// Killed, or without power, on the way, it leaves an overlay that is good over one of the two bases, and can be done again.
///
/// # Errors
/// One line, as for [`Overlay::open`]; when the bases differ in size.
pub fn rebase(
    path: &Path,
    new: Image,
    from: OldBase,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Rebased, Error> {
    let new = Arc::new(new);
    let identity = Identity::of(&new)?;
    let opening = Opening::new(path)?;
    let Header { over, committing } = opening.contents.header;
    if committing {
        return Err(Error::OverlayCommitting(path.into()));
    }
    if over.size() != identity.size() {
        return Err(Error::OverlaySize {
            path: path.into(),
            size: over.size(),
            base: new.path().into(),
            other: identity.size(),
        });
    }
    let mut done = Rebased::default();
    let mut compare = true;
    if over != identity {
        let old = match from {
            OldBase::Image(old) => {
                opening.check(&old, &Identity::of(&old)?)?;
                Arc::new(old)
            }
            OldBase::Same => {
                compare = false;
                Arc::clone(&new)
            }
        };
        let overlay = opening.over(old)?;
        if compare {
            done.copied = overlay.copy_differences(&new, progress)?;
        }
        overlay.take_base(&identity, new.path()).map_err(|_| failed(path, "write to it"))?;
    } else {
        // An earlier rebase may have come this far.
        drop(opening);
    }
    if compare {
        done.dropped = Overlay::open(path, new, &identity)?.drop_what_the_base_has(progress)?;
    }
    Ok(done)
}

impl Overlay {
    /// Copies what is the base's and isn't the same in `new`; gives the number of clusters.
    pub(super) fn copy_differences(
        &self,
        new: &Image,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64, Error> {
        let (mut old_data, mut new_data) = (vec![0; CLUSTER as usize], vec![0; CLUSTER as usize]);
        let mut copied = 0;
        for cluster in 0..self.layout.clusters {
            progress(cluster, self.layout.clusters);
            if self.map.get(cluster) != Place::Base {
                continue;
            }
            let (offset, length) = self.extent(cluster);
            let (old, new_part) = (&mut old_data[..length], &mut new_data[..length]);
            self.base.read(offset, old).map_err(|_| failed(self.base.path(), "read it"))?;
            new.read(offset, new_part).map_err(|_| failed(new.path(), "read it"))?;
            if old == new_part {
                continue;
            }
            let kept = if is_zero(old) { self.zero(cluster) } else { self.write(offset, old, false) };
            kept.map_err(|_| failed(&self.path, "write to it"))?;
            copied += 1;
        }
        Ok(copied)
    }

    /// Says that another base is below, which it has to be as soon as this is written: the overlay holds whatever differs.
    pub(super) fn take_base(&self, identity: &Identity, base: &Path) -> Result<(), Fault> {
        self.flush()?;
        self.write_header(&Header { over: *identity, committing: false }, base)
    }

    /// Gives the room of clusters back that the base has too; gives their number. Nobody else may use the overlay meanwhile.
    pub(super) fn drop_what_the_base_has(
        &mut self,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64, Error> {
        let held: Vec<_> = self.map.held().collect();
        let (mut ours, mut theirs) = (vec![0; CLUSTER as usize], vec![0; CLUSTER as usize]);
        let mut same = Vec::new();
        for (done, &(cluster, place)) in (0..).zip(&held) {
            progress(done, held.len() as u64);
            let (offset, length) = self.extent(cluster);
            let (ours, theirs) = (&mut ours[..length], &mut theirs[..length]);
            self.read(offset, ours).map_err(|_| failed(&self.path, "read it"))?;
            self.base.read(offset, theirs).map_err(|_| failed(self.base.path(), "read it"))?;
            if ours == theirs {
                same.push((cluster, place));
            }
        }
        self.forget(&same).map_err(|_| failed(&self.path, "write to it"))?;
        Ok(same.len() as u64)
    }

    /// Makes clusters the base's again. The journal must be empty, so that it says nothing else.
    fn forget(&mut self, clusters: &[(u64, Place)]) -> Result<(), Fault> {
        for &(cluster, _) in clusters {
            self.set(&mut lock(&self.state), cluster, Place::Base)?;
        }
        self.flush()?;
        for &(_, place) in clusters {
            if let Place::Here(offset) = place {
                self.store.trim(Range { offset, length: CLUSTER })?;
            }
        }
        Ok(())
    }

    /// Where a cluster is on the disk, and its length there.
    fn extent(&self, cluster: u64) -> (u64, usize) {
        let offset = cluster * CLUSTER;
        (offset, CLUSTER.min(self.layout.size - offset) as usize)
    }
}
