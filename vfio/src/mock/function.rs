//! What a mock function consists of.

use std::ops::Range;

use kagero_devices::pci::Bar;

/// A function, with its configuration space.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Configuration space as the hardware says.
    pub config: Vec<u8>,
    /// What the BARs ask for.
    pub bars: [Option<Bar>; 6],
    /// Bytes of the ROM.
    pub rom: u64,
    /// What may be mapped, by BAR.
    pub areas: Vec<(u8, Range<u64>)>,
    /// Whether the pin can be used.
    pub intx: bool,
    /// Vectors of MSI.
    pub msi: u32,
    /// How many of them the host has left.
    pub msi_limit: u32,
    /// Vectors of MSI-X.
    pub msix: u32,
    /// Whether further vectors can be had later.
    pub grows: bool,
    /// Whether it has a reset of its own.
    pub reset: bool,
    /// Whether its bus can be reset.
    pub bus_reset: bool,
}

impl Spec {
    /// Where the capabilities of [`full`](Self::full) are.
    pub const POWER: u16 = 0x40;
    /// MSI: 64 bits, masks.
    pub const MSI: u16 = 0x50;
    /// MSI-X: the table at 2000h of BAR 0, the pending bits at 3000h.
    pub const MSIX: u16 = 0x70;
    /// PCI Express with function level reset.
    pub const EXPRESS: u16 = 0x80;

    /// A function with all that there is: BAR 0 with 64 KiB of registers, BAR 2 with 32 ports, BAR 4 with 1 MiB of 64-bit memory, a ROM,
    /// INTB, eight vectors of MSI and of MSI-X, power management, function level reset.
    #[must_use]
    pub fn full() -> Self {
        let mut config = vec![0; 256];
        let mut put = |offset: u16, bytes: &[u8]| {
            config[usize::from(offset)..][..bytes.len()].copy_from_slice(bytes);
        };
        put(0, &[0x86, 0x80, 0xd3, 0x10]);
        put(0x06, &[0x10, 0]);
        put(0x08, &[0, 0, 0, 2]);
        put(0x34, &[Self::POWER as u8]);
        put(0x3d, &[2]);
        // Version 3; D1 and D2 too.
        put(Self::POWER, &[0x01, Self::MSI as u8, 0x03, 0x06]);
        put(Self::MSI, &[0x05, Self::MSIX as u8, 0x86, 0x01]);
        put(Self::MSIX, &[0x11, Self::EXPRESS as u8, 7, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0]);
        put(Self::EXPRESS, &[0x10, 0, 0x02, 0, 0, 0, 0, 0x10]);
        Spec {
            config,
            bars: [
                Some(Bar::Memory32 { size: 0x1_0000, prefetchable: false }),
                None,
                Some(Bar::Io { size: 32 }),
                None,
                Some(Bar::Memory64 { size: 0x10_0000, prefetchable: true }),
                None,
            ],
            rom: 0x8000,
            areas: vec![(0, 0..0x1_0000), (4, 0..0x10_0000)],
            intx: true,
            msi: 8,
            msi_limit: 8,
            msix: 8,
            grows: true,
            reset: true,
            bus_reset: false,
        }
    }
}
