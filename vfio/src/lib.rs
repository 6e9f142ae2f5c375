//! Passthrough of PCI functions: the guest drives the hardware itself.
//!
//! Two traits keep this testable without either: [`Hardware`] is what a function's registers and interrupts are reached through, VFIO
//! on Linux; [`Machine`] is what the guest's machine does for it, KVM's memory slots and interrupt routes.

mod error;
mod function;
mod hardware;
mod kernel;
mod machine;
mod mapping;
#[cfg(any(test, feature = "mock"))]
pub mod mock;

pub use error::{Error, Neighbour};
pub use function::{Decode, Function, Space};
pub use hardware::{Hardware, Interrupt, Region, Rung};
pub use kernel::{Choice, Iommu, KernelDevice, Ram, is_harmless, is_vfio};
pub use machine::{Machine, Route, Slot};
pub use mapping::Mapping;
