//! Sectors one after another in a plain file or a block device.

use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kagero_aoe::target::{Fault, Range};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use crate::Place;
use crate::backend::{Backend, sectors};
use crate::file::ImageFile;
use crate::format::signature;

/// A plain file or a block device, byte for byte.
#[derive(Debug)]
pub(crate) struct Raw {
    file: Arc<ImageFile>,
    size: AtomicU64,
    /// Refuse a first sector that would make it look like another format.
    guarded: bool,
    /// A flush has failed. The kernel reports lost data once only and calls later flushes good, so we remember.
    lossy: AtomicBool,
}

impl Raw {
    /// The first `size` bytes of a file.
    pub(crate) fn new(file: ImageFile, size: u64) -> Self {
        Raw { file: Arc::new(file), size: size.into(), guarded: false, lossy: AtomicBool::new(false) }
    }

    /// The same, but it stays recognizable as a raw image: without a stated format, that is all we go by on the next start.
    pub(crate) fn guarded(self) -> Self {
        Raw { guarded: true, ..self }
    }

    /// Refuses what was within the disk when it was asked for, and is no more.
    fn within(&self, offset: u64, length: u64) -> Result<(), Fault> {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.size());
        if inside { Ok(()) } else { Err(Fault::Aborted) }
    }

    fn is_refused(&self, offset: u64, data: &[u8]) -> bool {
        offset == 0 && self.guarded && signature(data).is_some()
    }

    /// What an I/O error after `done` bytes is to the client.
    fn failed(&self, doing: &str, error: &io::Error, done: usize) -> Fault {
        tracing::warn!(path = %self.file.path().display(), %error, "{doing} failed");
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::EROFS | libc::EPERM) => Fault::Aborted,
            _ => Fault::Medium { done: sectors(done) },
        }
    }
}

impl Backend for Raw {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn storage(&self) -> io::Result<Option<u64>> {
        // A block device has no length of its own, but an end. Nothing else uses the file's position.
        Ok(Some(rustix::fs::seek(&**self.file, SeekFrom::End(0))?))
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        // From the smaller size on, requests that come late fail, so that none makes the file longer again.
        self.size.fetch_min(size, Ordering::Relaxed);
        let storage = self.storage()?.unwrap_or(size);
        if self.file.metadata()?.is_file() {
            if storage != size {
                rustix::fs::ftruncate(&**self.file, size)?;
            }
        } else if storage < size {
            return Err(Errno::NOSPC.into());
        }
        self.size.store(size, Ordering::Relaxed);
        Ok(())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.within(offset, out.len() as u64)?;
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

    fn place_to_read(&self, offset: u64, length: usize) -> Option<Place> {
        self.within(offset, length as u64).ok()?;
        Some(Place { file: Arc::clone(&self.file), at: offset })
    }

    fn place_to_write(&self, offset: u64, data: &[u8]) -> Option<Place> {
        self.within(offset, data.len() as u64).ok()?;
        (!self.is_refused(offset, data)).then_some(Place { file: Arc::clone(&self.file), at: offset })
    }

    fn rest(&self) {
        if let Some(mapping) = self.file.mapping() {
            mapping.release();
        }
    }

    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Fault> {
        if durable && self.lossy.load(Ordering::Relaxed) {
            return Err(Fault::Aborted);
        }
        self.within(offset, data.len() as u64)?;
        if self.is_refused(offset, data) {
            tracing::warn!(
                path = %self.file.path().display(),
                "refused a first sector that looks like an image format's; serve the image with format=raw to allow it"
            );
            return Err(Fault::Aborted);
        }
        let flags = if durable { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        let mut done = 0;
        while done < data.len() {
            let rest = [IoSlice::new(&data[done..])];
            match rustix::io::pwritev2(&**self.file, &rest, offset + done as u64, flags) {
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

    fn flush(&self) -> Result<(), Fault> {
        if self.lossy.load(Ordering::Relaxed) {
            return Err(Fault::Aborted);
        }
        match rustix::io::retry_on_intr(|| rustix::fs::fdatasync(&**self.file)) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.lossy.store(true, Ordering::Relaxed);
                tracing::error!(path = %self.file.path().display(), %error, "flush failed: data may be lost; no flush will succeed until the image is opened anew");
                Err(Fault::Aborted)
            }
        }
    }

    fn trim(&self, range: Range) -> Result<(), Fault> {
        self.within(range.offset, range.length)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punched = rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&**self.file, flags, range.offset, range.length)
        });
        match punched {
            Ok(()) => {
                self.file.has_hole();
                Ok(())
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => {
                self.failed("trim", &error.into(), 0);
                Err(Fault::Aborted)
            }
        }
    }
}
