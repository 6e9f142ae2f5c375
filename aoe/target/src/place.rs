//! Bytes of a disk that lie as they are in a file.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use kagero_link::pages::Pages;
use rustix::io::ReadWriteFlags;

use crate::file::{Cache, ImageFile};

/// Where bytes of a disk lie as they are in a file. Whoever serves many requests may read or write them there itself; when that fails, the
/// [`Backend`](crate::Backend)'s own methods tell why.
#[derive(Clone, Debug)]
pub struct Place {
    pub(crate) file: Arc<ImageFile>,
    /// In bytes.
    pub(crate) at: u64,
}

impl Place {
    /// Whether it is worth a try to [read](Self::read_now) it.
    pub(crate) fn may_be_cached(&self) -> bool {
        matches!(self.file.cache(), Cache::Memory | Cache::NoWait)
    }

    /// Fills `out` if that takes no waiting. False leaves some of it as it was, or filled.
    pub(crate) fn read_now(&self, out: &mut [u8]) -> bool {
        let flags = match self.file.cache() {
            Cache::Memory => ReadWriteFlags::empty(),
            Cache::NoWait => ReadWriteFlags::NOWAIT,
            Cache::Unknown | Cache::Bypassed => return false,
        };
        let length = out.len();
        let read = rustix::io::preadv2(self.file.for_requests(), &mut [IoSliceMut::new(out)], self.at, flags);
        let cached = read == Ok(length);
        if let Some(mapping) = self.file.mapping() {
            mapping.note(cached);
        }
        cached
    }

    /// The bytes themselves, if they are expected in the page cache.
    pub(crate) fn pages(&self, length: usize) -> Option<Pages> {
        self.file.mapping()?.pages(self.at, length)
    }

    /// Writes all of `data` to the page cache. False leaves some of it written.
    pub(crate) fn write_now(&self, data: &[u8]) -> bool {
        let flags = ReadWriteFlags::empty();
        self.file.cache() != Cache::Bypassed
            && rustix::io::pwritev2(self.file.for_requests(), &[IoSlice::new(data)], self.at, flags)
                == Ok(data.len())
    }
}
