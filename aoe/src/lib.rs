//! ATA over Ethernet without I/O: frames in, frames out, time as an argument.
//!
//! The crate is `no_std` and links unchanged into the KVM-hosted and the bare-metal build.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod discovery;
pub mod initiator;
pub mod link;
mod random;
pub mod simulation;
pub mod target;
pub mod wire;

pub use kagero_devices::time::Instant;
