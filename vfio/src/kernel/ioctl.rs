//! How the kernel is called.
//!
//! Nearly all calls of VFIO and iommufd take a structure whose first field is its size; the kernel touches no byte past that. So the calls here set
//! that field themselves.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::ptr;

use iommufd_bindings::iommufd;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use vfio_bindings::bindings::vfio::{self, VFIO_BASE, VFIO_TYPE};

/// A call, by the number in its `_IO(';', number)`.
struct Call {
    number: u32,
    argument: *mut c_void,
}

// SAFETY: `opcode` and `as_ptr` give what `call` was given, whose callers answer for it; the kernel may change the argument.
unsafe impl Ioctl for Call {
    type Output = u32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        rustix::ioctl::opcode::none(VFIO_TYPE, self.number as u8)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        Ok(output.cast_unsigned())
    }
}

/// # Safety
/// `argument` must be what the kernel expects with this number.
pub(super) unsafe fn call(fd: impl AsFd, number: u32, argument: *mut c_void) -> io::Result<u32> {
    // SAFETY: as the caller promises.
    Ok(unsafe { rustix::ioctl::ioctl(fd, Call { number, argument }) }?)
}

/// A structure of the kernel's.
///
/// # Safety
/// It is plain data with its size in bytes as its first field, 32 bits, and is the one that [`NUMBER`](Self::NUMBER) takes.
pub(super) unsafe trait Structure: Sized {
    /// Of the call.
    const NUMBER: u32;
}

macro_rules! structures {
    ($($structure:ty: $number:expr),* $(,)?) => {
        $(
            // SAFETY: from the kernel's headers; only those with `argsz` or `size` as their first field are in this list.
            unsafe impl Structure for $structure {
                const NUMBER: u32 = $number;
            }
        )*
    };
}

structures! {
    vfio::vfio_group_status: VFIO_BASE + 3,
    vfio::vfio_device_info: VFIO_BASE + 7,
    vfio::vfio_irq_info: VFIO_BASE + 9,
    vfio::vfio_device_bind_iommufd: VFIO_BASE + 18,
    vfio::vfio_device_attach_iommufd_pt: VFIO_BASE + 19,
    vfio::vfio_iommu_type1_dma_unmap: VFIO_BASE + 14,
    iommufd::iommu_destroy: iommufd::IOMMUFD_CMD_DESTROY,
    iommufd::iommu_ioas_alloc: iommufd::IOMMUFD_CMD_IOAS_ALLOC,
    iommufd::iommu_ioas_unmap: iommufd::IOMMUFD_CMD_IOAS_UNMAP,
}

/// A call with a structure of fixed size. Gives what the call returned.
pub(super) fn with<S: Structure>(fd: impl AsFd, structure: &mut S) -> io::Result<u32> {
    let argument = ptr::from_mut(structure);
    // SAFETY: a `Structure` begins with 32 bits for its size.
    unsafe { argument.cast::<u32>().write(size_of::<S>() as u32) };
    // SAFETY: a `Structure` is what the kernel takes with this number, and it is as large as it says.
    unsafe { call(fd, S::NUMBER, argument.cast()) }
}

/// As [`with`], with a structure that a list follows.
///
/// # Safety
/// The number must be that of a call whose structure begins with its size and holds no addresses.
pub(super) unsafe fn with_list(fd: impl AsFd, number: u32, words: &mut [u32]) -> io::Result<u32> {
    let size = u32::try_from(size_of_val(words)).map_err(io::Error::other)?;
    *words.first_mut().ok_or(io::ErrorKind::InvalidInput)? = size;
    // SAFETY: as the caller promises, and it is as large as it says.
    unsafe { call(fd, number, words.as_mut_ptr().cast()) }
}

/// As [`with_list`], for what the kernel tells: again with more room when it says that it needs some. At most 1 MiB.
///
/// # Safety
/// As with [`with_list`].
pub(super) unsafe fn told(fd: impl AsFd, number: u32, mut words: Vec<u32>) -> io::Result<Vec<u32>> {
    loop {
        // SAFETY: as the caller promises.
        unsafe { with_list(&fd, number, &mut words) }?;
        let needed = words.first().map_or(0, |&size| size as usize).div_ceil(4);
        if needed <= words.len() {
            return Ok(words);
        }
        if needed > 1 << 18 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        words.resize(needed, 0);
    }
}

/// A call that takes a number, or nothing: 0.
///
/// # Safety
/// The kernel must not take the argument of this call for an address.
pub(super) unsafe fn with_number(fd: impl AsFd, number: u32, argument: usize) -> io::Result<u32> {
    // SAFETY: the caller promises that the kernel touches no memory for it.
    unsafe { call(fd, number, ptr::without_provenance_mut(argument)) }
}
