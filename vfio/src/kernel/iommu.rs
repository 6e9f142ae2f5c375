//! The address space in which functions access memory: that of the guest.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::io::Errno;
use vfio_bindings::bindings::vfio;

use super::group::Sysfs;
use super::memory::Space;
use super::{KernelDevice, Ram, uapi};
use crate::Error;

const CONTAINER: &str = "/dev/vfio/vfio";
const GROUPS: &str = "/dev/vfio";
const IOMMUFD: &str = "/dev/iommu";
const DEVICES: &str = "/dev/vfio/devices";
const SYSFS: &str = "/sys/bus/pci/devices";

/// Which of the kernel's two interfaces is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Iommufd where the kernel has it with character devices, else containers.
    #[default]
    Best,
    /// `/dev/iommu` and `/dev/vfio/devices/vfioN`.
    Iommufd,
    /// `/dev/vfio/vfio` and `/dev/vfio/N`.
    Container,
}

/// Owns the functions that are passed through, and says which memory they reach. Guest memory is unmapped when this and all functions
/// opened with it are dropped, or before by [`unmap`](Self::unmap).
///
/// First [`open`](Self::open) all functions: only then is it known what can be translated. Then [`map`](Self::map) guest memory, and add
/// [`files`](Self::files) to KVM's VFIO device.
#[derive(Debug)]
pub struct Iommu {
    pub(super) space: Space,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// With containers: open groups, by number.
    pub(super) groups: BTreeMap<u32, Arc<File>>,
    /// With iommufd: the functions' files.
    pub(super) devices: Vec<Weak<OwnedFd>>,
    /// Guest memory that functions reach.
    pub(super) mapped: Vec<Ram>,
}

impl Iommu {
    /// An address space without memory.
    ///
    /// # Errors
    /// When the kernel has no VFIO, or this process may not use it.
    pub fn new(choice: Choice) -> Result<Iommu, Error> {
        match choice {
            Choice::Iommufd => Self::of(true),
            // Who was given the nodes of groups only, as was usual before iommufd, goes on with those.
            Choice::Best if Path::new(IOMMUFD).exists() && Path::new(DEVICES).is_dir() => {
                match Self::of(true) {
                    Err(Error::Denied { .. }) => Self::of(false),
                    outcome => outcome,
                }
            }
            Choice::Best | Choice::Container => Self::of(false),
        }
    }

    fn of(iommufd: bool) -> Result<Iommu, Error> {
        let path = if iommufd { IOMMUFD } else { CONTAINER };
        let file = open_node("passthrough", path)?;
        let kernel = |doing| move |source| Error::Kernel { device: path.to_owned(), doing, source };
        let space = if iommufd {
            let ioas = uapi::alloc_ioas(&file).map_err(kernel("making an address space"))?;
            Space::Iommufd { file, ioas }
        } else {
            let version = uapi::api_version(&file).map_err(kernel("asking for the version"))?;
            let has_type1 = uapi::has_extension(&file, vfio::VFIO_TYPE1v2_IOMMU)
                .map_err(kernel("asking for type 1 IOMMUs"))?;
            if version != vfio::VFIO_API_VERSION || !has_type1 {
                return Err(Error::NoVfio { path: path.to_owned() });
            }
            Space::Container { file }
        };
        Ok(Iommu { space, state: Mutex::default() })
    }

    /// Opens the function of this name, `0000:03:00.0`, and lets it into the address space.
    ///
    /// # Errors
    /// When it is not there, not ours, or not safe.
    pub fn open(self: &Arc<Self>, name: &str) -> Result<KernelDevice, Error> {
        let sysfs = Sysfs::find(Path::new(SYSFS), name)?;
        let group = sysfs.viable_group()?;
        let device = match &self.space {
            Space::Iommufd { file, ioas } => {
                let node = sysfs.node().ok_or_else(|| Error::NoVfio { path: format!("{DEVICES}/vfioN") })?;
                let device = open_cdev(name, &format!("{DEVICES}/{node}"), file, *ioas)?;
                self.state().devices.push(Arc::downgrade(&device));
                device
            }
            Space::Container { file } => {
                let path = format!("{GROUPS}/{group}");
                open_in_group(name, &path, &*self.join(name, &path, group, file)?)?
            }
        };
        KernelDevice::new(name, device, Arc::clone(self))
    }

