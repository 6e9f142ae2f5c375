//! One disk that is served.

use alloc::vec::Vec;

use kagero_devices::storage::Disk;

use crate::wire::{Address, MacAddress};

/// One disk that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its shelf and slot.
    pub address: Address,
    /// Its size and what it calls itself.
    pub disk: Disk,
    /// Writes and trims are refused.
    pub read_only: bool,
    /// What its clients have set.
    pub settings: Settings,
}

/// What clients have set for a disk, and others see. It outlives them; whoever keeps it over a restart of the target stores it after each
/// request that changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The configuration string, at most [`MAX_CONFIG_STRING`](crate::wire::MAX_CONFIG_STRING) bytes.
    pub config: Vec<u8>,
    /// When not empty, other stations are ignored.
    pub mask: Vec<MacAddress>,
    /// When not empty, other stations get no ATA command carried out.
    pub reserved: Vec<MacAddress>,
    /// Writes may be answered before they are durable (SET FEATURES 02h and 82h).
    pub write_cache: bool,
}

impl Default for Settings {
    /// Nothing set, write cache on.
    fn default() -> Self {
        Settings { config: Vec::new(), mask: Vec::new(), reserved: Vec::new(), write_cache: true }
    }
}

impl Settings {
    /// Stations in each list, at most: what an answer can carry at the least MTU.
    pub const MAX_STATIONS: usize = 128;

    /// Whether the mask list lets this station in.
    pub(super) fn admits(&self, station: MacAddress) -> bool {
        self.mask.is_empty() || self.mask.contains(&station)
    }

    /// Whether the reservation lets this station use the disk.
    pub(super) fn may_use(&self, station: MacAddress) -> bool {
        self.reserved.is_empty() || self.reserved.contains(&station)
    }
}

impl Export {
    /// A disk that may be written to, with nothing set.
    #[must_use]
    pub fn new(address: Address, disk: Disk) -> Self {
        Export { address, disk, read_only: false, settings: Settings::default() }
    }
}
