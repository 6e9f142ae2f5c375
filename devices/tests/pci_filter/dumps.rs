//! Configuration spaces like those of real functions, from their public register layouts.

use kagero_devices::pci::{Bar, Found};

#[derive(Clone, Debug)]
pub(crate) struct Dump {
    pub(crate) config: Vec<u8>,
    pub(crate) bars: [Option<Bar>; 6],
    pub(crate) rom: u32,
}

impl Dump {
    /// Identity, class code, the first capability, and INTA.
    pub(crate) fn new(length: usize, vendor: u16, device: u16, class: u32, first: u8) -> Self {
        let mut config = vec![0; length];
        // Left over from the host: I/O, memory and bus master on, line 11.
        config[..8].copy_from_slice(&[0, 0, 0, 0, 0x07, 0x04, 0x10, 0x00]);
        let dump = Dump { config, bars: [None; 6], rom: 0 };
        dump.at(0, &vendor.to_le_bytes())
            .at(2, &device.to_le_bytes())
            .at(8, &(class << 8 | 1).to_le_bytes())
            .at(0x0c, &[0x10, 0, 0, 0])
            .at(0x34, &[first])
            .at(0x3c, &[11, 1])
    }

    pub(crate) fn at(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.config[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// A BAR, with where the host has put it.
    fn bar(mut self, index: usize, bar: Bar, at: u64) -> Self {
        self.bars[index] = Some(bar);
        let (kind, length) = match bar {
            Bar::Io { .. } => (1, 4),
            Bar::Memory32 { .. } => (0, 4),
            Bar::Memory64 { prefetchable, .. } => (if prefetchable { 0xc } else { 4 }, 8),
        };
        self.at(0x10 + 4 * index, &(at | kind).to_le_bytes()[..length])
    }

    fn memory(self, index: usize, size: u32, at: u64) -> Self {
        self.bar(index, Bar::Memory32 { size, prefetchable: false }, at)
    }

    /// Header of an extended capability.
    pub(crate) fn extended(self, offset: usize, id: u16, version: u32, next: u32) -> Self {
        self.at(offset, &(u32::from(id) | version << 16 | next << 20).to_le_bytes())
    }

    /// In D0 on a root bus, with its interrupt.
    pub(crate) fn found(&self) -> Found<'_> {
        let Dump { config, bars, rom } = self;
        Found { config, bars: *bars, rom: *rom, root_bus: true, intx: true, multifunction: false }
    }
}

/// Power management at `at`: version 3, PME# from D0, D3hot and D3cold; after a change from D3hot the state is kept.
pub(crate) fn power(at: u8, next: u8, dump: Dump) -> Dump {
    dump.at(at.into(), &[0x01, next, 0x23, 0xc8, 0x08, 0x01, 0, 0])
}

/// MSI: 64-bit address, and as many vectors as 2 to this.
pub(crate) fn msi(at: u8, next: u8, vectors: u8, dump: Dump) -> Dump {
    dump.at(at.into(), &[0x05, next, 0x80 | vectors << 1, 0])
}

/// PCI Express, version 1: type, function level reset, payload of 256 bytes, 2.5 GT/s x1.
fn express_1(at: u8, next: u8, kind: u8, flr: bool, dump: Dump) -> Dump {
    let at = at.into();
    dump.at(at, &[0x10, next, 1 | kind << 4, 0])
        .at(at + 4, &[0xc1, 0x8c, 0, if flr { 0x10 } else { 0 }])
        .at(at + 8, &[0x30, 0x28, 0, 0])
        .at(at + 0x0c, &[0x11, 0x1c, 0x03, 0x00, 0x40, 0x00, 0x11, 0x10])
}

/// The same, version 2.
pub(crate) fn express(at: u8, next: u8, kind: u8, flr: bool, dump: Dump) -> Dump {
    let dump = express_1(at, next, kind, flr, dump);
    let at = usize::from(at);
    dump.at(at + 2, &[2 | kind << 4])
        .at(at + 0x24, &[0x1f, 0x08, 0, 0])
        .at(at + 0x2c, &[0x02, 0, 0, 0, 0x01, 0, 0, 0])
}

/// MSI-X: vectors, and where table and pending bits are: offset and BAR.
pub(crate) fn msix(at: u8, next: u8, vectors: u16, table: u32, pending: u32, dump: Dump) -> Dump {
    let at = at.into();
    dump.at(at, &[0x11, next])
        .at(at + 2, &(vectors - 1).to_le_bytes())
        .at(at + 4, &table.to_le_bytes())
        .at(at + 8, &pending.to_le_bytes())
}

/// Intel 82574L: three memory BARs, one of ports; power, MSI, PCI Express, MSI-X; errors, serial number.
pub(crate) fn e1000e() -> Dump {
    let mut dump = Dump::new(4096, 0x8086, 0x10d3, 0x02_00_00, 0xc8)
        .memory(0, 0x2_0000, 0xfe84_0000)
        .memory(1, 0x2_0000, 0xfe86_0000)
        .bar(2, Bar::Io { size: 32 }, 0xc000)
        .memory(3, 0x4000, 0xfe88_0000)
        .at(0x30, &[1, 0, 0x80, 0xfe])
        .extended(0x100, 0x0001, 1, 0x140)
        .extended(0x140, 0x0003, 1, 0);
    dump.rom = 0x4_0000;
    let dump = power(0xc8, 0xd0, dump);
    let dump = msi(0xd0, 0xe0, 0, dump);
    let dump = express_1(0xe0, 0xa0, 0, false, dump);
    msix(0xa0, 0, 5, 3, 0x2003, dump)
}

/// An NVMe drive that has virtual functions and a BAR of another size to offer.
pub(crate) fn nvme() -> Dump {
    let dump = Dump::new(4096, 0x1b36, 0x0010, 0x01_08_02, 0x80)
        .bar(0, Bar::Memory64 { size: 0x4000, prefetchable: false }, 0x38_0000_0000)
        .bar(2, Bar::Memory64 { size: 1 << 33, prefetchable: true }, 0x3a_0000_0000)
        .extended(0x100, 0x000e, 1, 0x148)
        .extended(0x148, 0x0010, 1, 0x1b8)
        .at(0x148 + 4, &[0x02, 0, 0, 0, 0, 0, 0, 0, 8, 0, 8, 0])
        .extended(0x1b8, 0x0001, 2, 0x200)
        .extended(0x200, 0x0015, 1, 0x220)
        .extended(0x220, 0x0003, 1, 0x240)
        .extended(0x240, 0x000f, 1, 0);
    let dump = msix(0x40, 0, 65, 0x2000, 0x3000, dump);
    let dump = power(0x60, 0x40, dump);
    express(0x80, 0x60, 0, true, dump)
}

/// An xHCI host controller.
pub(crate) fn xhci() -> Dump {
    let dump = Dump::new(4096, 0x1b36, 0x000d, 0x0c_03_30, 0x90).bar(
        0,
        Bar::Memory64 { size: 0x4000, prefetchable: false },
        0x38_0000_4000,
    );
    let dump = msix(0x90, 0xa0, 16, 0x3000, 0x3800, dump);
    express(0xa0, 0, 0, false, dump)
}

/// An ICH9's AHCI controller: ports and memory, MSI, SATA index and data ports; conventional PCI.
pub(crate) fn ahci() -> Dump {
    let dump = Dump::new(256, 0x8086, 0x2922, 0x01_06_01, 0x80)
        .bar(4, Bar::Io { size: 32 }, 0xc060)
        .memory(5, 0x1000, 0xfea1_0000)
        .at(0xa8, &[0x12, 0x00, 0x10, 0x00, 0x48, 0, 0, 0]);
    msi(0x80, 0xa8, 0, dump)
}

/// An ICH6's HD Audio controller: an integrated endpoint already.
pub(crate) fn hda() -> Dump {
    let dump = Dump::new(4096, 0x8086, 0x2668, 0x04_03_00, 0x50)
        .memory(0, 0x4000, 0xfea1_4000)
        .extended(0x100, 0x0002, 1, 0x130)
        .extended(0x130, 0x0005, 1, 0);
    let dump = power(0x50, 0x60, dump);
    let dump = msi(0x60, 0x70, 0, dump);
    express(0x70, 0, 9, true, dump)
}

pub(crate) fn all() -> [Dump; 5] {
    [e1000e(), nvme(), xhci(), ahci(), hda()]
}
