//! Looking at a function once, and deciding whose what is.

use alloc::vec::Vec;

use super::capability::{self, Capability, STATUS_LIST};
use super::express;
use super::hidden;
use super::messages::{MsiRegisters, MsiXRegisters};
use super::power::Power;
use super::{COMMAND, Filter, Found};
use crate::pci::bar;
use crate::pci::register;

impl Filter {
    pub(super) fn hold_header(&mut self, found: &Found<'_>) {
        let table = &mut self.table;
        table.hold_bits(register::COMMAND.into(), &COMMAND.to_le_bytes(), &[0, 0]);
        table.allow(register::COMMAND.into(), &COMMAND.to_le_bytes());
        table.hold(register::HEADER_TYPE.into(), &[u8::from(found.multifunction) << 7]);
        // A self test may take the function away for seconds, and need not end at all.
        table.hide(register::BIST.into(), 1);
        table.hide(register::BAR0.into(), 24);
        table.hide(register::ROM.into(), 4);
        for register in (0..=bar::ROM).filter_map(|index| self.bars.register(index)) {
            table.hold(register.offset.into(), register.preset());
            table.allow(register.offset.into(), register.writable());
        }
        table.hide(register::INTERRUPT_LINE.into(), 2);
        table.allow(register::INTERRUPT_LINE.into(), &[0xff]);
        let pin = capability::byte(found.config, register::INTERRUPT_PIN.into());
        if found.intx && (1..=4).contains(&pin) {
            table.hold(register::INTERRUPT_PIN.into(), &[pin]);
        }
    }

    pub(super) fn hold_standard(&mut self, found: &Found<'_>, config: &[u8]) {
        let mut at = u16::from(register::CAPABILITIES);
        self.table.hide(at, 1);
        let all = capability::standard(config);
        for (i, &capability) in all.iter().enumerate() {
            // Drivers look at the first of a kind.
            let repeated = all.iter().take(i).any(|earlier| earlier.id == capability.id);
            if self.show(capability, repeated, found, config) {
                // The list leads here from the last one that is shown, and for now ends.
                self.table.hold(at, &[capability.offset as u8]);
                self.table.hold(capability.offset, &[capability.id as u8, 0]);
                at = capability.offset + 1;
            } else {
                let length = hidden::standard(capability.id).unwrap_or(id::length(capability.id));
                self.table.hide(capability.offset, length.min(capability.room));
            }
        }
        let listed = if at == register::CAPABILITIES.into() { 0 } else { STATUS_LIST };
        self.table.hold_bits(register::STATUS.into(), &[STATUS_LIST], &[listed]);
    }

    /// Decides on a standard capability, and holds of its registers what must be. One that makes no sense is not shown.
    fn show(&mut self, capability: Capability, repeated: bool, found: &Found<'_>, config: &[u8]) -> bool {
        let table = &mut self.table;
        match capability.id {
            id::POWER | id::MSI | id::MSIX | id::EXPRESS | id::ADVANCED_FEATURES if repeated => false,
            id::POWER => {
                self.power = Power::new(capability, config, table);
                self.power.is_some()
            }
            id::MSI => {
                self.msi = MsiRegisters::new(capability, config, table);
                self.msi.is_some()
            }
            id::MSIX => {
                self.msix = MsiXRegisters::new(capability, config, &self.bars, table);
                self.msix.is_some()
            }
            id::EXPRESS => {
                let shown = express::express(capability, config, found.root_bus, table);
                self.resets[0] = shown.flatten();
                shown.is_some()
            }
            id::ADVANCED_FEATURES => {
                let shown = express::advanced_features(capability, config, table);
                self.resets[1] = shown.flatten();
                shown.is_some()
            }
            id => hidden::standard(id).is_none(),
        }
    }

    pub(super) fn hold_extended(&mut self, config: &[u8]) {
        let mut shown = Vec::new();
        for capability in capability::extended(config) {
            match hidden::extended(capability.id) {
                Some(length) => self.table.hide(capability.offset, length.min(capability.room)),
                None => shown.push(capability),
            }
        }
        // The list has no pointer to its start: when the first one is hidden, one that says nothing stays for the rest to follow
        // (ID 0: PCI Express Base 4.0, 7.6.1).
        let null = Capability { offset: capability::FIRST_EXTENDED, id: 0, version: 0, room: 4 };
        if shown.first().is_some_and(|first| first.offset != null.offset) {
            shown.insert(0, null);
        }
        // Without a list, what is there must not turn into one.
        self.table.hide(null.offset, null.room);
        for (i, &Capability { offset, id, version, .. }) in shown.iter().enumerate() {
            let next = shown.get(i + 1).map_or(0, |next| u32::from(next.offset));
            let header = u32::from(id) | u32::from(version) << 16 | next << 20;
            self.table.hold(offset, &header.to_le_bytes());
        }
    }
}

/// Standard capabilities that are ours, in part or wholly.
mod id {
    pub(super) const POWER: u16 = 0x01;
    pub(super) const MSI: u16 = 0x05;
    pub(super) const EXPRESS: u16 = 0x10;
    pub(super) const MSIX: u16 = 0x11;
    pub(super) const ADVANCED_FEATURES: u16 = 0x13;

    /// Bytes of them, where they are hidden after all.
    pub(super) fn length(id: u16) -> u16 {
        match id {
            POWER => 8,
            MSI => 0x18,
            EXPRESS => 0x3c,
            MSIX => 12,
            ADVANCED_FEATURES => 6,
            _ => 2,
        }
    }
}
