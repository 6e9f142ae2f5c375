//! The guest's machine as a list one can read: what answers at which ports, and on which interrupt.
//!
//! It is a PC of the i440FX kind. Not in the list, because KVM has them: the two 8259A, the I/O APIC and the local APICs, and the 8254
//! timer with port 61h.
//!
//! | function | what it is | BARs and moving blocks |
//! |---|---|---|
//! | 00:00.0 | 82441FX host bridge | |
//! | 00:01.0 | PIIX3 ISA bridge | |
//! | 00:01.1 | PIIX3 IDE | BAR 4: bus master, 16 ports |
//! | 00:01.3 | PIIX4 power management | 64 ports at the base in register 40h |
//! | 00:03.0 to 00:1f.7 | functions that are passed through | their own |
//!
//! **Why it stays an i440FX.** The disk controller is that of its PIIX3, for which every guest has a driver; a Q35 has AHCI in its place.
//! Passed-through functions need no more than there is: bus 0 has 29 free slots, which is enough for a host's devices, so that there is no
//! bridge, with windows of its own, to set up; each pin reaches one of four lines by one rule
//! ([`pirq_of`](kagero_devices::platform::pirq_of)), which firmware, ACPI and MP tables share. On bus 0 there are no PCI Express ports: an Express
//! function says there that it is integrated into the root complex.
//!
//! **Why there is no MMCONFIG.** The i440FX has none, so guests see the first 256 bytes of configuration space: everything that a driver
//! needs to work, MSI-X and power management among them. In the rest of the 4,096 lie the capabilities that would be hidden anyway (SR-IOV,
//! ARI, Resizable BAR) and error reporting, which is the host's. A guest that misses any of it sees a function that doesn't have it.
//! Functions take 16-bit offsets all the same, for a board that shows them.

use std::ops::RangeInclusive;

use kagero_devices::ide::Channel;

/// What answers at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The ISA DMA controllers and their page registers.
    IsaDma,
    /// The keyboard controller.
    I8042,
    /// Clock and CMOS memory.
    Rtc,
    /// Port 92h: A20 and a reset.
    SystemControlA,
    /// Advanced power management: where one asks for SMIs.
    Apm,
    /// A channel's command block.
    IdeCommand(Channel),
    /// A channel's control block.
    IdeControl(Channel),
    /// Both channels' bus master registers.
    IdeBusMaster,
    /// The serial port COM1.
    Uart,
    /// Firmware's log.
    DebugPort,
    /// Firmware's way to learn about the machine.
    FwCfg,
    /// PCI configuration mechanism #1, and the reset control at CF9h.
    PciConfig,
    /// ACPI's fixed hardware.
    Power,
}

/// What traces call all functions that are passed through. They are not in the list: [`Functions`](crate::functions::Functions) has them.
pub const PASSTHROUGH: &str = "passthrough";

/// Where a device's ports are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Always there.
    Fixed(RangeInclusive<u16>),
    /// So many, where the guest puts them.
    Moving(u16),
}

/// One line of the board.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is.
    pub device: Device,
    /// Where it answers.
    pub ports: Ports,
    /// The ISA interrupt that it raises.
    pub irq: Option<u8>,
}

const fn fixed(device: Device, first: u16, last: u16, irq: Option<u8>) -> Part {
    Part { device, ports: Ports::Fixed(RangeInclusive::new(first, last)), irq }
}

const fn moving(device: Device, count: u16, irq: Option<u8>) -> Part {
    Part { device, ports: Ports::Moving(count), irq }
}

/// COM1's interrupt.
pub const UART_IRQ: u8 = 4;
/// The clock's interrupt.
pub const RTC_IRQ: u8 = 8;
/// ACPI's interrupt, level triggered.
pub const SCI_IRQ: u8 = 9;
/// The interrupts of the IDE channels, primary first.
pub const IDE_IRQS: [u8; 2] = [14, 15];
/// COM1's first port.
pub const COM1: u16 = 0x3f8;

/// Where firmware puts the power management ports: SeaBIOS here, and we in its place.
pub const PM_BASE: u16 = 0x600;
/// The interrupts to which firmware routes PCI's PIRQA to PIRQD.
pub const PIRQS: [u8; 4] = [10, 10, 11, 11];

/// Writes to these ports (first, how many) have no effect that anyone could see before the next access: KVM may keep them until
/// then. They are the command blocks' parameters, from Features to Device, and the debug port.
pub const COALESCED: [(u16, u16); 3] = [(0x1f1, 6), (0x171, 6), (0x402, 1)];

/// All of it.
pub const BOARD: [Part; 19] = [
    fixed(Device::IsaDma, 0x00, 0x0f, None),
    fixed(Device::I8042, 0x60, 0x60, Some(1)),
    fixed(Device::I8042, 0x64, 0x64, Some(12)),
    fixed(Device::Rtc, 0x70, 0x71, Some(RTC_IRQ)),
    fixed(Device::IsaDma, 0x80, 0x8f, None),
    fixed(Device::SystemControlA, 0x92, 0x92, None),
    fixed(Device::Apm, 0xb2, 0xb3, None),
    fixed(Device::IsaDma, 0xc0, 0xdf, None),
    fixed(Device::IdeCommand(Channel::Secondary), 0x170, 0x177, Some(IDE_IRQS[1])),
    fixed(Device::IdeCommand(Channel::Primary), 0x1f0, 0x1f7, Some(IDE_IRQS[0])),
    fixed(Device::IdeControl(Channel::Secondary), 0x376, 0x376, None),
    fixed(Device::IdeControl(Channel::Primary), 0x3f6, 0x3f6, None),
    fixed(Device::Uart, COM1, COM1 + 7, Some(UART_IRQ)),
    fixed(Device::DebugPort, 0x402, 0x402, None),
    fixed(Device::FwCfg, 0x510, 0x511, None),
    fixed(Device::FwCfg, 0x514, 0x51b, None),
    fixed(Device::PciConfig, 0xcf8, 0xcff, None),
    moving(Device::IdeBusMaster, 16, None),
    moving(Device::Power, 64, Some(SCI_IRQ)),
];

impl Device {
    /// The device's name in traces and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Device::IsaDma => "isa-dma",
            Device::I8042 => "i8042",
            Device::Rtc => "rtc",
            Device::SystemControlA => "port-92",
            Device::Apm => "apm",
            Device::IdeCommand(_) => "ide-command",
            Device::IdeControl(_) => "ide-control",
            Device::IdeBusMaster => "ide-bus-master",
            Device::Uart => "uart",
            Device::DebugPort => "debug-port",
            Device::FwCfg => "fw-cfg",
            Device::PciConfig => "pci-config",
            Device::Power => "power",
        }
    }
}

/// The devices' names, each once.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = BOARD.iter().map(|part| part.device.name()).chain([PASSTHROUGH]).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_has_its_interrupts_for_itself() {
        let board: Vec<u8> = BOARD.iter().filter_map(|part| part.irq).collect();
        assert!(PIRQS.iter().all(|irq| !board.contains(irq)), "{board:?}");
    }

    #[test]
    fn no_port_belongs_to_two_devices() {
        let fixed: Vec<_> = BOARD
            .iter()
            .filter_map(|part| match &part.ports {
                Ports::Fixed(ports) => Some(ports),
                Ports::Moving(_) => None,
            })
            .collect();
        for pair in fixed.windows(2) {
            assert!(pair[0].end() < pair[1].start(), "{pair:x?} are in order and apart");
        }
    }
}
