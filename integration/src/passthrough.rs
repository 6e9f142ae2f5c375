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
pub use vmm::Vmm;
