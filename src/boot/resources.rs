//! What firmware does for PCI functions before an operating system starts, where there is no firmware: gives their BARs addresses, and notes
//! which interrupts their pins have.
//!
//! Nothing is enabled: that is for the operating system. Expansion ROMs get addresses from it too, if it wants them.

use kagero_devices::pci::register;
use kagero_devices::platform::pirq_of;

use super::Windows;
use crate::functions::{Address, Functions};

/// The last BAR's register ends here (type 0 headers).
const BARS: u8 = 6;
/// Bits of a BAR that are no address (PCI Local Bus 3.0, 6.2.5.1).
const IO: u32 = 1 << 0;
const MEMORY_64: u32 = 1 << 2;
const PREFETCHABLE: u32 = 1 << 3;
/// A page of its own for each BAR: only then can it be mapped into the guest.
const PAGE: u64 = 4096;
/// A BAR of more than this is no longer for the window below 4 GiB, if it may lie above.
const LARGE: u64 = 256 << 20;

/// A BAR as it was found.
#[derive(Clone, Copy, Debug)]
struct Found {
    address: Address,
    register: u8,
    size: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ports,
    Memory32,
    Memory64 { prefetchable: bool },
}

/// A window, from which addresses are taken upwards.
struct Space {
    next: u64,
    last: u64,
}

impl Space {
    fn take(&mut self, size: u64, alignment: u64) -> Option<u64> {
        let first = self.next.checked_next_multiple_of(size.max(alignment))?;
        let last = first.checked_add(size.max(alignment) - 1)?;
        if last > self.last {
            return None;
        }
        self.next = last.checked_add(1)?;
        Some(first)
    }
}

/// Gives all BARs addresses in `windows`, and writes down the interrupts, when PIRQA to PIRQD lead to `pirqs`.
///
/// A BAR that finds no room has none: the operating system may know better.
pub(crate) fn assign(functions: &Functions, windows: &Windows, pirqs: [u8; 4]) {
    let mut bars: Vec<Found> = functions.addresses().flat_map(|address| bars(functions, address)).collect();
    // The largest first: so no room is lost between them.
    bars.sort_by_key(|bar| std::cmp::Reverse(bar.size));
    let mut ports = Space { next: (*windows.ports.start()).into(), last: (*windows.ports.end()).into() };
    let mut low = Space { next: (*windows.memory32.start()).into(), last: (*windows.memory32.end()).into() };
    // Without a window above it is one in which nothing fits.
    let mut high = match &windows.memory64 {
        Some(window) => Space { next: *window.start(), last: *window.end() },
        None => Space { next: u64::MAX, last: 0 },
    };
    for bar in bars {
        let base = match bar.kind {
            Kind::Ports => ports.take(bar.size, 1),
            Kind::Memory32 => low.take(bar.size, PAGE),
            Kind::Memory64 { prefetchable } if prefetchable || bar.size > LARGE => {
                high.take(bar.size, PAGE).or_else(|| low.take(bar.size, PAGE))
            }
            Kind::Memory64 { .. } => low.take(bar.size, PAGE).or_else(|| high.take(bar.size, PAGE)),
        };
        let Some(base) = base else {
            tracing::warn!("no room for {} bytes of function {}", bar.size, bar.address);
            continue;
        };
        write(functions, bar.address, bar.register, base as u32);
        if let Kind::Memory64 { .. } = bar.kind {
            write(functions, bar.address, bar.register + 4, (base >> 32) as u32);
        }
    }
    for address in functions.addresses() {
        let mut pin = [0];
        functions.read_config(address, register::INTERRUPT_PIN.into(), &mut pin);
        if let [pin @ 1..=4] = pin {
            let irq = pirqs[usize::from(pirq_of(address.slot, pin - 1))];
            functions.write_config(address, register::INTERRUPT_LINE.into(), &[irq]);
        }
    }
}

/// Asks a function for its BARs: writes ones, and looks what stuck. It decodes nothing as it was just reset; the BARs are zero then.
fn bars(functions: &Functions, address: Address) -> Vec<Found> {
    let mut header = [0];
    functions.read_config(address, register::HEADER_TYPE.into(), &mut header);
    let mut found = Vec::new();
    let mut index = 0;
    // Bridges, header type 1, have other registers there.
    while header[0] & 0x7f == 0 && index < BARS {
        let register = register::BAR0 + 4 * index;
        index += 1;
        let low = size_mask(functions, address, register);
        let (mask, kind) = if low & IO != 0 {
            // A function that decodes 16 bits of ports leaves the upper ones zero.
            (u64::from(low & !0b11) | 0xffff_ffff_ffff_0000, Kind::Ports)
        } else if low & MEMORY_64 != 0 && index < BARS {
            index += 1;
            let high = size_mask(functions, address, register + 4);
            let mask = u64::from(high) << 32 | u64::from(low & !0b1111);
            (mask, Kind::Memory64 { prefetchable: low & PREFETCHABLE != 0 })
        } else {
            (u64::from(low & !0b1111) | 0xffff_ffff_0000_0000, Kind::Memory32)
        };
        // Where nothing sticks there is no BAR; what is none otherwise has a size that is no power of two.
        let size = mask.wrapping_neg();
        if low != 0 && size.is_power_of_two() {
            found.push(Found { address, register, size, kind });
        }
    }
    found
}

fn size_mask(functions: &Functions, address: Address, register: u8) -> u32 {
    write(functions, address, register, u32::MAX);
    let mut mask = [0; 4];
    functions.read_config(address, register.into(), &mut mask);
    write(functions, address, register, 0);
    u32::from_le_bytes(mask)
}

fn write(functions: &Functions, address: Address, register: u8, value: u32) {
    functions.write_config(address, register.into(), &value.to_le_bytes());
}
