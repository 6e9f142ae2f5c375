//! From an overlay's file to an overlay.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::contents::{Contents, Left};
use super::layout::{self, Header};
use super::map::Map;
use super::state::State;
use super::{Identity, Overlay};
use crate::file::ImageFile;
use crate::raw::Raw;
use crate::{Backend, Error, Image};

/// An overlay's file, opened and locked, and not yet put over a base.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) file: ImageFile,
    pub(super) contents: Contents,
    boot: [u8; 16],
}

impl Opening {
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let file = ImageFile::open(path, true)?;
        let boot =
            layout::this_boot().map_err(|error| file.kernel("find this run of the machine for", error))?;
        let contents = Contents::read(&file, path, boot)?;
        Ok(Opening { file, contents, boot })
    }

    /// Whether it may be used over this base.
    pub(super) fn check(&self, base: &Image, identity: &Identity) -> Result<(), Error> {
        let (path, Header { over, committing }) = (self.file.path(), self.contents.header);
        if committing {
            return Err(Error::OverlayCommitting(path.into()));
        }
        if over != *identity {
            let (path, base, what) = (path.into(), base.path().into(), over.difference(identity));
            return Err(Error::OverlayBase { path, base, what });
        }
        Ok(())
    }

    /// The overlay over this base, which must have the right size.
    pub(super) fn over(self, base: Arc<Image>) -> Result<Overlay, Error> {
        self.over_with(base, |raw| Box::new(raw))
    }

    /// The same, with what lies between overlay and file.
    pub(super) fn over_with(
        self,
        base: Arc<Image>,
        store: impl FnOnce(Raw) -> Box<dyn Backend>,
    ) -> Result<Overlay, Error> {
        let Opening { file, contents, boot } = self;
        let path = file.path().to_owned();
        let cannot_write = |_| Error::Kernel {
            path: path.clone(),
            doing: "write its journal",
            source: io::Error::other("no room, or a failing disk; the log says which"),
        };
        let map = Map::new(&contents.layout);
        for (&cluster, &place) in &contents.places {
            map.set(cluster, place);
        }
        let mut state =
            State::new(boot, &contents).map_err(|error| file.kernel("begin its journal", error))?;
        state.dirty.extend(contents.replayed.iter().map(|&cluster| layout::page_of(cluster)));
        let overlay = Overlay {
            store: store(Raw::new(file, u64::MAX)),
            path: path.clone(),
            base,
            layout: contents.layout,
            map,
            copying: Default::default(),
            flushing: Mutex::default(),
            state: Mutex::new(state),
        };
        if contents.left != Left::Closed {
            overlay.checkpoint().map_err(cannot_write)?;
        }
        overlay.start_journal().map_err(cannot_write)?;
        Ok(overlay)
    }
}
