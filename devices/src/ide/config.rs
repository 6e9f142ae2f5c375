//! The controller as a PCI function: the IDE function of Intel's PIIX3 (82371SB, 2.2).

use super::Channel;
use crate::pci::{Bar, BarChanges, ConfigSpace, Identity, command, register};

/// IDE Timing of the primary channel, 16 bits; the secondary's follows.
const IDETIM: u8 = 0x40;
/// IDETIM's upper byte: the channel's ports are decoded.
const DECODE: u8 = 1 << 7;
/// The BAR with the bus master's 16 ports.
const BUS_MASTER: u8 = 4;

/// The configuration space, and what the controller reads from it.
#[derive(Clone, Debug)]
pub(super) struct Config(ConfigSpace);

impl Config {
    pub(super) fn new() -> Self {
        let identity = Identity { vendor: 0x8086, device: 0x7010, class: 0x01_01_80, revision: 1 };
        let enables = command::IO | command::MASTER;
        Config(
            ConfigSpace::new(identity)
                .with_writable(register::COMMAND, &enables.to_le_bytes())
                .with_value(register::STATUS, &0x0280u16.to_le_bytes())
                .with_bar(BUS_MASTER, Bar::Io { size: 16 })
                // Linux (ata_piix) skips a channel whose decode bit is clear; SeaBIOS sets both itself.
                .with_value(IDETIM, &[0, DECODE, 0, DECODE])
                .with_writable(IDETIM, &[0xff; 4])
                // Timing that later members of the family have, for drivers that write and compare:
                // SIDETIM, UDMACTL, UDMATIM, IDE_CONFIG. Nothing here depends on it.
                .with_writable(0x44, &[0xff])
                .with_writable(0x48, &[0x0f])
                .with_writable(0x4a, &[0x33, 0x33])
                .with_writable(0x54, &[0xff, 0xff]),
        )
    }

    pub(super) fn reset(&mut self) -> BarChanges {
        let Self(space) = self;
        space.reset()
    }

    pub(super) fn read(&self, offset: u8, out: &mut [u8]) {
        self.0.read(offset, out);
    }

    pub(super) fn write(&mut self, offset: u8, data: &[u8]) -> BarChanges {
        self.0.write(offset, data)
    }

    /// Whether the channel's own ports answer.
    pub(super) fn decodes(&self, channel: Channel) -> bool {
        self.0.byte(IDETIM + 2 * channel as u8 + 1) & DECODE != 0
    }

    /// Whether the controller may access memory.
    pub(super) fn masters(&self) -> bool {
        self.0.command() & command::MASTER != 0
    }

    /// Where the bus master's ports are.
    pub(super) fn bus_master(&self) -> Option<u16> {
        self.0.decoded(BUS_MASTER).and_then(|base| u16::try_from(base).ok())
    }
}
