//! What firmware does for PCI functions before an operating system starts, where there is no firmware: gives their BARs addresses, and notes
//! which interrupts their pins have.
//!
//! Nothing is enabled: that is for the operating system. Expansion ROMs get addresses from it too, if it wants them.

use kagero_devices::pci::{Bar, register};
use kagero_devices::platform::pirq_of;

use super::Windows;
use crate::functions::{Address, Functions};

/// A page of its own for each BAR: only then can it be mapped into the guest.
const PAGE: u64 = 4096;
/// A BAR of more than this is no longer for the window below 4 GiB, if it may lie above.
const LARGE: u64 = 256 << 20;

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
    let bars_of =
        |address| (0..6).filter_map(move |index| Some((address, index, functions.bar(address, index)?)));
    let mut bars: Vec<(Address, u8, Bar)> = functions.addresses().flat_map(bars_of).collect();
    // The largest first: so no room is lost between them.
    bars.sort_by_key(|(_, _, bar)| std::cmp::Reverse(bar.size()));
    let mut ports = Space { next: (*windows.ports.start()).into(), last: (*windows.ports.end()).into() };
    let mut low = Space { next: (*windows.memory32.start()).into(), last: (*windows.memory32.end()).into() };
    // Without a window above it is one in which nothing fits.
    let mut high = match &windows.memory64 {
        Some(window) => Space { next: *window.start(), last: *window.end() },
        None => Space { next: u64::MAX, last: 0 },
    };
    for (address, index, bar) in bars {
        let size = bar.size();
        let base = match bar {
            Bar::Io { .. } => ports.take(size, 1),
            Bar::Memory32 { .. } => low.take(size, PAGE),
            Bar::Memory64 { prefetchable, .. } if prefetchable || size > LARGE => {
                high.take(size, PAGE).or_else(|| low.take(size, PAGE))
            }
            Bar::Memory64 { .. } => low.take(size, PAGE).or_else(|| high.take(size, PAGE)),
        };
        let Some(base) = base else {
            tracing::warn!("no room for {size} bytes of function {address}");
            continue;
        };
        let register = register::BAR0 + 4 * index;
        let (low, high) = (base as u32, (base >> 32) as u32);
        functions.write_config(address, register.into(), &low.to_le_bytes());
        if let Bar::Memory64 { .. } = bar {
            functions.write_config(address, (register + 4).into(), &high.to_le_bytes());
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
