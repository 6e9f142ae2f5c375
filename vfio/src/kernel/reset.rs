//! Reset of a whole bus, which VFIO calls hot.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use vfio_bindings::bindings::vfio;

use super::KernelDevice;
use super::memory::Space;
use super::uapi;

/// Resets the bus of a function when all functions there are ours. The kernel checks the same once more.
pub(super) fn bus(device: &KernelDevice) -> io::Result<()> {
    let affected = Affected::parse(&uapi::hot_reset_info(&device.file).map_err(refused)?);
    let groups = device.iommu.state().groups.clone();
    let fds = match device.iommu.space {
        Space::Iommufd { .. } if affected.owned => Vec::new(),
        Space::Container { .. } if affected.ids.iter().all(|id| groups.contains_key(id)) => {
            let mut ids = affected.ids;
            ids.sort_unstable();
            ids.dedup();
            ids.iter().filter_map(|id| groups.get(id)).map(|group| group.as_fd().as_raw_fd()).collect()
        }
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    uapi::hot_reset(&device.file, &fds).map_err(refused)
}

/// The kernel refuses when functions there belong to others or to no driver (`EINVAL`, `EPERM`), and when the bus has no reset (`ENODEV`).
/// `ENOTTY` is another matter: the function did not come back in time.
fn refused(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::INVAL | Errno::PERM | Errno::NODEV) => io::ErrorKind::Unsupported.into(),
        _ => error,
    }
}

/// Whom a reset of the bus affects.
#[derive(Debug, PartialEq, Eq)]
struct Affected {
    /// With iommufd: whether all are ours.
    owned: bool,
    /// Their groups; with iommufd, numbers of its own.
    ids: Vec<u32>,
}

impl Affected {
    /// From a `vfio_pci_hot_reset_info`: size, flags, count, then for each function its group, and segment, bus and function in one word.
    fn parse(words: &[u32]) -> Self {
        let [_, flags, count, list @ ..] = words else { return Affected { owned: false, ids: Vec::new() } };
        let owned = vfio::VFIO_PCI_HOT_RESET_FLAG_DEV_ID | vfio::VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
        let ids = list.chunks_exact(2).take(*count as usize).map(|function| function[0]).collect();
        Affected { owned: flags & owned == owned, ids }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_bus_reset_affects() {
        let two = [28, 0, 2, 7, 0x0800_0300, 7, 0x0900_0300];
        assert_eq!(Affected::parse(&two), Affected { owned: false, ids: vec![7, 7] });
        assert!(Affected::parse(&[20, 3, 1, 1, 0]).owned);
        assert!(!Affected::parse(&[20, 1, 1, 1, 0]).owned);
        assert_eq!(Affected::parse(&[]), Affected { owned: false, ids: vec![] });
        assert_eq!(Affected::parse(&[12, 0, 9]), Affected { owned: false, ids: vec![] });
    }
}
