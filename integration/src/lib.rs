//! The lab: an emulated machine with virtualization, and everything that boots a guest.
//!
//! L0 is this machine. L1 is a machine that QEMU emulates in software, with an AMD processor that lends its
//! virtualization, an IOMMU and PCI devices. L2 is the guest that Kagero runs in L1.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use kagero_integration::l1::L1;
//! use std::time::Duration;
//!
//! let l1 = L1::builder().program("target/release/kagero").start()?;
//! let said = l1.run("kagero --version", Duration::from_secs(10))?;
//! assert_eq!(said.code, 0);
//! println!("{}", said.stdout);
//! l1.power_off()
//! # }
//! ```
//!
//! - [`l1`]: an L1, its jobs and their consoles.
//! - [`machines`]: L1s with Kagero in them, alone and with a target on L0.
//! - [`made_up`]: hosts that only consist of files in `/sys`, for what looks at hardware.
//! - [`network`]: network namespaces and taps on L0, for the two-machine form.
//! - [`process`]: processes on L0, such as the target; they end when the test ends, however it ends.
//! - [`transcript`]: a growing log and waiting for what it will say.
//! - [`passthrough`]: an L1 with devices that a VMM in it passes through, and a guest that tries each of them.
//! - [`exits`]: counting a guest's exits, exactly.
//! - [`qemu`]: guests in plain QEMU, to compare.
//! - [`report`]: reading what `kagero run --report` wrote.
//! - [`retry`]: retries that are counted and reported.
//! - [`boot_sector`]: a guest of 512 bytes.
//! - [`guest`]: guests in assembly language.
//! - [`smoke`]: whether KVM works at all.

pub mod boot_sector;
mod child;
pub mod exits;
mod folder;
pub mod guest;
pub mod l1;
pub mod machines;
pub mod made_up;
pub mod network;
pub mod passthrough;
pub mod process;
pub mod qemu;
pub mod report;
pub mod retry;
pub mod smoke;
pub mod transcript;
