//! What the fuzzers do with their input, a function each.
//!
//! `cargo +nightly fuzz run NAME` calls them with inputs that it finds by coverage; the tests of this crate with some thousands that are
//! always the same. A function reads its input as a list of acts of a hostile guest or network, carries them out, and panics when something
//! does not hold that must always hold.

mod device;
mod ide;
mod identify;
mod initiator;
mod input;
mod passthrough;
mod pci;
mod platform;
mod target;
mod vhdx;
mod wire;

pub use ide::ide;
pub use identify::identify;
pub use initiator::initiator;
pub use passthrough::passthrough;
pub use platform::platform;
pub use target::{SERVER, target, target_frame};
pub use vhdx::vhdx;
pub use wire::wire;
