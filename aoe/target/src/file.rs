//! An open and locked file that holds an image.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Deref;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::format::SIGNATURE;
use crate::{Error, lock};

/// An open file or block device, locked for one writer or for many readers while it lives.
#[derive(Debug)]
pub(crate) struct ImageFile {
    file: File,
    path: PathBuf,
    size: u64,
}

impl ImageFile {
    /// Opens and locks it.
    ///
    /// # Errors
    /// One line that names the file and the mend.
    pub(crate) fn open(path: &Path, write: bool) -> Result<Self, Error> {
        let not = |what| Error::NotAnImage { path: path.into(), what };
        // Looked at before it is opened: opening a pipe or a device can do things.
        let kind = match path.metadata() {
            Ok(metadata) => metadata.file_type(),
            Err(error) => return Err(refused(path, error, "read")),
        };
        if kind.is_dir() {
            return Err(not("a directory"));
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(not("neither"));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| refused(path, error, if write { "write" } else { "read" }))?;
        Self::from_file(file, path, write)
    }

    /// Locks a file that was just opened, or made.
    pub(crate) fn from_file(mut file: File, path: &Path, write: bool) -> Result<Self, Error> {
        // A block device has no length of its own, but an end.
        let size = file.seek(SeekFrom::End(0)).map_err(|source| Error::Kernel {
            path: path.into(),
            doing: "find its size",
            source,
        })?;
        match lock::lock(&file, write) {
            Ok(true) => {}
            Ok(false) => return Err(Error::InUse { path: path.into(), holder: lock::holder(&file) }),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot lock the disk image: another writer would go unnoticed");
            }
        }
        Ok(ImageFile { file, path: path.into(), size })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's size in bytes when it was opened.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What it begins with; zeros after its end.
    pub(crate) fn begin(&self) -> Result<[u8; SIGNATURE], Error> {
        let mut begin = [0; SIGNATURE];
        let length = SIGNATURE.min(usize::try_from(self.size).unwrap_or(SIGNATURE));
        self.file.read_exact_at(&mut begin[..length], 0).map_err(|error| self.kernel("read it", error))?;
        Ok(begin)
    }

    /// An error of the kernel's about this file.
    pub(crate) fn kernel(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Kernel { path: self.path.clone(), doing, source }
    }
}

impl Deref for ImageFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for ImageFile {
    fn drop(&mut self) {
        lock::unlock(&self.file);
    }
}

/// Why a file can't be opened to `how`.
pub(crate) fn refused(path: &Path, error: io::Error, how: &'static str) -> Error {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NoImage(path),
        io::ErrorKind::PermissionDenied => Error::Permission { path, how },
        io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly(path),
        _ => Error::Kernel { path, doing: "open it", source: error },
    }
}
