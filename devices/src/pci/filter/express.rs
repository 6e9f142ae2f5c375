//! The PCI Express capability (PCI Express Base 4.0, 7.5.3), and the two ways to ask for a function level reset.

use super::capability::{Capability, byte, dword, word};
use super::table::Table;

/// PCI Express Capabilities: version and type in the low byte.
const TYPE: u16 = 0x02;
/// Device Capabilities, 32 bits; bit 28: function level reset.
const DEVICE: u16 = 0x04;
const DEVICE_RESET: u32 = 1 << 28;
/// Device Control, 16 bits.
const CONTROL: u16 = 0x08;
/// Device Control: Max_Payload_Size.
const PAYLOAD: u16 = 7 << 5;
/// Device Control: Phantom Functions Enable.
const PHANTOM: u16 = 1 << 9;
/// Device Control: Initiate Function Level Reset; reads as zero.
const RESET: u16 = 1 << 15;
/// Link Capabilities, Link Control and Link Status. What follows belongs to ports with slots, and to root ports.
const LINK: (u16, u16) = (0x0c, 8);
/// Link Capabilities 2, Link Control 2 and Link Status 2.
const LINK_2: (u16, u16) = (0x2c, 8);
/// Up to Device Control and Status, which every function has.
const LEAST: u16 = 0x0c;

/// A bit that asks for a function level reset when a one is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResetBit {
    offset: u16,
    mask: u8,
}

impl ResetBit {
    /// Whether this write sets it.
    pub(super) fn is_set_by(self, offset: u16, data: &[u8]) -> bool {
        let at = self.offset.checked_sub(offset).and_then(|at| data.get(usize::from(at)));
        at.is_some_and(|byte| byte & self.mask != 0)
    }
}

/// Device and port types (7.5.3.2).
mod kind {
    pub(super) const ENDPOINT: u8 = 0;
    pub(super) const LEGACY_ENDPOINT: u8 = 1;
    pub(super) const INTEGRATED_ENDPOINT: u8 = 9;
}

/// Holds what is not the guest's to change. `None` when the function is better off without the capability, otherwise how it is reset.
pub(super) fn express(
    capability: Capability,
    config: &[u8],
    root_bus: bool,
    table: &mut Table,
) -> Option<Option<ResetBit>> {
    let Capability { offset, room, .. } = capability;
    if room < LEAST {
        return None;
    }
    let flags = byte(config, offset + TYPE);
    let (version, found) = (flags & 0xf, flags >> 4);
    let kind = match found {
        // Windows gives Code 10 to an endpoint on a root bus: there is no port above it.
        kind::ENDPOINT if root_bus => kind::INTEGRATED_ENDPOINT,
        // Those have no integrated form (they may lock the bus, and need I/O ports); without the capability they are PCI functions.
        kind::LEGACY_ENDPOINT if root_bus => return None,
        other => other,
    };
    table.hold(offset + TYPE, &[kind << 4 | version]);
    if kind == kind::INTEGRATED_ENDPOINT {
        // It has no link, and all that would describe one reads as zero (7.5.3).
        for (register, length) in [LINK, LINK_2].into_iter().take(if version >= 2 { 2 } else { 1 }) {
            table.hide(offset + register, length.min(room.saturating_sub(register)));
        }
    }
    // Max_Payload_Size must be that of the ports above (7.5.3.4), which are the host's; a phantom function's number is a requester ID that
    // the IOMMU does not know.
    let control = word(config, offset + CONTROL) & PAYLOAD;
    table.hold_bits(offset + CONTROL, &(PAYLOAD | PHANTOM | RESET).to_le_bytes(), &control.to_le_bytes());
    let resets = dword(config, offset + DEVICE).is_some_and(|device| device & DEVICE_RESET != 0);
    Some(resets.then_some(ResetBit { offset: offset + CONTROL + 1, mask: (RESET >> 8) as u8 }))
}

/// The same reset for a function of conventional PCI (Advanced Capabilities for Conventional PCI ECN): capabilities at 3, control at 4, status at 5.
pub(super) fn advanced_features(
    capability: Capability,
    config: &[u8],
    table: &mut Table,
) -> Option<Option<ResetBit>> {
    const RESET_CAPABLE: u8 = 1 << 1;
    const RESET: u8 = 1 << 0;
    let Capability { offset, room, .. } = capability;
    if room < 6 {
        return None;
    }
    table.hide(offset + 4, 1);
    let resets = byte(config, offset + 3) & RESET_CAPABLE != 0;
    Some(resets.then_some(ResetBit { offset: offset + 4, mask: RESET }))
}
