//! VHDX images, the format of Hyper-V, read only, after "[MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format".
//!
//! The disk is cut into blocks, and the block allocation table (BAT) says where in the file each lies, if anywhere. Metadata say how large
//! disk and blocks are, a region table where BAT and metadata are, and a header where the log is, through which all of these but the header
//! change. A file that was not closed has changes in its log only: they are applied to what is read, never to the file.
//!
//! Nothing in the file is trusted. All is checked when the image is opened, except that two blocks may lie in the same place, against
//! [MS-VHDX] 2.5.1: who only reads is not hurt by it.

mod bat;
mod fields;
mod header;
mod log;
mod metadata;
mod patches;
mod region;
mod storage;

use kagero_aoe::target::{Fault, Range};
use kagero_aoe::wire::SECTOR;

use crate::backend::{after, sectors};
use crate::file::ImageFile;
use crate::{Access, Backend, Error, Format};
use bat::Bat;
use storage::Storage;

/// The disk in an image.
#[derive(Debug)]
struct Vhdx {
    storage: Storage,
    bat: Bat,
    size: u64,
    block_size: u64,
}

/// Opens the image in this file.
pub(crate) fn open(file: ImageFile, access: Access) -> Result<Box<dyn Backend>, Error> {
    if access == Access::ReadWrite {
        return Err(Error::OnlyReadable { path: file.path().into(), format: Format::Vhdx });
    }
    let mut storage = Storage::new(file);
    let header = header::current(&storage)?;
    log::replay(&mut storage, &header)?;
    let regions = region::regions(&storage, &header)?;
    let geometry = metadata::geometry(&storage, &regions.metadata)?;
    if geometry.size == 0 || !geometry.size.is_multiple_of(SECTOR as u64) {
        return Err(storage.unusable(format!("holds a disk of {} bytes", geometry.size)));
    }
    let bat = Bat::read(&storage, &regions, &geometry)?;
    Ok(Box::new(Vhdx { storage, bat, size: geometry.size, block_size: geometry.block_size }))
}

impl Backend for Vhdx {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = at % self.block_size;
            let rest = usize::try_from(self.block_size - within).unwrap_or(usize::MAX);
            let part = out.len().min(done.saturating_add(rest));
            let part = &mut out[done..part];
            match self.bat.place(at / self.block_size) {
                None => part.fill(0),
                Some(place) => self.storage.read(place + within, part).map_err(|(more, error)| {
                    tracing::warn!(path = %self.storage.path().display(), %error, "read failed");
                    after(done, Fault::Medium { done: sectors(more) })
                })?,
            }
            done += part.len();
        }
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8], _: bool) -> Result<(), Fault> {
        Err(Fault::Aborted)
    }

    fn flush(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn trim(&self, _: Range) -> Result<(), Fault> {
        Err(Fault::Aborted)
    }
}
