//! What the guest sees, as plain data: registers in, effects out, nothing held.
//!
//! A device here has no thread, no lock, no file and no clock. The caller hands it register accesses and the time,
//! and afterwards asks for what came of them: [`storage::Controller::poll_request`] for a command that another machine's
//! disk must carry out, an interrupt *level* that the caller compares with the last one, a change of an address range as a value.
//! The crate is `no_std` and links unchanged into the KVM-hosted and the bare-metal build.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod ata;
pub mod ide;
pub mod memory;
pub mod pci;
pub mod platform;
pub mod register;
pub mod storage;
pub mod time;
#[cfg(feature = "toy")]
pub mod toy;
