//! Opening what was planned.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use kagero_vfio::{Choice, Function, Iommu, Ram};

use super::Plan;
use crate::error::{Error, UserError};
use crate::functions::{Address, Functions, Slotted};
use crate::kvm::Backplane;
use crate::memory::GuestRam;

/// Functions that are the guest's now, and the memory that they reach.
pub(super) struct Opened {
    /// Until the machine takes them.
    functions: Vec<(Address, Box<dyn Slotted>)>,
    iommu: Arc<Iommu>,
    /// What functions reach stays mapped as long.
    _ram: GuestRam,
}

impl Opened {
    /// The functions in their slots; once.
    pub(super) fn functions(&mut self) -> Result<Functions, Error> {
        let functions = std::mem::take(&mut self.functions);
        Functions::new(functions).map_err(|misplaced| UserError::new("--passthrough", misplaced, "").into())
    }

    /// Files for KVM's VFIO device.
    pub(super) fn files(&self) -> io::Result<Vec<OwnedFd>> {
        self.iommu.files()
    }
}

/// Opens the planned functions through VFIO, and lets them reach guest memory.
///
/// # Errors
/// When one can't be had, or the IOMMU doesn't take the memory.
pub(super) fn open(plan: &Plan, ram: &GuestRam, machine: &Arc<Backplane>) -> Result<Opened, Error> {
    let iommu = Arc::new(Iommu::new(Choice::Best)?);
    let opened = plan.functions.iter().map(|planned| {
        let hardware = Box::new(iommu.open(&planned.host.to_string())?);
        Ok((planned, Function::new(hardware, Arc::clone(machine) as _, true, planned.multifunction)?))
    });
    let opened: Vec<_> = opened.collect::<Result<_, kagero_vfio::Error>>()?;
    let memory: Vec<_> = ram.slots().map(|(gpa, host, length)| Ram { gpa, host, length }).collect();
    // SAFETY: guest memory, mapped as long as `Opened` keeps it, which drops the IOMMU first; the guest changes it at any time.
    unsafe { iommu.map(&memory) }?;
    let functions = opened.into_iter().map(|(planned, function)| {
        let address = Address { slot: planned.slot, function: planned.function };
        (address, Box::new(function) as Box<dyn Slotted>)
    });
    Ok(Opened { functions: functions.collect(), iommu, _ram: ram.clone() })
}
