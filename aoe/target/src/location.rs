//! Where an image is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{BadUri, NbdUri};

/// Where an image is: on this machine, or with an NBD server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file or a block device.
    File(PathBuf),
    /// An export of an NBD server.
    Nbd(NbdUri),
}

impl Location {
    /// The file or block device.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Nbd(_) => None,
        }
    }

    /// Lets a relative path, that of an NBD server's socket too, start at `folder`.
    pub fn start_at(&mut self, folder: &Path) {
        match self {
            Self::File(path) => *path = folder.join(&path),
            Self::Nbd(uri) => uri.start_at(folder),
        }
    }
}

/// Reads `nbd://host/name` and its like; all else is a path. A file that is really called so is `./nbd:...`.
impl FromStr for Location {
    type Err = BadUri;

    fn from_str(text: &str) -> Result<Self, BadUri> {
        if NbdUri::is_meant(text) { text.parse().map(Self::Nbd) } else { Ok(Self::File(text.into())) }
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self::File(path.into())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Nbd(uri) => uri.fmt(f),
        }
    }
}
