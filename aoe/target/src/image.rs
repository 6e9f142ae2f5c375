//! A disk image, in whatever format.

use std::path::{Path, PathBuf};

use kagero_aoe::target::{Fault, Range};
use kagero_aoe::wire::{Address, SECTOR};
use kagero_devices::storage::Disk;

use crate::file::ImageFile;
use crate::format::{Signature, signature};
use crate::raw::Raw;
use crate::{Backend, Error, Format, Location, NbdUri, nbd, qcow2, vhdx};

/// What 48 bits of LBA reach.
const MOST_SECTORS: u64 = 1 << 48;

/// What clients may do with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and write: nobody else may use the file meanwhile.
    ReadWrite,
    /// Read only: others may read the file too.
    ReadOnly,
}

/// An open disk image.
///
/// A write is done when the page cache has it, which survives this process; [`flush`](Self::flush) makes it survive a loss of power.
#[derive(Debug)]
pub struct Image {
    backend: Box<dyn Backend>,
    location: Location,
    /// The location, as messages name it.
    path: PathBuf,
    access: Access,
}

impl Image {
    /// Opens and locks a raw image, and refuses what looks like another format.
    ///
    /// # Errors
    /// One line that names the file and the mend: there is none, it is a directory or empty or not whole sectors, no permission, in use by
    /// another writer, of a format that has to be named.
    pub fn open(path: &Path, access: Access) -> Result<Self, Error> {
        Self::open_as(path, access, None)
    }

    /// Opens and locks an image of this format; of `None`, a raw one that looks like nothing else.
    ///
    /// # Errors
    /// As [`open`](Self::open); also when it isn't of this format, or uses what can't be served of it.
    pub fn open_as(path: &Path, access: Access, format: Option<Format>) -> Result<Self, Error> {
        Self::open_file(ImageFile::open(path, access == Access::ReadWrite)?, access, format)
    }

    /// As [`open_as`](Self::open_as), for a raw image that a server reads and writes past the page cache (`O_DIRECT`): no memory is spent on what
    /// is read once, and every answer tells of the disk itself.
    ///
    /// # Errors
    /// As there; also when the file system or the disk doesn't do that.
    pub fn open_direct(path: &Path, access: Access, format: Option<Format>) -> Result<Self, Error> {
        if format.is_some_and(|format| format != Format::Raw) {
            return Err(Error::NotDirect { path: path.into(), why: "it is no raw image" });
        }
        let mut file = ImageFile::open(path, access == Access::ReadWrite)?;
        file.bypass_cache(access == Access::ReadWrite)?;
        Self::open_file(file, access, format)
    }

    fn open_file(file: ImageFile, access: Access, format: Option<Format>) -> Result<Self, Error> {
        let path = &file.path().to_owned();
        if file.size() == 0 {
            return Err(Error::Empty(path.into()));
        }
        let backend: Box<dyn Backend> = match (format, signature(&file.begin()?)) {
            (Some(Format::Raw), _) => Box::new(raw(file)?),
            (None, None) => Box::new(raw(file)?.guarded()),
            (None, Some(Signature::Known(format))) => {
                return Err(Error::FormatNotNamed { path: path.into(), format });
            }
            (Some(Format::Qcow2), Some(Signature::Known(Format::Qcow2))) => qcow2::open(file, access)?,
            (Some(Format::Vhdx), Some(Signature::Known(Format::Vhdx))) => vhdx::open(file, access)?,
            (Some(format), _) => return Err(Error::OtherFormat { path: path.into(), format }),
            (None, Some(Signature::Other(format))) => {
                return Err(Error::UnknownFormat { path: path.into(), format });
            }
            (None, Some(Signature::Overlay)) => return Err(Error::IsOverlay(path.into())),
        };
        Ok(Self::new(backend, path.as_path().into(), access))
    }

