//! Why a function stays with the host.

use std::fmt;

use super::{Address, Carried, Function};
use crate::error::UserError;

/// Why a function can't go to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A bridge leads to others.
    Bridge(&'static str),
    /// No IOMMU watches what it reads and writes.
    NoGroup,
    /// A hypervisor made it, and lets it read and write past the IOMMU.
    Virtio,
    /// Its virtual functions would be gone with its driver.
    VirtualFunctions(u32),
    /// The host, or this run, needs what hangs on it.
    Carries(Carried),
    /// Somebody has it open through VFIO.
    InUse(String),
    /// The IOMMU can't tell it from others that stay.
    Shares {
        /// The group.
        group: u32,
        /// The others, and why.
        others: Vec<(Address, String)>,
        /// Whether they stay even where drivers may be changed.
        bind: bool,
    },
    /// Its driver has it, and nobody said that it may be taken away.
    Driver(Option<String>),
    /// The guest's bus is full.
    NoSlot,
}

impl Reason {
    /// Why this function stays whatever becomes of the others of its group.
    pub(super) fn of(function: &Function) -> Option<Reason> {
        if function.class.is_bridge() {
            return Some(Reason::Bridge(function.class.name()));
        }
        if let Some(carried) = function.carries.iter().find(|carried| carried.stays()) {
            return Some(Reason::Carries(carried.clone()));
        }
        if function.group.is_none() {
            return Some(Reason::NoGroup);
        }
        if function.past_iommu {
            return Some(Reason::Virtio);
        }
        if function.virtuals > 0 {
            return Some(Reason::VirtualFunctions(function.virtuals));
        }
        function.user.clone().map(Reason::InUse)
    }

    /// The refusal of a function that was named.
    pub(super) fn refuse(&self, address: Address) -> UserError {
        let mend = match self {
            Reason::Bridge(_) => "name the functions behind it".into(),
            Reason::NoGroup => "it can't go to a guest safely; name another".into(),
            Reason::Virtio => "give this virtual machine its virtio devices with iommu_platform=on".into(),
            Reason::VirtualFunctions(_) => {
                format!("name those, or `echo 0 > /sys/bus/pci/devices/{address}/sriov_numvfs` first")
            }
            Reason::Carries(carried) => carried.mend().into(),
            Reason::InUse(_) => "end that first".into(),
            Reason::Shares { bind: false, .. } => "add --bind, which takes them along".into(),
            Reason::Shares { .. } => {
                "the whole group has to go: free those too, or put the card into another slot".into()
            }
            Reason::Driver(_) => "add --bind, which gives it back at the end".into(),
            Reason::NoSlot => "leave some out".into(),
        };
        UserError::new(address, self, mend)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Bridge(name) => f.write_str(name),
            Reason::NoGroup => f.write_str("has no IOMMU group"),
            Reason::Virtio => f.write_str("is a virtio device whose DMA goes past the IOMMU"),
            Reason::VirtualFunctions(1) => f.write_str("has a virtual function"),
            Reason::VirtualFunctions(count) => write!(f, "has {count} virtual functions"),
            Reason::Carries(carried) => carried.fmt(f),
            Reason::InUse(user) => write!(f, "in use by {user}"),
            Reason::Shares { group, others, bind: _ } => {
                write!(f, "shares IOMMU group {group} with ")?;
                for (at, (address, why)) in others.iter().enumerate() {
                    write!(f, "{}{address} ({why})", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Reason::Driver(Some(driver)) => write!(f, "has the driver {driver}, not vfio-pci"),
            Reason::Driver(None) => f.write_str("has no driver, vfio-pci neither"),
            Reason::NoSlot => f.write_str("finds no free slot on the guest's bus"),
        }
    }
}
