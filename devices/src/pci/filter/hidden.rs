//! The capabilities that a guest can't be given, and why.
//!
//! Whatever is not named here is given: a function's own affairs (vital product data, vendor specific registers, serial numbers, error
//! reporting), and what nobody has heard of yet.

/// Bytes of a standard capability that must be hidden. IDs are those of the PCI Code and ID Assignment Specification.
pub(super) fn standard(id: u16) -> Option<u16> {
    Some(match id {
        // AGP, and AGP 8x: the guest's machine has no such port.
        0x02 => 0x30,
        0x0e => 0x10,
        // Slot identification, the hot swap of CompactPCI, central resource control, hot-plug, a bridge's subsystem: of slots and
        // bridges, which are the host's.
        0x04 | 0x06 | 0x0b => 4,
        0x0c | 0x0d => 8,
        // HyperTransport: its interrupt block would send what the guest likes.
        0x08 => 0x1c,
        // Secure device: that is an IOMMU.
        0x0f => 0x18,
        // Enhanced allocation: fixed addresses of the host in place of BARs.
        0x14 => 0x100,
        // Flattening portal bridge.
        0x15 => 0x24,
        _ => return None,
    })
}

/// Bytes of an extended capability that must be hidden.
pub(super) fn extended(id: u16) -> Option<u16> {
    Some(match id {
        // SR-IOV and MR-IOV: virtual functions are for the host to make, and would be outside of the guest's machine.
        0x10 => 0x40,
        0x11 => 0x30,
        // ARI: its next function need not be one of the guest's; nor is there a port above that knows of it.
        0x0e => 8,
        // Resizable BARs, and those of virtual functions: the host has made room for the sizes that there are.
        0x15 | 0x24 => 4 + 6 * 8,
        // Access control: what keeps functions apart is the host's.
        0x0d => 0x20,
        // Address translation, page requests, process address spaces: with them a function may pass the IOMMU by.
        0x0f => 8,
        0x13 => 0x10,
        0x1b => 8,
        // Multicast: packets to and from functions that are not the guest's.
        0x12 => 0x30,
        // Processing hints: steering tags name the host's processors.
        0x17 => 0x0c + 64 * 2,
        // Of links, whose other end is the host's: multi-function virtual channels, secondary PCI Express, protocol multiplexing,
        // L1 substates, precision time, data link features, the physical layers, lane margining, alternate protocols, integrity and
        // encryption.
        0x08 => 0x1c,
        0x19 => 0x0c + 32 * 2,
        0x1a => 0x10,
        0x1e => 0x14,
        0x1f => 0x0c,
        0x25 => 0x0c,
        0x26 | 0x2a | 0x31 => 0x40,
        0x27 => 4 + 32 * 4,
        0x2b => 0x10,
        0x30 => 0x100,
        // Of root complexes and ports, which describe the host's machine: link declaration and internal link control, event
        // collectors, register blocks, configuration access correlation, downstream port containment, system firmware intermediary,
        // shadow functions.
        0x05 => 0x100,
        0x06 => 0x0c,
        0x07 => 0x0c,
        0x0a => 0x14,
        0x0c => 0x08,
        0x1d => 0x60,
        0x2c => 0x14,
        0x2d => 0x80,
        _ => return None,
    })
}
