//! The calls of `<linux/vfio.h>` and `<linux/iommufd.h>`.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use iommufd_bindings::iommufd;
use rustix::io::Errno;
use vfio_bindings::bindings::vfio::{self, VFIO_BASE};

use super::ioctl::{call, told, with, with_list, with_number};

/// The version of a container's interface: 0.
pub(super) fn api_version(container: impl AsFd) -> io::Result<u32> {
    // SAFETY: VFIO_GET_API_VERSION takes nothing.
    unsafe { with_number(container, VFIO_BASE, 0) }
}

/// Whether a container can be of this type.
pub(super) fn has_extension(container: impl AsFd, extension: u32) -> io::Result<bool> {
    // SAFETY: VFIO_CHECK_EXTENSION takes a number.
    Ok(unsafe { with_number(container, VFIO_BASE + 1, extension as usize) }? != 0)
}

/// Makes the container be of this type; it needs a group by then.
pub(super) fn set_iommu(container: impl AsFd, kind: u32) -> io::Result<()> {
    // SAFETY: VFIO_SET_IOMMU takes a number.
    unsafe { with_number(container, VFIO_BASE + 2, kind as usize) }.map(drop)
}

/// `VFIO_GROUP_FLAGS_*`.
pub(super) fn group_flags(group: impl AsFd) -> io::Result<u32> {
    let mut status = vfio::vfio_group_status::default();
    with(group, &mut status)?;
    Ok(status.flags)
}

/// Puts a group into a container.
pub(super) fn set_container(group: impl AsFd, container: impl AsFd) -> io::Result<()> {
    let mut container = container.as_fd().as_raw_fd();
    // SAFETY: VFIO_GROUP_SET_CONTAINER takes the address of a file descriptor.
    unsafe { call(group, VFIO_BASE + 4, ptr::from_mut(&mut container).cast()) }.map(drop)
}

/// Opens a group's function.
pub(super) fn open_device(group: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: VFIO_GROUP_GET_DEVICE_FD takes the address of a string that ends with a zero, and reads it only.
    let fd = unsafe { call(group, VFIO_BASE + 6, name.as_ptr().cast_mut().cast()) }?;
    // SAFETY: the kernel has just made this file descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.cast_signed()) })
}

/// What a function is.
pub(super) fn device_info(device: impl AsFd) -> io::Result<vfio::vfio_device_info> {
    let mut info = vfio::vfio_device_info::default();
    with(device, &mut info)?;
    Ok(info)
}

/// A `vfio_region_info` with its capabilities, as words.
pub(super) fn region_info(device: impl AsFd, index: u32) -> io::Result<Vec<u32>> {
    let mut words = vec![0; size_of::<vfio::vfio_region_info>() / 4];
    words[2] = index;
    // SAFETY: VFIO_DEVICE_GET_REGION_INFO takes a `vfio_region_info`: size, flags, index and more; no addresses.
    unsafe { told(device, VFIO_BASE + 8, words) }
}

/// How a kind of interrupt is.
pub(super) fn irq_info(device: impl AsFd, index: u32) -> io::Result<vfio::vfio_irq_info> {
    let mut info = vfio::vfio_irq_info { index, ..Default::default() };
    with(device, &mut info)?;
    Ok(info)
}

/// Changes `count` interrupts of a kind, from `first` on. `events` are file descriptors, one for each, or -1; or there is nothing.
pub(super) fn set_irqs(
    device: impl AsFd,
    flags: u32,
    index: u32,
    (first, count): (u32, u32),
    events: &[i32],
) -> io::Result<u32> {
    let mut words = vec![0, flags, index, first, count];
    words.extend(events.iter().map(|fd| fd.cast_unsigned()));
    // SAFETY: VFIO_DEVICE_SET_IRQS takes a `vfio_irq_set`: size, flags, index, start, count, then the data; no addresses.
    unsafe { with_list(device, VFIO_BASE + 10, &mut words) }
}

/// Resets one function.
pub(super) fn reset(device: impl AsFd) -> io::Result<()> {
    // SAFETY: VFIO_DEVICE_RESET takes nothing.
    unsafe { with_number(device, VFIO_BASE + 11, 0) }.map(drop)
}

