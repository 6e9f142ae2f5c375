//! What can go wrong, for people: one line each with the thing, what is wrong with it and the mend.

use std::fmt;
use std::io;

/// A function that shares an IOMMU group with one that was asked for, and is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name: `0000:03:00.1`.
    pub name: String,
    /// The driver that uses it.
    pub driver: String,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (driver {})", self.name, self.driver)
    }
}

/// Why a function can't be passed through, or can't any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such function.
    #[error("{device}: there is no such PCI function; lspci -D lists those that there are")]
    NoDevice {
        /// Its name.
        device: String,
    },
    /// Nothing translates the function's DMA.
    #[error(
        "{device}: no IOMMU guards its memory accesses; turn on VT-d or AMD-Vi in the firmware, and intel_iommu=on on the host kernel's command line"
    )]
    NoIommu {
        /// Its name.
        device: String,
    },
    /// The kernel has no VFIO.
    #[error("{path}: the kernel's VFIO is not there; load it with modprobe -a vfio-pci vfio_iommu_type1")]
    NoVfio {
        /// The device node that is missing.
        path: String,
    },
    /// The function belongs to another driver, or to none.
    #[error("{device}: {}, not vfio-pci; --bind gives it to vfio-pci while the guest runs", used_by(driver.as_deref()))]
    NotBound {
        /// Its name.
        device: String,
        /// Its driver.
        driver: Option<String>,
    },
    /// The IOMMU can't tell the function from others that are in use.
    #[error(
        "{device}: its IOMMU group {group} is in use by {}; give those to vfio-pci as well, or unbind them",
        list(others)
    )]
    NotViable {
        /// Its name.
        device: String,
        /// The group's number.
        group: u32,
        /// Who is in use.
        others: Vec<Neighbour>,
    },
    /// A function could make interrupts for the host up.
    #[error(
        "{device}: the host does not remap interrupts, so that the guest could forge some with it; turn interrupt remapping on in the firmware, or trust the guest with {module}.allow_unsafe_interrupts=1 on the host kernel's command line"
    )]
    NoRemapping {
        /// Its name.
        device: String,
        /// The module that asks.
        module: &'static str,
    },
    /// Guest memory has to stay where it is, and may not.
    #[error(
        "guest memory of {} KiB must be locked for passthrough, and {} KiB may be; raise the limit with ulimit -l {}, or LimitMEMLOCK= in a systemd unit",
        needed.div_ceil(1024), allowed / 1024, needed.div_ceil(1024)
    )]
    LockedMemory {
        /// Bytes to be locked.
        needed: u64,
        /// Bytes that may be locked.
        allowed: u64,
    },
    /// Somebody else has it.
    #[error("{device}: another process uses it; end that one first (fuser -v {path} names it)")]
    Busy {
        /// Its name.
        device: String,
        /// The device node.
        path: String,
    },
    /// Not allowed.
    #[error(
        "{path}: no permission to use it for {device}; run as root, or give this user the device node with a udev rule"
    )]
    Denied {
        /// Its name.
        device: String,
        /// The device node.
        path: String,
    },
    /// The IOMMU does not translate all of the guest's addresses.
    #[error(
        "the IOMMU has no room for guest memory at {first:#x} to {last:#x}; give the guest less memory, or pass fewer functions through"
    )]
    Unreachable {
        /// First address of the part of guest memory.
        first: u64,
        /// Last address.
        last: u64,
    },
    /// It was there, and is not any more.
    #[error("{device}: it is gone ({doing}: {source}); the host's kernel log says more")]
    Vanished {
        /// Its name.
        device: String,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It says that it has failed.
    #[error("{device}: the hardware reports an error that it can't correct; the host's kernel log says more")]
    Failed {
        /// Its name.
        device: String,
    },
    /// The guest's machine or the kernel refused something.
    #[error("{device}: {doing}: {source}")]
    Kernel {
        /// Its name, or that of a device node.
        device: String,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn used_by(driver: Option<&str>) -> String {
    driver.map_or_else(|| "no driver has it".to_owned(), |driver| format!("driver {driver} has it"))
}

fn list(others: &[Neighbour]) -> String {
    if others.is_empty() {
        return "another driver".to_owned();
    }
    others.iter().map(Neighbour::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_the_thing_and_the_mend() {
        let device = || "0000:03:00.0".to_owned();
        let neighbour =
            |name: &str, driver: &str| Neighbour { name: name.to_owned(), driver: driver.to_owned() };
        let others = vec![neighbour("0000:03:00.1", "snd_hda_intel"), neighbour("0000:03:00.2", "xhci_hcd")];
        assert_eq!(
            Error::NotViable { device: device(), group: 7, others }.to_string(),
            "0000:03:00.0: its IOMMU group 7 is in use by 0000:03:00.1 (driver snd_hda_intel), 0000:03:00.2 (driver xhci_hcd); \
             give those to vfio-pci as well, or unbind them"
        );
        assert_eq!(
            Error::LockedMemory { needed: 1 << 30, allowed: 64 << 10 }.to_string(),
            "guest memory of 1048576 KiB must be locked for passthrough, and 64 KiB may be; raise the limit with ulimit -l 1048576, \
             or LimitMEMLOCK= in a systemd unit"
        );
        assert_eq!(
            Error::NotBound { device: device(), driver: None }.to_string(),
            "0000:03:00.0: no driver has it, not vfio-pci; --bind gives it to vfio-pci while the guest runs"
        );
    }
}
