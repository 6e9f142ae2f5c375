//! The PCI functions of this host, and what they are.

use std::path::Path;

use super::carried::{Carried, Needs, carried};
use super::class::Class;
use super::host::{Host, names, number, target, text};
use super::{Address, users};

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its address.
    pub address: Address,
    /// What it is.
    pub class: Class,
    /// Who made it.
    pub vendor: u16,
    /// Which of the maker's devices it is.
    pub device: u16,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The IOMMU can't tell it from the others of this group.
    pub group: Option<u32>,
    /// How it can be reset alone, as the kernel names these: `flr`, `pm`, `bus`.
    pub resets: Vec<String>,
    /// Whether the host's console is on it.
    pub console: bool,
    /// Whether it is a virtio device whose DMA no IOMMU sees, as far as its driver has asked.
    pub past_iommu: bool,
    /// The physical function, of a virtual one (SR-IOV).
    pub physical: Option<Address>,
    /// How many virtual functions it has now.
    pub virtuals: u32,
    /// What hangs on it.
    pub carries: Vec<Carried>,
    /// The process that has it, or another one of its group, open through VFIO.
    pub user: Option<String>,
}

impl Function {
    /// Whether VFIO has it, so that it only has to be opened.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.driver.as_deref().is_some_and(kagero_vfio::is_vfio)
    }

    /// Whether VFIO opens others of its group while this one's driver has it; none does no DMA.
    pub(super) fn is_harmless(&self) -> bool {
        self.driver.as_deref().is_none_or(kagero_vfio::is_harmless)
    }
}

/// All functions, by address.
pub(super) fn functions(host: &Host, needs: &Needs) -> Vec<Function> {
    let mut carried = carried(host, needs);
    let addresses = names(&host.path("sys/bus/pci/devices")).into_iter().filter_map(|name| name.parse().ok());
    let mut functions: Vec<_> = addresses
        .map(|address| function(host, address, carried.remove(&address).unwrap_or_default()))
        .collect();
    functions.sort_by_key(|function| function.address);
    users::find(host, &mut functions);
    functions
}

fn function(host: &Host, address: Address, carries: Vec<Carried>) -> Function {
    let folder = host.function(address);
    let attribute = |name: &str| number(&folder.join(name)).unwrap_or(0);
    let id = |name| u16::try_from(attribute(name)).unwrap_or(u16::MAX);
    let resets = match text(&folder.join("reset_method")) {
        Some(methods) => methods.split_whitespace().map(str::to_owned).collect(),
        // Kernels before 5.15 only say that there is one.
        None if folder.join("reset").exists() => vec!["reset".to_owned()],
        None => Vec::new(),
    };
    let (vendor, device) = (id("vendor"), id("device"));
    Function {
        address,
        class: Class(attribute("class")),
        vendor,
        device,
        driver: host.driver(address),
        group: host.group(address),
        resets,
        console: attribute("boot_vga") == 1,
        past_iommu: vendor == VIRTIO && sees_no_iommu(&folder),
        physical: target(&folder.join("physfn")).and_then(|name| name.parse().ok()),
        virtuals: attribute("sriov_numvfs"),
        carries,
        user: None,
    }
}

/// Whose number virtio devices have.
const VIRTIO: u16 = 0x1af4;

/// Whether a virtio device has not agreed to VIRTIO_F_ACCESS_PLATFORM (bit 33, virtio 1.2, 6): then its hypervisor lets it use physical
/// addresses as they are. sysfs shows features as digits, the lowest first.
fn sees_no_iommu(folder: &Path) -> bool {
    let below = names(folder).into_iter().filter(|name| name.starts_with("virtio"));
    let features = below.filter_map(|name| text(&folder.join(name).join("features")));
    features.into_iter().any(|features| features.as_bytes().get(33) != Some(&b'1'))
}