    /// Opens a group, unless it is open, and puts it into the container.
    fn join(&self, name: &str, path: &str, number: u32, container: &File) -> Result<Arc<File>, Error> {
        let mut state = self.state();
        if let Some(group) = state.groups.get(&number) {
            return Ok(Arc::clone(group));
        }
        let group = open_node(name, path)?;
        let failed = |doing| move |source| refused(name, path, "vfio_iommu_type1", doing, source);
        let flags = uapi::group_flags(&group).map_err(failed("asking for its IOMMU group"))?;
        if flags & vfio::VFIO_GROUP_FLAGS_VIABLE == 0 {
            // Sysfs showed nobody: somebody came in between.
            return Err(Error::NotViable { device: name.to_owned(), group: number, others: Vec::new() });
        }
        uapi::set_container(&group, container).map_err(failed("putting its group into a container"))?;
        if state.groups.is_empty() {
            // Only a container with a group can be given its type; further groups get it from there.
            uapi::set_iommu(container, vfio::VFIO_TYPE1v2_IOMMU).map_err(failed("setting its IOMMU up"))?;
        }
        let group = Arc::new(group);
        state.groups.insert(number, Arc::clone(&group));
        Ok(group)
    }

    /// Files to be added to KVM's VFIO device (`KVM_DEV_VFIO_FILE_ADD`): it tells KVM when DMA does not snoop the caches. KVM keeps them open
    /// until that device is closed, and only then can drivers be given back.
    ///
    /// # Errors
    /// When this process has too many files open.
    pub fn files(&self) -> io::Result<Vec<OwnedFd>> {
        let state = self.state();
        let groups = state.groups.values().map(|group| group.as_fd().try_clone_to_owned());
        let devices = state.devices.iter().filter_map(Weak::upgrade).map(|device| device.try_clone());
        groups.chain(devices).collect()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a function of a group that is in a container.
fn open_in_group(name: &str, path: &str, group: &File) -> Result<Arc<OwnedFd>, Error> {
    let opening = |source| refused(name, path, "vfio_iommu_type1", "opening it", source);
    let c_name = CString::new(name).map_err(|error| opening(error.into()))?;
    Ok(Arc::new(uapi::open_device(group, &c_name).map_err(opening)?))
}

/// Opens a function by its character device, for an iommufd.
fn open_cdev(name: &str, path: &str, iommufd: &File, ioas: u32) -> Result<Arc<OwnedFd>, Error> {
    let failed = |doing| move |source| refused(name, path, "iommufd", doing, source);
    let device = OwnedFd::from(open_node(name, path)?);
    uapi::bind_iommufd(&device, iommufd).map_err(|source| {
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            // A character device can be in use once only; the kernel says so with EINVAL.
            Some(Errno::INVAL) => Error::Busy { device: name.to_owned(), path: path.to_owned() },
            _ => failed("binding it to an iommufd")(source),
        }
    })?;
    uapi::attach_ioas(&device, ioas).map_err(failed("letting it into the guest's address space"))?;
    Ok(Arc::new(device))
}

fn open_node(name: &str, path: &str) -> Result<File, Error> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|source| refused(name, path, "vfio", "opening it", source))
}

/// What the kernel means by an error of a call about the function `name`.
fn refused(name: &str, path: &str, module: &'static str, doing: &'static str, source: io::Error) -> Error {
    let (device, path) = (name.to_owned(), path.to_owned());
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) if module == "vfio" => Error::NoVfio { path },
        Some(Errno::NXIO | Errno::NODEV) if path == CONTAINER || path == IOMMUFD => Error::NoVfio { path },
        Some(Errno::ACCESS) => Error::Denied { device, path },
        Some(Errno::PERM) if module == "vfio" => Error::Denied { device, path },
        // What sysfs shows was looked at before: nobody uses its group. What is left is that interrupts are not remapped.
        Some(Errno::PERM) => Error::NoRemapping { device, module },
        Some(Errno::BUSY) => Error::Busy { device, path },
        _ => Error::Kernel { device, doing, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_kernel_become_lines_for_people() {
        let line = |module, errno: Errno| {
            refused("0000:03:00.0", "/dev/vfio/7", module, "setting its IOMMU up", errno.into()).to_string()
        };
        assert!(line("vfio_iommu_type1", Errno::PERM).contains("vfio_iommu_type1.allow_unsafe_interrupts=1"));
        assert!(line("iommufd", Errno::PERM).contains("iommufd.allow_unsafe_interrupts=1"));
        assert!(line("vfio", Errno::PERM).contains("no permission"));
        assert!(line("vfio", Errno::BUSY).contains("another process uses it"));
        assert!(line("vfio", Errno::NOENT).contains("modprobe -a vfio-pci"));
        let other = line("vfio_iommu_type1", Errno::NOMEM);
        assert_eq!(other, "0000:03:00.0: setting its IOMMU up: Cannot allocate memory (os error 12)");
    }

    #[test]
    fn a_host_without_vfio_is_told_so() {
        for (choice, path) in [(Choice::Container, CONTAINER), (Choice::Iommufd, IOMMUFD)] {
            if !Path::new(path).exists() {
                let line = Iommu::new(choice).unwrap_err().to_string();
                assert_eq!(
                    line,
                    format!(
                        "{path}: the kernel's VFIO is not there; load it with modprobe -a vfio-pci vfio_iommu_type1"
                    )
                );
            }
        }
    }
}
