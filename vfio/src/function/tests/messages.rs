//! MSI and MSI-X, as drivers set them up.

use super::*;
use crate::{Interrupt, Region};
use kagero_devices::pci::Message;

const ENABLE: u16 = 1 << 15;
const MASK: u16 = 1 << 14;

impl Guest {
    /// Writes an entry of the MSI-X table, from its address on.
    fn entry(&mut self, vector: u64, data: u32, masked: bool) {
        for (at, value) in [(0, 0xfee0_0000), (4, 0), (8, data), (12, u32::from(masked))] {
            self.table(vector, at, value);
        }
    }

    fn table(&mut self, vector: u64, at: u64, value: u32) {
        self.function.write(Region::Bar(0), 0x2000 + 16 * vector + at, &value.to_le_bytes());
    }

    fn pending(&mut self) -> u8 {
        let mut out = [0; 4];
        self.function.read(Region::Bar(0), 0x3000, &mut out);
        out[0]
    }

    fn control(&mut self, bits: u16) {
        self.write16(Spec::MSIX + 2, bits);
    }

    fn received(&self) -> Vec<u32> {
        self.bench.take_received().iter().map(|message| message.data).collect()
    }
}

#[test]
fn linux_enables_msix_masked_and_then_unmasks_vector_by_vector() {
    let mut guest = Guest::configured();
    guest.function.route_line(Some(11));
    let _ = guest.lines();
    guest.control(ENABLE | MASK);
    let enabled = ["disconnect line 11", "silence Intx", "ring MsiX 0 *", "ring MsiX 0 -"];
    assert_eq!(guest.effects(), enabled);
    for vector in 0..8 {
        guest.entry(vector, 0x40 + vector as u32, true);
    }
    guest.control(ENABLE);
    assert_eq!(guest.effects(), [""; 0]);
    guest.table(2, 12, 0);
    assert_eq!(guest.effects(), ["connect 0x42", "ring MsiX 2 *"]);
    assert!(guest.bench.raise(Interrupt::MsiX, 2));
    assert!(!guest.bench.raise(Interrupt::MsiX, 3));
    assert_eq!(guest.received(), [0x42]);
    guest.table(0, 12, 0);
    assert_eq!(guest.effects(), ["connect 0x40", "ring MsiX 0 *"]);
    guest.control(0);
    let lines = guest.effects();
    assert_eq!(lines[..4], ["disconnect 0x40", "disconnect 0x42", "silence MsiX", "ring Intx 0 *"]);
}

#[test]
fn windows_fills_the_table_first_and_then_enables() {
    let mut guest = Guest::configured();
    for vector in 0..3 {
        guest.entry(vector, 0x60 + vector as u32, false);
    }
    assert_eq!(guest.effects(), [""; 0]);
    guest.control(ENABLE);
    let order =
        ["ring MsiX 0 *", "connect 0x60", "connect 0x61", "ring MsiX 1 *", "connect 0x62", "ring MsiX 2 *"];
    assert_eq!(guest.effects(), order);
}

#[test]
fn a_masked_vector_waits_shows_it_and_is_sent_when_unmasked() {
    let mut guest = Guest::configured();
    guest.entry(1, 0x51, false);
    guest.control(ENABLE);
    let _ = guest.effects();
    guest.table(1, 12, 1);
    assert_eq!(guest.effects(), ["disconnect 0x51"]);
    assert_eq!(guest.pending(), 0);
    assert!(guest.bench.raise(Interrupt::MsiX, 1));
    assert_eq!((guest.received(), guest.pending()), (vec![], 0b10));
    // Where it goes may change meanwhile.
    guest.table(1, 8, 0x71);
    guest.table(1, 12, 0);
    assert_eq!(guest.effects(), ["connect 0x71"]);
    assert_eq!((guest.received(), guest.pending()), (vec![0x71], 0));
    guest.control(ENABLE | MASK);
    assert!(guest.bench.raise(Interrupt::MsiX, 1));
    assert_eq!((guest.received(), guest.pending()), (vec![], 0b10));
    guest.control(ENABLE);
    assert_eq!(guest.received(), [0x71]);
}

#[test]
fn a_message_that_changes_unmasked_is_redirected() {
    let mut guest = Guest::configured();
    guest.entry(0, 0x50, false);
    guest.control(ENABLE);
    let _ = guest.effects();
    guest.table(0, 8, 0x55);
    assert_eq!(guest.effects(), ["redirect 0x50 to 0x55"]);
}

#[test]
fn hardware_that_does_not_grow_is_given_room_for_all_at_first() {
    let mut guest = Guest::of(Spec { grows: false, ..Spec::full() });
    guest.control(ENABLE | MASK);
    assert_eq!(guest.effects(), ["ring MsiX 0 *-------", "ring MsiX 0 -"]);
    guest.control(ENABLE);
    guest.entry(7, 0x47, false);
    assert_eq!(guest.effects(), ["connect 0x47", "ring MsiX 7 *"]);
}

#[test]
fn msi_rings_before_its_enable_bit_is_set_and_with_as_many_vectors_as_there_are() {
    let mut guest = Guest::of(Spec { msi_limit: 3, ..Spec::full() });
    guest.write32(Spec::MSI + 4, 0xfee0_0000);
    guest.write16(Spec::MSI + 12, 0x30);
    guest.write16(Spec::MSI + 2, 3 << 4 | 1);
    // The real enable bit is the kernel's to set; ours stays in the filter.
    let order = ["ring Msi 0 ********", "ring Msi 0 **", "connect 0x30", "connect 0x31"];
    assert_eq!(guest.lines(), order);
    assert_eq!(guest.bench.connected()[1], Message { address: 0xfee0_0000, data: 0x31 });
    guest.write16(Spec::MSI + 2, 0);
    assert_eq!(guest.lines(), ["disconnect 0x30", "disconnect 0x31", "silence Msi"]);
}

#[test]
fn msi_vectors_are_masked_redirected_and_wait() {
    let mut guest = Guest::configured();
    guest.write16(Spec::MSI + 12, 0x30);
    guest.write16(Spec::MSI + 2, 1 << 4 | 1);
    let _ = guest.lines();
    guest.write32(Spec::MSI + 16, 0b01);
    assert_eq!(guest.effects(), ["disconnect 0x30"]);
    assert!(guest.bench.raise(Interrupt::Msi, 0));
    assert!(guest.bench.raise(Interrupt::Msi, 1));
    assert_eq!(guest.received(), [0x31]);
    assert_eq!(guest.read16(Spec::MSI + 20), 0b01);
    guest.write32(Spec::MSI + 16, 0);
    assert_eq!(guest.received(), [0x30]);
    assert_eq!(guest.read16(Spec::MSI + 20), 0);
    let _ = guest.lines();
    guest.write16(Spec::MSI + 12, 0x80);
    assert_eq!(guest.effects(), ["redirect 0x30 to 0x80", "redirect 0x31 to 0x81"]);
    // Another number of vectors: all over again.
    guest.write16(Spec::MSI + 2, 2 << 4 | 1);
    assert_eq!(guest.effects()[2..4], ["silence Msi", "ring Msi 0 ****"]);
}

#[test]
fn msix_goes_before_msi() {
    let mut guest = Guest::configured();
    guest.write16(Spec::MSI + 2, 1);
    let _ = guest.lines();
    guest.control(ENABLE);
    assert_eq!(guest.effects(), ["disconnect 0x0", "silence Msi", "ring MsiX 0 *", "ring MsiX 0 -"]);
}
