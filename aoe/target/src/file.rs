//! An open and locked file that holds an image.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Seek, SeekFrom};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kagero_aoe::wire::SECTOR;
use kagero_link::Buffer;
use kagero_link::pages::Mapping;
use rustix::io::{Errno, ReadWriteFlags};

use crate::format::SIGNATURE;
use crate::{Error, lock};

/// An open file or block device, locked for one writer or for many readers while it lives.
#[derive(Debug)]
pub(crate) struct ImageFile {
    file: File,
    path: PathBuf,
    size: u64,
    cache: Cache,
    /// Its pages, for answers to be made of.
    mapping: Option<Arc<Mapping>>,
    /// The same file past the page cache.
    direct: Option<File>,
}

/// What reading a file here and now may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    /// The kernel can be asked not to wait for the disk (`RWF_NOWAIT`).
    NoWait,
    /// The file is in memory: tmpfs, which doesn't know the flag.
    Memory,
    /// It may wait.
    Unknown,
    /// It always waits.
    Bypassed,
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
        let open = |flags| OpenOptions::new().read(true).write(write).custom_flags(flags).open(path);
        // Noting when it was read costs a little with each read; leaving that out is for the owner of the file only.
        let file = open(libc::O_CLOEXEC | libc::O_NOATIME)
            .or_else(|_| open(libc::O_CLOEXEC))
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
        let cache = Cache::of(&file);
        let mapping = || Mapping::new(&file, size).ok().map(Arc::new);
        let mapping = match cache {
            Cache::NoWait => mapping(),
            // A read of a hole through a mapping would fill it.
            Cache::Memory => mapping().filter(|_| is_whole(&file)).inspect(|mapping| mapping.trust()),
            Cache::Unknown | Cache::Bypassed => None,
        };
        Ok(ImageFile { file, path: path.into(), size, cache, mapping, direct: None })
    }

    /// Lets [`for_requests`](Self::for_requests) go past the page cache.
    pub(crate) fn bypass_cache(&mut self, write: bool) -> Result<(), Error> {
        let not = |why| Error::NotDirect { path: self.path.clone(), why };
        // The file that is open, whatever has become of its name.
        let same = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = libc::O_CLOEXEC | libc::O_DIRECT;
        let direct = OpenOptions::new().read(true).write(write).custom_flags(flags).open(same);
        let direct =
            direct.map_err(|_| not("its file system reads and writes through the page cache only"))?;
        let mut sector = Buffer::with_room(SECTOR);
        // A disk of larger sectors refuses the second 512 bytes alone, and a client that writes them would destroy their neighbours'.
        match direct.read_at(&mut sector, SECTOR as u64) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Err(not("its disk has sectors of more than 512 bytes"))
            }
            Err(error) => Err(self.kernel("read it", error)),
            Ok(_) => {
                (self.cache, self.mapping, self.direct) = (Cache::Bypassed, None, Some(direct));
                Ok(())
            }
        }
    }

    /// Its pages as they were when it was opened, if they may be used.
    pub(crate) fn mapping(&self) -> Option<&Arc<Mapping>> {
        self.mapping.as_ref()
    }

    /// A part of it was made a hole.
    pub(crate) fn has_hole(&self) {
        if self.cache == Cache::Memory
            && let Some(mapping) = &self.mapping
        {
            mapping.abandon();
        }
    }

    /// What requests for a [`Place`](crate::Place) in this file use.
    pub(crate) fn for_requests(&self) -> &File {
        self.direct.as_ref().unwrap_or(&self.file)
    }

    /// What reading it here and now may come to.
    pub(crate) fn cache(&self) -> Cache {
        self.cache
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

/// Whether a file has no holes.
fn is_whole(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| meta.blocks().saturating_mul(512) >= meta.len())
}

impl Cache {
    fn of(file: &File) -> Self {
        let mut byte = [0];
        let probe = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT);
        match probe {
            Err(Errno::OPNOTSUPP) => match rustix::fs::fstatfs(file) {
                Ok(system) if system.f_type == libc::TMPFS_MAGIC => Cache::Memory,
                _ => Cache::Unknown,
            },
            _ => Cache::NoWait,
        }
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
