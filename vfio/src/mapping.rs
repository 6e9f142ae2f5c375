//! Registers in this process's address space.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A part of a BAR, or a copy of an expansion ROM, mapped. Nothing in this process looks at it: it is for the guest.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<c_void>,
    length: usize,
    read_only: bool,
}

// SAFETY: the mapping belongs to this value, stays where it is until it is dropped, and is never accessed by this process itself.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of a file from `offset` on, for reading and writing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(file: impl AsFd, offset: u64, length: u64) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let address = unsafe { mmap(null_mut(), length, access, MapFlags::SHARED, file, offset) }?;
        let address = NonNull::new(address).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Mapping { address, length, read_only: false })
    }

    /// New memory with these bytes, which the guest should only read.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn copy(bytes: &[u8]) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let address = unsafe { mmap_anonymous(null_mut(), bytes.len(), access, MapFlags::PRIVATE) }?;
        let address = NonNull::new(address).ok_or_else(|| io::Error::other("mapped at zero"))?;
        // SAFETY: the mapping has this many bytes, can be written, and nobody else knows it.
        unsafe { address.cast::<u8>().copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        Ok(Mapping { address, length: bytes.len(), read_only: true })
    }

    /// Whether writes of the guest should come to [`Function::write`](crate::Function::write), as nothing is there that they could change.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Where it is, for KVM.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address.as_ptr() as u64
    }

    /// Its bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length; who uses it holds this value.
        let _ = unsafe { munmap(self.address.as_ptr(), self.length) };
    }
}
