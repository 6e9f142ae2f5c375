//! What can be said of an overlay without its base.

use std::fs::File;
use std::path::{Path, PathBuf};

use kagero_aoe::wire::MacAddress;

use super::clients::client_of;
use super::contents::Contents;
use super::layout;
use super::map::Place;
use super::{Identity, Left};
use crate::{Error, Image};

/// An overlay, as its file tells.
#[derive(Clone, Debug)]
pub struct OverlayInfo {
    /// Whose it is, by its name.
    pub client: Option<MacAddress>,
    /// The disk's size in bytes.
    pub size: u64,
    /// Where its base was when it was made or rebased; `None` when that wasn't noted.
    pub base: Option<PathBuf>,
    /// What the base was like; means nothing while the overlay is being committed.
    pub over: Identity,
    /// Clusters of 64 KiB that lie in it.
    pub clusters: u64,
    /// Clusters that it knows to be zeros.
    pub zeros: u64,
    /// Of so many.
    pub of: u64,
    /// A commit was begun and not finished.
    pub committing: bool,
    /// How it was left.
    pub left: Left,
}

impl OverlayInfo {
    /// What the overlay in this file says. It may be in use.
    ///
    /// # Errors
    /// One line: damaged, or it can't be read.
    pub(crate) fn read(file: &File, path: &Path) -> Result<Self, Error> {
        let kernel =
            |source| Error::Kernel { path: path.into(), doing: "find this run of the machine for", source };
        let contents = Contents::read(file, path, layout::this_boot().map_err(kernel)?)?;
        let count = |wanted: fn(&Place) -> bool| {
            contents.places.values().filter(|place| wanted(place)).count() as u64
        };
        Ok(OverlayInfo {
            client: client_of(path),
            size: contents.layout.size,
            over: contents.header.over,
            clusters: count(|place| matches!(place, Place::Here(_))),
            zeros: count(|place| *place == Place::Zeros),
            of: contents.layout.clusters,
            committing: contents.header.committing,
            left: contents.left,
            base: contents.base,
        })
    }

    /// How `base` differs from what the overlay was made over, if it does: "its size", say.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn difference(&self, base: &Image) -> Result<Option<&'static str>, Error> {
        let now = Identity::of(base)?;
        Ok((self.over != now).then(|| self.over.difference(&now)))
    }
}
