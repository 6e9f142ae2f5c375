//! What the host needs before any function can go.

use kagero_vfio::is_vfio;
use rustix::process::{Resource, getrlimit};

use super::host::{Host, names, text};
use crate::config::{Size, grouped};
use crate::error::UserError;

/// How much memory this process may lock; `None` where nothing limits it. VFIO raises the soft limit to the hard one.
#[must_use]
pub fn lockable() -> Option<u64> {
    let unlimited =
        caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_IPC_LOCK).unwrap_or(false);
    if unlimited { None } else { getrlimit(Resource::Memlock).maximum }
}

/// What is missing on the host for any passthrough: the first thing, with the mend. With `bind`, the driver itself must be there too.
///
/// # Errors
/// When something is missing.
pub fn check(host: &Host, bind: bool) -> Result<(), UserError> {
    if !host.path("sys/bus/pci/devices").is_dir() {
        return Err(UserError::new("--passthrough", "this host has no PCI", "leave it out"));
    }
    if names(&host.path("sys/kernel/iommu_groups")).is_empty() {
        return Err(UserError::new(
            "--passthrough",
            "this host has no IOMMU, or doesn't use it",
            "enable VT-d or AMD-Vi in its firmware set-up, and boot with intel_iommu=on on the kernel's command line",
        ));
    }
    let drivers = names(&host.path("sys/bus/pci/drivers"));
    let there = |driver: &String| if bind { driver == "vfio-pci" } else { is_vfio(driver) };
    if !drivers.iter().any(there) {
        return Err(UserError::new("vfio-pci", "the kernel's driver is not loaded", "`modprobe vfio-pci`"));
    }
    if remapping(host) == Some(false) && !allowed_without(host) {
        return Err(UserError::new(
            "--passthrough",
            "interrupt remapping is off: a guest could send the host any interrupt",
            "enable it in the firmware set-up, or, if you trust the guest, load vfio_iommu_type1 with allow_unsafe_interrupts=1",
        ));
    }
    Ok(())
}

/// Checks that guest memory may be locked, as it must be where hardware writes to it.
///
/// # Errors
/// When the limit is too low.
pub fn check_memory(memory: Size, lockable: Option<u64>) -> Result<(), UserError> {
    match lockable {
        Some(limit) if limit < memory.bytes() => {
            let (have, kib) = (grouped(limit / 1024), memory.bytes() / 1024);
            Err(UserError::new(
                "--memory",
                format!(
                    "hardware needs all {memory} of it locked, and the limit for locked memory is {have} KiB"
                ),
                format!("`ulimit -l {kib}`, LimitMEMLOCK={memory} in a systemd unit, or run as root"),
            ))
        }
        _ => Ok(()),
    }
}

/// Whether interrupts go through the IOMMU, where the kernel lets it be seen: its interrupt controllers are called IR-IO-APIC then.
fn remapping(host: &Host) -> Option<bool> {
    let interrupts = text(&host.path("proc/interrupts"))?;
    let mut chips =
        interrupts.split_whitespace().filter(|word| word.contains("IO-APIC") || word.contains("PCI-MSI"));
    let first = chips.next()?;
    Some(first.starts_with("IR-") || chips.any(|word| word.starts_with("IR-")))
}

fn allowed_without(host: &Host) -> bool {
    ["vfio_iommu_type1", "iommufd"].iter().any(|module| {
        let parameter = host.path(format!("sys/module/{module}/parameters/allow_unsafe_interrupts"));
        text(&parameter).is_some_and(|value| value == "Y" || value == "1")
    })
}