/// A `vfio_pci_hot_reset_info` with its list, as words: size, flags, count, then two words for each function.
pub(super) fn hot_reset_info(device: impl AsFd) -> io::Result<Vec<u32>> {
    let mut words = vec![0; 3];
    // A bus has 256 functions at most; that many may come while we ask.
    for _ in 0..256 {
        // SAFETY: VFIO_DEVICE_GET_PCI_HOT_RESET_INFO takes a `vfio_pci_hot_reset_info`; no addresses.
        match unsafe { with_list(&device, VFIO_BASE + 12, &mut words) } {
            Ok(_) => return Ok(words),
            // Unlike its sisters, this call says in the count, not in the size, what it needs.
            Err(error) if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => {
                let count = words[2].min(1 << 16) as usize;
                words.resize((3 + 2 * count).max(words.len()), 0);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Resets a bus. `groups` prove that all functions there are ours; none are needed for what is opened by character device.
pub(super) fn hot_reset(device: impl AsFd, groups: &[i32]) -> io::Result<()> {
    let mut words = vec![0, 0, groups.len() as u32];
    words.extend(groups.iter().map(|fd| fd.cast_unsigned()));
    // SAFETY: VFIO_DEVICE_PCI_HOT_RESET takes a `vfio_pci_hot_reset`: size, flags, count, then file descriptors.
    unsafe { with_list(device, VFIO_BASE + 13, &mut words) }.map(drop)
}

/// A `vfio_iommu_type1_info` with its capabilities, as words.
pub(super) fn container_info(container: impl AsFd) -> io::Result<Vec<u32>> {
    // SAFETY: VFIO_IOMMU_GET_INFO takes a `vfio_iommu_type1_info`; no addresses.
    unsafe { told(container, VFIO_BASE + 12, vec![0; size_of::<vfio::vfio_iommu_type1_info>() / 4]) }
}

/// Lets a container's functions reach memory of this process.
///
/// # Safety
/// `length` bytes from `host` on must be memory that a guest may change at any time, until they are unmapped.
pub(super) unsafe fn container_map(
    container: impl AsFd,
    iova: u64,
    host: u64,
    length: u64,
) -> io::Result<()> {
    let mut map = vfio::vfio_iommu_type1_dma_map {
        argsz: size_of::<vfio::vfio_iommu_type1_dma_map>() as u32,
        flags: vfio::VFIO_DMA_MAP_FLAG_READ | vfio::VFIO_DMA_MAP_FLAG_WRITE,
        vaddr: host,
        iova,
        size: length,
    };
    // SAFETY: VFIO_IOMMU_MAP_DMA takes this structure; the caller promises the rest.
    unsafe { call(container, VFIO_BASE + 13, ptr::from_mut(&mut map).cast()) }.map(drop)
}

/// The end of [`container_map`].
pub(super) fn container_unmap(container: impl AsFd, iova: u64, length: u64) -> io::Result<()> {
    let mut unmap = vfio::vfio_iommu_type1_dma_unmap { iova, size: length, ..Default::default() };
    with(container, &mut unmap).map(drop)
}

/// Makes a function belong to an iommufd.
pub(super) fn bind_iommufd(device: impl AsFd, iommufd: impl AsFd) -> io::Result<()> {
    let iommufd = iommufd.as_fd().as_raw_fd();
    with(device, &mut vfio::vfio_device_bind_iommufd { iommufd, ..Default::default() }).map(drop)
}

/// Puts a function into an address space.
pub(super) fn attach_ioas(device: impl AsFd, ioas: u32) -> io::Result<()> {
    with(device, &mut vfio::vfio_device_attach_iommufd_pt { pt_id: ioas, ..Default::default() }).map(drop)
}

/// A new address space.
pub(super) fn alloc_ioas(iommufd: impl AsFd) -> io::Result<u32> {
    let mut alloc = iommufd::iommu_ioas_alloc::default();
    with(iommufd, &mut alloc)?;
    Ok(alloc.out_ioas_id)
}

/// The end of an object.
pub(super) fn destroy(iommufd: impl AsFd, id: u32) -> io::Result<()> {
    with(iommufd, &mut iommufd::iommu_destroy { id, ..Default::default() }).map(drop)
}

/// What an address space may translate, as (first, last), and how mappings must be aligned.
pub(super) fn ioas_ranges(iommufd: impl AsFd, ioas_id: u32) -> io::Result<(Vec<(u64, u64)>, u64)> {
    let mut ranges = vec![iommufd::iommu_iova_range::default(); 16];
    loop {
        let mut asked = iommufd::iommu_ioas_iova_ranges {
            size: size_of::<iommufd::iommu_ioas_iova_ranges>() as u32,
            ioas_id,
            num_iovas: ranges.len() as u32,
            allowed_iovas: ranges.as_mut_ptr() as u64,
            ..Default::default()
        };
        let argument = ptr::from_mut(&mut asked).cast();
        // SAFETY: IOMMU_IOAS_IOVA_RANGES takes this structure, and writes no more than `num_iovas` ranges to `allowed_iovas`.
        let outcome = unsafe { call(&iommufd, iommufd::IOMMUFD_CMD_IOAS_IOVA_RANGES, argument) };
        let count = asked.num_iovas as usize;
        match outcome {
            Ok(_) => {
                ranges.truncate(count);
                let ranges = ranges.iter().map(|range| (range.start, range.last)).collect();
                return Ok((ranges, asked.out_iova_alignment));
            }
            Err(error) if error.raw_os_error() != Some(Errno::MSGSIZE.raw_os_error()) => return Err(error),
            Err(_) if count <= ranges.len() || count > 1 << 16 => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Err(_) => ranges.resize(count, iommufd::iommu_iova_range::default()),
        }
    }
}

/// Lets an address space's functions reach memory of this process.
///
/// # Safety
/// As with [`container_map`].
pub(super) unsafe fn ioas_map(
    iommufd: impl AsFd,
    ioas_id: u32,
    (iova, host, length): (u64, u64, u64),
) -> io::Result<()> {
    let flags = iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
        | iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE
        | iommufd::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE;
    let size = size_of::<iommufd::iommu_ioas_map>() as u32;
    let mut map =
        iommufd::iommu_ioas_map { size, flags, ioas_id, user_va: host, length, iova, ..Default::default() };
    // SAFETY: IOMMU_IOAS_MAP takes this structure; the caller promises the rest.
    unsafe { call(iommufd, iommufd::IOMMUFD_CMD_IOAS_MAP, ptr::from_mut(&mut map).cast()) }.map(drop)
}

/// The end of [`ioas_map`].
pub(super) fn ioas_unmap(iommufd: impl AsFd, ioas_id: u32, iova: u64, length: u64) -> io::Result<()> {
    with(iommufd, &mut iommufd::iommu_ioas_unmap { ioas_id, iova, length, ..Default::default() }).map(drop)
}
