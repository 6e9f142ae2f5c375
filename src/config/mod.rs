//! What is asked for, as plain data: a run, a server, a search for targets.
//!
//! Nothing here knows how it was said; `cli` makes these from flags and files, tests and other programs make them by hand.
//! [`RunConfig::check`] and [`ServeConfig::check`] say in one line what can't be done.

mod admission;
mod check;
mod disk;
mod fault;
pub mod file;
mod image;
pub(crate) mod keyed;
mod outputs;
pub(crate) mod places;
mod run;
mod serve;
mod units;

pub use disk::{Disk, DiskOption, MAX_DISKS, Source, SourceOption};
pub use fault::Faults;
pub use image::NamedImage;
pub use kagero_aoe::wire::Address;
pub(crate) use outputs::numbered;
pub use places::{Listen, Place};
pub use run::{Boot, ConsoleSink, RunConfig, TargetLoss, TraceConfig, TraceSink, default_firmware};
pub use serve::{DiscoverConfig, Export, ServeConfig};
pub use units::{Period, Size, grouped};
pub(crate) use units::{address, serde_as_text};
