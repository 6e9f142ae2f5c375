//! PCI as the guest's configuration software sees it: a function's configuration space, and the ports that reach it.

mod bar;
mod config;
pub mod filter;
mod mechanism;
mod message;
mod msix;

pub use bar::{Bar, BarChange, BarChanges, ROM};
pub use config::{ConfigSpace, Identity, command, register};
pub use filter::{Filter, Found};
pub use mechanism::{ConfigAddress, ConfigMechanism, Selected};
pub use message::Message;
pub use msix::{MsiXTable, VectorChange};
