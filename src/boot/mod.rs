//! From reset to a running operating system: firmware, or a kernel directly, and the tables that tell of the machine.

pub mod acpi;
pub mod firmware;
pub mod kernel;
pub mod mptable;
pub(crate) mod resources;
mod windows;

pub use self::windows::Windows;

/// What the tables say of the machine. The ACPI and the MP tables describe the same one.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Processors; their APIC IDs are 0 to `cpus` - 1.
    pub cpus: u8,
    /// First port of the power management block. SeaBIOS puts it at 600h.
    pub pm_base: u16,
    /// The ISA interrupts to which firmware, or who starts without it, has routed PIRQA to PIRQD: 10, 10, 11 and 11 with SeaBIOS.
    /// ACPI looks them up in the chipset instead.
    pub pirqs: [u8; 4],
    /// Where PCI functions may be.
    pub windows: Windows,
    /// The serial ports, COM1 first.
    pub uarts: Vec<Uart>,
    /// Whether there may be a VGA display.
    pub vga: bool,
}

/// A serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// The first of its eight ports.
    pub port: u16,
    /// Its ISA interrupt.
    pub irq: u8,
}

/// Where the local APICs are, as each processor sees its own.
const LOCAL_APIC: u32 = 0xfee0_0000;
/// Where the I/O APIC is. Its ID is 0, and input N is interrupt N but for the timer's, which is input 2.
const IO_APIC: u32 = 0xfec0_0000;
const IO_APIC_ID: u8 = 0;
/// The I/O APIC input of the interval timer.
const TIMER_INPUT: u8 = 2;
/// The System Control Interrupt.
const SCI: u8 = 9;
/// Interrupts to which PIRQs may be routed: those that no ISA device has.
const PCI_IRQS: [u8; 3] = [5, 10, 11];
/// Polarity and trigger of a level-triggered, active-high interrupt, in MADT and MP table alike. The PIIX turns PCI's active-low
/// INTx round.
const LEVEL_HIGH: u16 = 0b1101;
/// Slots on PCI bus 0.
const SLOTS: u8 = 32;

/// What makes bytes add up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}
