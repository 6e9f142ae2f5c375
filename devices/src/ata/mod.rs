//! The ATA disk as the command set describes it, whatever controller it hangs on.
//!
//! [`Drive`] holds a disk's registers and settings and turns a command into an [`Action`]; the controller moves the data and tells it
//! how that ended. [`Opcode`], [`identify`] and [`bits`] are what both ends of ATA over Ethernet speak as well.
//!
//! References are to ATA8-ACS (T13/1699-D) where nothing else is said.

pub mod bits;
mod drive;
mod features;
mod geometry;
pub mod identify;
mod opcode;
mod smart;
mod task_file;

pub use drive::{Action, Answer, Drive, Job, Transfer};
pub use features::{Settings, TransferMode};
pub use geometry::Geometry;
pub use opcode::{Address, Opcode, Protocol, SetFeatures, SmartFunction};
pub use task_file::{Register, TaskFile};

/// Sectors that READ MULTIPLE and WRITE MULTIPLE move at most in one DRQ block.
pub const MULTIPLE_MAX: u8 = 16;

/// Blocks of 512 bytes with range entries that one DATA SET MANAGEMENT command carries at most.
pub const TRIM_BLOCKS_MAX: u16 = 8;
