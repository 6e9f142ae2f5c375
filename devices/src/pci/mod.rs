//! PCI as the guest's configuration software sees it: a function's configuration space, and the ports that reach it.

mod config;
mod mechanism;
mod message;

pub use config::{Bar, BarChange, BarChanges, ConfigSpace, Identity, command, register};
pub use mechanism::{ConfigAddress, ConfigMechanism, Selected};
pub use message::Message;
