//! What an image's bytes lie in.

use std::{fmt, io};

use kagero_aoe::target::{Fault, Range};
use kagero_aoe::wire::SECTOR;

use crate::Place;

/// Something that holds a disk's bytes. Offsets and lengths are multiples of 512, and lie within [`size`](Self::size).
///
/// A write is done when a crash of this process can't take it back; [`flush`](Self::flush) makes it survive a loss of power.
pub trait Backend: fmt::Debug + Send + Sync {
    /// The disk's size in bytes, which needn't be the file's.
    fn size(&self) -> u64;

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`Fault::Medium`] where they can't be read.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault>;

    /// Writes `data` from `offset` on; if `durable`, to the medium.
    ///
    /// # Errors
    /// [`Fault::Aborted`] when there is no room or nothing may be written; [`Fault::Medium`] where it can't be.
    fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Fault>;

    /// Where `length` bytes from `offset` on lie as they are, if they do and all in one place.
    fn place_to_read(&self, _offset: u64, _length: usize) -> Option<Place> {
        None
    }

    /// Where `data` may be written as it is, when it needn't be durable.
    fn place_to_write(&self, _offset: u64, _data: &[u8]) -> Option<Place> {
        None
    }

    /// Nobody has asked for anything for a while: gives back what only makes things faster.
    fn rest(&self) {}

    /// Makes every write that is done survive a loss of power.
    ///
    /// # Errors
    /// [`Fault::Aborted`] when data may be lost, from then on always.
    fn flush(&self) -> Result<(), Fault>;

    /// Gives the space of a range back. Where that can't be done, nothing happens: a trim is a hint.
    ///
    /// # Errors
    /// [`Fault::Aborted`].
    fn trim(&self, range: Range) -> Result<(), Fault>;

    /// How many bytes its storage holds now, which may have become more or fewer since it was opened. `None` where that can't change.
    ///
    /// # Errors
    /// The kernel's.
    fn storage(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Makes the disk, and a file that holds it, `size` bytes long; only where [`storage`](Self::storage) can change. Requests that are under
    /// way beyond the new end fail.
    ///
    /// # Errors
    /// The kernel's; also when a block device is too small.
    fn resize(&self, size: u64) -> io::Result<()> {
        let _ = size;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Checks that `length` bytes from `offset` on can be read.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn verify(&self, offset: u64, length: usize) -> Result<(), Fault> {
        let mut buffer = [0; 16 << 10];
        for start in (0..length).step_by(buffer.len()) {
            let part = &mut buffer[..(length - start).min(16 << 10)];
            self.read(offset + start as u64, part).map_err(|fault| after(start, fault))?;
        }
        Ok(())
    }
}

/// A fault of a part that begins `done` bytes after its whole, as a fault of the whole.
pub(crate) fn after(done: usize, fault: Fault) -> Fault {
    match fault {
        Fault::Medium { done: more } => Fault::Medium { done: sectors(done).saturating_add(more) },
        Fault::Aborted => fault,
    }
}

/// So many bytes in sectors, as far as a fault can count.
pub(crate) fn sectors(bytes: usize) -> u8 {
    u8::try_from(bytes / SECTOR).unwrap_or(u8::MAX)
}
