//! Passthrough in the lab: an L1 with [`Devices`], each with its other end on L0, a [`Vmm`] in it that passes them through, and
//! a guest that uses every one of them ([`Check`]) and says how that went ([`Verdict`]).
//!
//! Kagero takes QEMU's place by another command line: the same machine, the same guest, the same checks. QEMU is also the
//! peer that Kagero's start-up is measured against.

mod devices;
mod guest;
mod screen;
mod tone;
mod vmm;

pub use devices::{Device, Devices};
pub use guest::{Check, Interrupts, Verdict, verdicts, with_checks, with_script};
pub use screen::{Picture, Qmp};
pub use tone::{TONE, has_tone};
pub use vmm::{Vmm, drivers};

use crate::l1::L1;
use anyhow::Result;

/// An L1 with all the devices, and with these VMMs in it.
///
/// # Errors
/// As [`Devices::new`] and [`Builder::start`](crate::l1::Builder::start).
pub fn lab(vmms: &[Vmm]) -> Result<(Devices, L1)> {
    let devices = Devices::new()?;
    let l1 = vmms.iter().try_fold(devices.add_to(L1::builder())?, |l1, vmm| vmm.add_to(l1))?.start()?;
    println!("L1 ready in {:.1} s", l1.ready_in().as_secs_f64());
    Ok((devices, l1))
}
