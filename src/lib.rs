//! Kagero.
#![warn(missing_docs)]
pub mod boot;
pub mod clock;
pub mod control;
mod cpuid;
pub mod irq;
pub mod kvm;
pub mod memory;
