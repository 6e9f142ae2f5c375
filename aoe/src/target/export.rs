//! One disk that is served.

use alloc::vec::Vec;

use kagero_devices::ata::Drive;
use kagero_devices::ata::identify::Position;
use kagero_devices::storage::Disk;

use super::answer::Body;
use super::{Admission, Answer, Port};
use crate::wire::{Address, Command, ConfigCommand, Header, MacAddress};

/// One disk that is served.
#[derive(Clone, Debug)]
pub struct Export {
    /// Its shelf and slot.
    pub address: Address,
    /// The drive that its clients share: what it calls itself, and what SET FEATURES and its like have set.
    pub(super) drive: Drive,
    /// Writes and trims are refused.
    pub read_only: bool,
    /// Who may reach it.
    pub admission: Admission,
    /// What its clients have set.
    pub settings: Settings,
}

/// What clients have set for a disk, and others see. It outlives them; whoever keeps it over a restart of the target stores it after each
/// request that changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The configuration string, at most [`MAX_CONFIG_STRING`](crate::wire::MAX_CONFIG_STRING) bytes.
    pub config: Vec<u8>,
    /// When not empty, other stations are ignored.
    pub mask: Vec<MacAddress>,
    /// When not empty, other stations get no ATA command carried out.
    pub reserved: Vec<MacAddress>,
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
        let drive = Drive::new(disk, Position::Device0);
        Export {
            address,
            drive,
            read_only: false,
            admission: Admission::default(),
            settings: Settings::default(),
        }
    }

    /// Another size, in sectors. Who uses the disk learns it when it next identifies it; what it has set stays.
    pub fn resize(&mut self, sectors: u64) {
        self.drive.resize(sectors);
    }

    /// The answers to a question that nobody asked: see [`Target::announcements`](super::Target::announcements).
    pub fn announcements(&self, port: &Port) -> impl Iterator<Item = Answer> + use<'_> {
        let (mac, address) = (port.mac, self.address);
        self.admission.audience(port).iter().map(move |&to| {
            let query = Header::request(to, mac, address, Command::Config, 0);
            Answer { header: query.answer(mac, address), body: Body::Config(ConfigCommand::Read) }
        })
    }

    /// Its size and what it calls itself.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        self.drive.disk()
    }
}
