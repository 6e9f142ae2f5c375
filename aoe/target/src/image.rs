//! A disk image: a plain file, or a block device, with sectors one after another.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use kagero_aoe::target::{Fault, Range};
use kagero_aoe::wire::{Address, SECTOR};
use kagero_devices::storage::Disk;
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};

use crate::{Error, lock};

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
    file: File,
    path: PathBuf,
    access: Access,
    sectors: u64,
    /// A flush has failed. The kernel reports lost data once only and calls later flushes good, so we remember.
    lossy: AtomicBool,
}

impl Image {
    /// Opens and locks an image.
    ///
    /// # Errors
    /// One line that names the file and the mend: there is none, it is a directory or empty or not whole sectors, no permission, in use by
    /// another writer.
    pub fn open(path: &Path, access: Access) -> Result<Self, Error> {
        let write = access == Access::ReadWrite;
        let kernel = |doing| move |source: io::Error| Error::Kernel { path: path.into(), doing, source };
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
        let mut file = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| refused(path, error, if write { "write" } else { "read" }))?;
        // A block device has no length of its own, but an end.
        let size = file.seek(SeekFrom::End(0)).map_err(kernel("find its size"))?;
        if size == 0 {
            return Err(Error::Empty(path.into()));
        }
        if !size.is_multiple_of(SECTOR as u64) {
            return Err(Error::NotSectors { path: path.into(), size });
        }
        match lock::lock(&file, write) {
            Ok(true) => {}
            Ok(false) => return Err(Error::InUse { path: path.into(), holder: lock::holder(&file) }),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot lock the disk image: another writer would go unnoticed");
            }
        }
        let sectors = size / SECTOR as u64;
        Ok(Image { file, path: path.into(), access, sectors, lossy: AtomicBool::new(false) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What clients may do.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// What a guest sees of it at this address.
    ///
    /// The serial number comes from the address alone, so that it is the same in every run, on every machine and by whatever server: Windows
    /// keys an installed disk on it.
    #[must_use]
    pub fn disk(&self, address: Address) -> Disk {
        Disk {
            sectors: self.sectors,
            serial: format!("KAGERO-{:05}-{:03}", address.shelf, address.slot),
            model: "Kagero Disk".into(),
            trim: self.access == Access::ReadWrite,
        }
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`Fault::Medium`] where the file can't be read.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < out.len() {
            match self.file.read_at(&mut out[done..], offset + done as u64) {
                // The file has become shorter.
                Ok(0) => return Err(self.failed("read", &io::ErrorKind::UnexpectedEof.into(), done)),
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read", &error, done)),
            }
        }
        Ok(())
    }

    /// Writes `data` from `offset` on; if `durable`, to the medium.
    ///
    /// # Errors
    /// [`Fault::Aborted`] when there is no room; [`Fault::Medium`] where the file can't be written.
    pub fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Fault> {
        if durable && self.lossy.load(Ordering::Relaxed) {
            return Err(Fault::Aborted);
        }
        let flags = if durable { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        let mut done = 0;
        while done < data.len() {
            let rest = [IoSlice::new(&data[done..])];
            match rustix::io::pwritev2(&self.file, &rest, offset + done as u64, flags) {
                Ok(more) => done += more,
                Err(Errno::INTR) => {}
                Err(error) => {
                    // This may have been about earlier writes, and is not told again to a flush.
                    if durable && !matches!(error, Errno::NOSPC | Errno::DQUOT) {
                        self.lossy.store(true, Ordering::Relaxed);
                    }
                    return Err(self.failed("write", &error.into(), done));
                }
            }
        }
        Ok(())
    }

    /// Checks that `length` bytes from `offset` on can be read.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn verify(&self, offset: u64, length: usize) -> Result<(), Fault> {
        let mut buffer = [0; 16 << 10];
        for start in (0..length).step_by(buffer.len()) {
            let part = &mut buffer[..(length - start).min(16 << 10)];
            self.read(offset + start as u64, part).map_err(|fault| match fault {
                Fault::Medium { done } => Fault::Medium { done: done.saturating_add((start / SECTOR) as u8) },
                Fault::Aborted => fault,
            })?;
        }
        Ok(())
    }

    /// Makes every write that is done survive a loss of power.
    ///
    /// # Errors
    /// [`Fault::Aborted`] when data may be lost, from then on always.
    pub fn flush(&self) -> Result<(), Fault> {
        if self.lossy.load(Ordering::Relaxed) {
            return Err(Fault::Aborted);
        }
        match rustix::io::retry_on_intr(|| rustix::fs::fdatasync(&self.file)) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.lossy.store(true, Ordering::Relaxed);
                tracing::error!(path = %self.path.display(), %error, "flush failed: data may be lost; no flush will succeed until the image is opened anew");
                Err(Fault::Aborted)
            }
        }
    }

    /// Gives the space of a range back. Where the file system can't, nothing happens: a trim is a hint.
    ///
    /// # Errors
    /// [`Fault::Aborted`].
    pub fn trim(&self, range: Range) -> Result<(), Fault> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punched = rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&self.file, flags, range.offset, range.length)
        });
        match punched {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => {
                self.failed("trim", &error.into(), 0);
                Err(Fault::Aborted)
            }
        }
    }

    /// What an I/O error after `done` bytes is to the client.
    fn failed(&self, doing: &str, error: &io::Error, done: usize) -> Fault {
        tracing::warn!(path = %self.path.display(), %error, "{doing} failed");
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::EROFS | libc::EPERM) => Fault::Aborted,
            _ => Fault::Medium { done: u8::try_from(done / SECTOR).unwrap_or(u8::MAX) },
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        lock::unlock(&self.file);
    }
}

fn refused(path: &Path, error: io::Error, how: &'static str) -> Error {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NoImage(path),
        io::ErrorKind::PermissionDenied => Error::Permission { path, how },
        io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly(path),
        _ => Error::Kernel { path, doing: "open it", source: error },
    }
}