    /// Opens an export of an NBD server. It is served byte for byte, whatever format it looks like.
    ///
    /// # Errors
    /// [`Error::Nbd`]: no server answers, it has no such export or offers less than is needed, its size is not whole sectors.
    pub fn open_nbd(uri: &NbdUri, access: Access) -> Result<Self, Error> {
        Ok(Self::new(nbd::open(uri, access)?, Location::Nbd(uri.clone()), access))
    }

    /// Opens what lies there, by [`open_as`](Self::open_as) or [`open_nbd`](Self::open_nbd).
    ///
    /// # Errors
    /// As those.
    pub fn open_at(location: &Location, access: Access, format: Option<Format>) -> Result<Self, Error> {
        match location {
            Location::File(path) => Self::open_as(path, access, format),
            Location::Nbd(uri) => Self::open_nbd(uri, access),
        }
    }

    pub(crate) fn new(backend: Box<dyn Backend>, location: Location, access: Access) -> Self {
        let path = match &location {
            Location::File(path) => path.clone(),
            Location::Nbd(uri) => uri.to_string().into(),
        };
        Image { backend, location, path, access }
    }

    /// Where it is, as messages name it: an NBD export's URI is there too, which is no path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// What its bytes lie in.
    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// What clients may do.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// The disk's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.backend.size()
    }

    /// Gives it another size: see [`Server::resize`](crate::Server::resize).
    pub(crate) fn resize(&self, address: Address, to: Option<u64>, shrink: bool) -> Result<(), Error> {
        let kernel = |doing| move |source| Error::Kernel { path: self.path.clone(), doing, source };
        let fixed = |why| Err(Error::FixedSize { address, why });
        let storage = self.backend.storage().map_err(kernel("find its size"))?;
        let Some(storage) = storage else {
            return fixed("that needs a raw image; change its size while it is not served");
        };
        let to = to.unwrap_or(storage);
        if to == 0 || !to.is_multiple_of(SECTOR as u64) || to / SECTOR as u64 > MOST_SECTORS {
            return Err(Error::NoSize(to));
        }
        let from = if to == storage { self.size() } else { self.size().max(storage) };
        if to < from && !shrink {
            return Err(Error::Shrinks { address, from, to });
        }
        if to != storage && self.access == Access::ReadOnly {
            return fixed("it is read-only; change the image's own size, then resize without a size");
        }
        self.backend.resize(to).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSPC) => Error::DeviceSize { path: self.path.clone(), size: storage },
            _ => kernel("change its size")(error),
        })
    }

    /// What a guest sees of it at this address.
    #[must_use]
    pub fn disk(&self, address: Address) -> Disk {
        disk(self.size(), address, self.access)
    }

    /// As [`Backend::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.backend.read(offset, out)
    }

    /// As [`Backend::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Fault> {
        self.backend.write(offset, data, durable)
    }

    /// As [`Backend::verify`].
    ///
    /// # Errors
    /// As there.
    pub fn verify(&self, offset: u64, length: usize) -> Result<(), Fault> {
        self.backend.verify(offset, length)
    }

    /// As [`Backend::flush`].
    ///
    /// # Errors
    /// As there.
    pub fn flush(&self) -> Result<(), Fault> {
        self.backend.flush()
    }

    /// As [`Backend::trim`].
    ///
    /// # Errors
    /// As there.
    pub fn trim(&self, range: Range) -> Result<(), Fault> {
        self.backend.trim(range)
    }
}

/// What a guest sees of `size` bytes at this address.
///
/// The serial number comes from the address alone, so that it is the same in every run, on every machine and by whatever server: Windows
/// keys an installed disk on it.
pub(crate) fn disk(size: u64, address: Address, access: Access) -> Disk {
    Disk {
        sectors: size / SECTOR as u64,
        serial: format!("KAGERO-{:05}-{:03}", address.shelf, address.slot),
        model: "Kagero Disk".into(),
        trim: access == Access::ReadWrite,
    }
}

fn raw(file: ImageFile) -> Result<Raw, Error> {
    let size = file.size();
    if !size.is_multiple_of(SECTOR as u64) {
        return Err(Error::NotSectors { path: file.path().into(), size });
    }
    Ok(Raw::new(file, size))
}
