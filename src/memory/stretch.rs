//! Host memory behind a stretch of guest addresses.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Anonymous memory, zeroed, that begins where a huge page does. If guest addresses do so too, KVM and the IOMMU can map both with huge
/// pages: each page of memory takes a five-hundredth of the work.
#[derive(Debug)]
pub(super) struct Stretch {
    mapping: NonNull<c_void>,
    mapped: usize,
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value and stays where it is until it is dropped. The value itself accesses none of it.
unsafe impl Send for Stretch {}
// SAFETY: as above.
unsafe impl Sync for Stretch {}

impl Stretch {
    /// So many bytes.
    ///
    /// # Errors
    /// When the host doesn't have that much address space.
    pub(super) fn new(length: u64) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mapped = length.checked_add(HUGE).ok_or(io::ErrorKind::OutOfMemory)?;
        // What the guest doesn't touch is never there, so it isn't promised either.
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let mapping =
            unsafe { mmap_anonymous(null_mut(), mapped, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
        let mapping = NonNull::new(mapping).ok_or_else(|| io::Error::other("mapped at zero"))?;
        let before = mapping.as_ptr().cast::<u8>().align_offset(HUGE);
        // SAFETY: less than `HUGE` bytes on, inside the mapping.
        let start = unsafe { mapping.cast::<u8>().add(before) };
        // SAFETY: these bytes lie in the mapping, and nothing is in them yet. Without huge pages all is slower, and the same otherwise.
        let _ = unsafe { madvise(start.as_ptr().cast(), length, Advice::LinuxHugepage) };
        Ok(Stretch { mapping, mapped, start, length })
    }

    /// Has the host find and clear the memory of a part now. What fails is done when the memory is used.
    pub(super) fn populate(&self, offset: usize, length: usize) {
        let Some(length) = self.length.checked_sub(offset).map(|rest| rest.min(length)) else { return };
        // SAFETY: these bytes lie in the mapping, and keep what is in them (MADV_POPULATE_WRITE, Linux 5.14).
        let _ =
            unsafe { madvise(self.start.add(offset).as_ptr().cast(), length, Advice::LinuxPopulateWrite) };
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// A part of it as rust-vmm knows memory. It must not be used any more when this is gone.
    ///
    /// # Errors
    /// When it is not a part, or not of whole pages.
    pub(super) fn region(&self, offset: u64, length: u64) -> io::Result<MmapRegion> {
        let (offset, length) = (offset as usize, length as usize);
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: inside the mapping, as was just made sure.
        let start = unsafe { self.start.add(offset) };
        let builder = MmapRegionBuilder::new(length).with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
        let builder = builder.with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: these bytes are mapped with these permissions, and stay so while this value lives.
        unsafe { builder.with_raw_mmap_pointer(start.as_ptr()) }.build().map_err(io::Error::other)
    }
}

impl Drop for Stretch {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length; who uses a part keeps this value.
        let _ = unsafe { munmap(self.mapping.as_ptr(), self.mapped) };
    }
}
