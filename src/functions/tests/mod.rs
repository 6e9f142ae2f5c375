use std::sync::Arc;

use super::toy::{DEVICE, Toy, VENDOR};
use super::*;
use crate::boot::{Windows, resources};
use crate::kvm::Backplane;

mod machine;

const GIB: u64 = 1 << 30;

fn at(slot: u8, function: u8) -> Address {
    Address { slot, function }
}

/// Toys that are in no machine.
fn toys(addresses: &[Address]) -> Result<Functions, Misplaced> {
    let toy =
        |address: &Address| (*address, Box::new(Toy::new(Arc::new(Backplane::new()))) as Box<dyn Slotted>);
    Functions::new(addresses.iter().map(toy).collect())
}

fn read32(functions: &Functions, address: Address, offset: u16) -> u32 {
    let mut value = [0; 4];
    functions.read_config(address, offset, &mut value);
    u32::from_le_bytes(value)
}

fn write32(functions: &Functions, address: Address, offset: u16, value: u32) {
    functions.write_config(address, offset, &value.to_le_bytes());
}

#[test]
fn functions_have_places_of_their_own_where_guests_look() {
    let refused = |addresses: &[Address]| toys(addresses).err();
    assert_eq!(refused(&[at(3, 0), at(31, 0), at(31, 7)]), None);
    assert_eq!(refused(&[at(2, 0)]), Some(Misplaced::Nowhere(at(2, 0))));
    assert_eq!(refused(&[at(3, 0), at(3, 8)]), Some(Misplaced::Nowhere(at(3, 8))));
    assert_eq!(refused(&[at(32, 0)]), Some(Misplaced::Nowhere(at(32, 0))));
    assert_eq!(refused(&[at(4, 0), at(3, 0), at(4, 0)]), Some(Misplaced::Twice(at(4, 0))));
    assert_eq!(refused(&[at(3, 0), at(4, 1)]), Some(Misplaced::Headless(at(4, 1))));
}

#[test]
fn addresses_follow_the_bars_and_a_reset_takes_them_back() {
    let functions = toys(&[at(3, 0), at(4, 0)]).unwrap();
    let toy = at(4, 0);
    assert_eq!(read32(&functions, toy, 0), u32::from(DEVICE) << 16 | u32::from(VENDOR));
    assert_eq!(read32(&functions, at(5, 0), 0), u32::MAX);
    write32(&functions, toy, 0x10, 0xe000_0000);
    assert_eq!(functions.find(Space::Memory, 0xe000_0000, 4), None);
    write32(&functions, toy, 4, 3);
    let found = functions.find(Space::Memory, 0xe000_0010, 4).unwrap();
    assert_eq!(functions.describe(found), "04.0/bar0+10");
    functions.write(found, 4, &[1, 2, 3, 4]);
    let mut strings = [0; 8];
    functions.read(found, 4, &mut strings);
    assert_eq!(strings, [1, 2, 3, 4, 1, 2, 3, 4]);
    functions.reset();
    assert_eq!(functions.find(Space::Memory, 0xe000_0010, 4), None);
    assert_eq!(functions.take_accesses().collect::<Vec<_>>(), [("pci-03.0", 0, 0), ("pci-04.0", 1, 1)]);
    assert_eq!(functions.take_accesses().last(), Some(("pci-04.0", 0, 0)));
}

#[test]
fn without_firmware_bars_get_addresses_and_pins_their_interrupts() {
    let backplane = Arc::new(Backplane::new());
    let toy = |size: u64, prefetchable: bool| -> Box<dyn Slotted> {
        Box::new(Toy::new(Arc::clone(&backplane) as Arc<_>).with_large_bar(size, prefetchable))
    };
    let functions = Functions::new(vec![
        (at(3, 0), toy(32 << 20, false)),
        (at(3, 1), toy(GIB, false)),
        (at(6, 0), toy(16 * GIB, true)),
        (at(7, 0), toy(1 << 45, true)),
    ])
    .unwrap();
    let windows = Windows::new(3 * GIB, 5 * GIB, 40);
    resources::assign(&functions, &windows, [10, 10, 11, 11]);
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for address in [at(3, 0), at(3, 1), at(6, 0), at(7, 0)] {
        let [registers, ports, memory, memory_high, large, large_high] =
            [0, 1, 2, 3, 4, 5].map(|bar| u64::from(read32(&functions, address, 0x10 + 4 * bar)));
        assert!(windows.memory32.contains(&(registers as u32)), "{address}: {registers:#x}");
        assert!(windows.ports.contains(&(ports as u16 & !3)), "{address}: {ports:#x}");
        taken.push((registers, 4096));
        // Prefetchable: above 4 GiB.
        let memory = memory_high << 32 | memory & !15;
        assert!(windows.memory64.as_ref().unwrap().contains(&memory), "{address}: {memory:#x}");
        taken.push((memory, 64 << 10));
        let large = large_high << 32 | large & !15;
        match address {
            Address { slot: 3, function: 0 } => taken.push((large, 32 << 20)),
            Address { slot: 3, .. } => taken.push((large, GIB)),
            Address { slot: 6, .. } => taken.push((large, 16 * GIB)),
            _ => assert_eq!(large, 0, "there is no room for it"),
        }
        assert_eq!(read32(&functions, address, 4) & 0xffff, 0, "nothing is enabled");
    }
    taken.sort_unstable();
    assert!(taken.iter().all(|(base, size)| *base != 0 && base % size == 0), "{taken:x?}");
    assert!(taken.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{taken:x?}");
    assert!(taken.iter().any(|(base, size)| *size == 32 << 20 && *base < 4 * GIB), "{taken:x?}");
    assert!(taken.iter().any(|(base, size)| *size == GIB && *base > 4 * GIB), "{taken:x?}");
    // Slot 3, pin A: PIRQC. Slots 6 and 7: PIRQB and C.
    let line = |address| read32(&functions, address, 0x3c) & 0xff;
    assert_eq!([line(at(3, 0)), line(at(3, 1)), line(at(6, 0)), line(at(7, 0))], [11, 11, 10, 11]);
}

/// Notes where its line leads.
struct Wire(Arc<Mutex<Vec<Option<u8>>>>);

impl Slotted for Wire {
    fn name(&self) -> String {
        "wire".into()
    }

    fn read_config(&mut self, _: u16, _: &mut [u8]) {}
    fn write_config(&mut self, _: u16, _: &[u8]) -> bool {
        false
    }
    fn bar(&self, _: u8) -> Option<Bar> {
        None
    }
    fn decodes(&self) -> Vec<Decode> {
        Vec::new()
    }
    fn read(&mut self, _: Region, _: u64, _: &mut [u8]) {}
    fn write(&mut self, _: Region, _: u64, _: &[u8]) {}
    fn pin(&self) -> Option<u8> {
        Some(3)
    }
    fn route_line(&mut self, irq: Option<u8>) {
        self.0.lock().unwrap().push(irq);
    }
    fn reset(&mut self) {}
}

#[test]
fn a_line_hears_only_of_changes_of_its_own_route() {
    let heard = Arc::default();
    // Slot 4, pin D: PIRQC.
    let functions = Functions::new(vec![(at(4, 0), Box::new(Wire(Arc::clone(&heard))))]).unwrap();
    functions.route(|| [Some(10), Some(11), None, Some(5)]);
    functions.route(|| [None, None, Some(9), None]);
    functions.route(|| [Some(3), None, Some(9), None]);
    functions.route(|| [Some(3), None, Some(5), None]);
    functions.reset();
    functions.reset();
    assert_eq!(*heard.lock().unwrap(), [Some(9), Some(5), None]);
}
