//! The kernel's VFIO: functions that the driver vfio-pci holds, and the IOMMU in front of them.
//!
//! The calls are our own on the structures of `vfio-bindings` and `iommufd-bindings`. `vfio-ioctls` arms interrupts from vector 0 on and
//! all at once, and leaves out masking INTx, hot reset, the ranges that the IOMMU translates and errors of register accesses: most
//! of what is needed here.

mod device;
mod group;
mod ioctl;
mod iommu;
mod memory;
mod region;
mod reset;
mod uapi;

pub use device::KernelDevice;
pub use group::{is_harmless, is_vfio};
pub use iommu::{Choice, Iommu};
pub use memory::Ram;
