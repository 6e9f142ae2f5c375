//! The file with its log replayed.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::patches::Patches;
use crate::file::ImageFile;
use crate::{Error, Format};

/// A file and what its log changes in it.
#[derive(Debug)]
pub(super) struct Storage {
    file: ImageFile,
    patches: Patches,
    /// The file's size once the log is replayed.
    size: u64,
}

impl Storage {
    pub(super) fn new(file: ImageFile) -> Self {
        Storage { size: file.size(), file, patches: Patches::default() }
    }

    /// Lets what the log says hold, which may make the file longer.
    pub(super) fn replay(&mut self, patches: Patches, least_size: u64) {
        self.size = self.size.max(least_size).max(patches.end());
        self.patches = patches;
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Its size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Fills `out` from `offset` on. An error comes with the number of bytes before it.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while done < out.len() {
            let at = offset.saturating_add(done as u64);
            match self.file.read_at(&mut out[done..], at) {
                // Past the end that the log will give it.
                Ok(0) if at >= self.file.size() && at < self.size => {
                    let zeros = usize::try_from(self.size - at).unwrap_or(usize::MAX).min(out.len() - done);
                    out[done..done + zeros].fill(0);
                    done += zeros;
                }
                // The file has become shorter.
                Ok(0) => return Err((done, io::ErrorKind::UnexpectedEof.into())),
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((done, error)),
            }
        }
        self.patches.apply(offset, out);
        Ok(())
    }

    /// A structure of the format; `what` names it when it lies outside the file.
    pub(super) fn structure(&self, offset: u64, length: usize, what: &str) -> Result<Vec<u8>, Error> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(self.unusable(format!("is cut short: its {what} is missing")));
        }
        let mut structure = vec![0; length];
        self.read(offset, &mut structure).map_err(|(_, error)| self.file.kernel("read it", error))?;
        Ok(structure)
    }

    /// The error that says why the image can't be served.
    pub(super) fn unusable(&self, why: impl Into<String>) -> Error {
        Error::Unusable { path: self.path().into(), format: Format::Vhdx, why: why.into() }
    }
}
