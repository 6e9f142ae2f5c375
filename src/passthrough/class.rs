//! Class codes in words.

/// A function's class: base class, sub-class and programming interface, as in its configuration space from 0Bh down to 09h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(pub u32);

/// What people call it. From the PCI Code and ID Assignment Specification; the most common only.
const NAMES: [(u32, &str); 33] = [
    (0x0100, "SCSI controller"),
    (0x0101, "IDE controller"),
    (0x0104, "RAID controller"),
    (0x0106, "SATA controller"),
    (0x0107, "SAS controller"),
    (0x0108, "NVMe controller"),
    (0x0200, "Ethernet controller"),
    (0x0207, "InfiniBand controller"),
    (0x0280, "network controller"),
    (0x0300, "VGA display"),
    (0x0302, "3D controller"),
    (0x0380, "display"),
    (0x0400, "video device"),
    (0x0401, "audio device"),
    (0x0403, "HD audio device"),
    (0x0500, "RAM"),
    (0x0600, "host bridge"),
    (0x0601, "ISA bridge"),
    (0x0604, "PCI bridge"),
    (0x0607, "CardBus bridge"),
    (0x0700, "serial port"),
    (0x0703, "modem"),
    (0x0780, "communication controller"),
    (0x0805, "SD controller"),
    (0x0806, "IOMMU"),
    (0x0807, "root complex event collector"),
    (0x0880, "system device"),
    (0x0c00, "FireWire controller"),
    (0x0c03, "USB controller"),
    (0x0c05, "SMBus controller"),
    (0x0d11, "Bluetooth controller"),
    (0x1080, "encryption controller"),
    (0x1180, "signal processing controller"),
];

/// What is left of it when only the base class is known.
const BASE: [(u32, &str); 16] = [
    (0x01, "storage controller"),
    (0x02, "network controller"),
    (0x03, "display"),
    (0x04, "multimedia device"),
    (0x05, "memory controller"),
    (0x06, "bridge"),
    (0x07, "communication controller"),
    (0x08, "system device"),
    (0x09, "input device"),
    (0x0b, "processor"),
    (0x0c, "serial bus controller"),
    (0x0d, "wireless controller"),
    (0x10, "encryption controller"),
    (0x11, "signal processing controller"),
    (0x12, "accelerator"),
    (0x13, "instrumentation"),
];

impl Class {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        let find = |names: &[(u32, &'static str)], code| {
            names.iter().find(|(known, _)| *known == code).map(|found| found.1)
        };
        find(&NAMES, self.0 >> 8).or_else(|| find(&BASE, self.0 >> 16)).unwrap_or("device")
    }

    /// Whether it is a bridge: what leads to others, and never to the guest.
    #[must_use]
    pub fn is_bridge(self) -> bool {
        self.0 >> 16 == 0x06
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_names() {
        let names =
            [0x01_0802, 0x0c_0330, 0x06_8000, 0x02_ff00, 0xff_ff00, u32::MAX].map(|code| Class(code).name());
        assert_eq!(
            names,
            ["NVMe controller", "USB controller", "bridge", "network controller", "device", "device"]
        );
        assert!(Class(0x06_0100).is_bridge() && !Class(0x08_0600).is_bridge());
    }
}
