//! Opening what was planned.
#![allow(unsafe_code)]

use std::sync::Arc;

use anyhow::Context;
use kagero_vfio::{Choice, Function, Iommu, Ram};

use super::{Bound, Passed, Plan};
use crate::error::{Error, UserError};
use crate::functions::{Address, Functions, Slotted};
use crate::kvm::Backplane;
use crate::memory::GuestRam;

/// The memory that functions reach. It is unmapped for them before it goes.
pub(crate) struct Memory {
    _iommu: Arc<Iommu>,
    _ram: GuestRam,
}

/// Opens the planned functions through VFIO, and lets them reach guest memory.
///
/// # Errors
/// When one can't be had, or the IOMMU doesn't take the memory.
pub(super) fn open(plan: &Plan, ram: &GuestRam, bound: Option<Bound>) -> Result<Passed, Error> {
    let iommu = Arc::new(Iommu::new(Choice::Best)?);
    let hardware = plan.functions.iter().map(|planned| iommu.open(&planned.host.to_string()));
    let hardware: Vec<_> = std::thread::scope(|threads| {
        // All of it is about to be pinned. Finding and clearing it takes longer than all else here.
        threads.spawn(|| ram.populate());
        hardware.collect::<Result<_, _>>()
    })?;
    tracing::debug!("VFIO has opened all functions");
    let memory: Vec<_> = ram.slots().map(|(gpa, host, length)| Ram { gpa, host, length }).collect();
    // SAFETY: guest memory, which the guest changes at any time. It stays mapped: `Memory` drops the IOMMU first, and functions, which also hold
    // that, are dropped before it.
    unsafe { iommu.map(&memory) }?;
    tracing::debug!("the functions reach guest memory");
    let backplane = Arc::new(Backplane::with_files(iommu.files().context("VFIO's files for KVM")?));
    let functions = plan.functions.iter().zip(hardware).map(|(planned, hardware)| {
        let address = Address { slot: planned.slot, function: planned.function };
        let machine = Arc::clone(&backplane) as Arc<_>;
        // Drivers leave their functions quiet, and VFIO resets what a run that was killed has left (vfio_pci_core_disable): another reset of
        // each bus would cost a third of a second.
        let function = Function::new(Box::new(hardware), machine, true, planned.multifunction)?;
        Ok((address, Box::new(function) as Box<dyn Slotted>))
    });
    let functions = functions.collect::<Result<_, kagero_vfio::Error>>()?;
    let functions = Functions::new(functions).map_err(|place| UserError::new("--passthrough", place, ""))?;
    Ok(Passed { functions, backplane, iommu: Some(Memory { _iommu: iommu, _ram: ram.clone() }), bound })
}
