//! MSI and MSI-X.

use kagero_devices::pci::Message;
use kagero_devices::pci::filter::Place;

use crate::dumps::{self, Dump};
use crate::guest::Guest;

#[test]
fn msi_is_the_guests_own() {
    // Eight vectors that can be masked.
    let dump = dumps::msi(0x80, 0, 3, dumps::ahci()).at(0x83, &[1]);
    let mut guest = Guest::new(&dump);
    assert!(guest.write_dword(0x84, 0xfee0_1003).msi);
    assert!(!guest.write_dword(0x84, 0xfee0_1000).msi, "the low bits are not there");
    assert!(guest.write_word(0x8c, 0x4047).msi);
    assert!(guest.write_word(0x82, 0xff21).msi);
    assert_eq!(guest.dword(0x80), 0x01a7_0005, "four vectors, enabled; 64 bits, masks, eight could be");
    assert!(guest.write_dword(0x90, 0xffff_ff02).msi);
    assert_eq!(guest.dword(0x90), 2);
    let msi = guest.filter.msi().unwrap();
    assert_eq!((msi.offset, msi.capable, msi.vectors, msi.enabled, msi.masked), (0x80, 8, 4, true, 2));
    let message = |data| Some(Message { address: 0xfee0_1000, data });
    assert_eq!(msi.first, message(0x4047).unwrap());
    let messages: Vec<_> = (0..5).map(|vector| msi.message(vector)).collect();
    assert_eq!(messages, [message(0x4044), None, message(0x4046), message(0x4047), None]);
    assert_eq!(msi.message(!0), None);

    assert_eq!(guest.write_dword(0x94, !0).forwards, []);
    assert_eq!(guest.dword(0x94), 0);
    guest.filter.set_msi_pending(2);
    assert_eq!(guest.dword(0x94), 2);
    assert!(guest.write_dword(0x88, 1).msi);
    assert_eq!(guest.filter.msi().unwrap().first.address, 0x1_fee0_1000);
    assert!(guest.write_word(0x82, 0x70).msi, "128 vectors: reserved");
    assert_eq!(guest.filter.msi().unwrap().vectors, 8);
    assert_eq!(guest.hardware, dump.config, "none of it reaches the hardware");

    assert!(guest.filter.reset().msi);
    let msi = guest.filter.msi().unwrap();
    assert_eq!((msi.enabled, msi.vectors, msi.first, msi.masked), (false, 1, Message::default(), 0));
    assert_eq!(guest.dword(0x94), 0);
}

#[test]
fn msi_comes_in_four_layouts() {
    for (bits, length, data) in [(0x0000, 10, 8), (0x0080, 14, 12), (0x0100, 20, 8), (0x0180, 24, 12)] {
        // A register of the function's own follows, where it can.
        let dump = dumps::ahci().at(0x80, &[5, 0]).at(0x82, &u16::to_le_bytes(bits | 5 << 1));
        let mut guest = Guest::new(&dump);
        assert!(guest.write(0x80, &vec![0xff; length.into()]).forwards.is_empty());
        assert_eq!(guest.word(0x80 + data), 0xffff);
        let msi = guest.filter.msi().unwrap();
        assert_eq!((msi.capable, msi.masked), (32, if bits & 0x100 != 0 { !0 } else { 0 }));
        assert_eq!(guest.write(0x80 + length, &[1]).forwards.len(), 1);
    }
    let reserved = Guest::new(&dumps::msi(0x80, 0xa8, 6, dumps::ahci()));
    assert_eq!(reserved.capabilities(), [(0xa8, 0x12)]);
}

#[test]
fn msix_is_enabled_and_masked() {
    let dump = dumps::nvme();
    let mut guest = Guest::new(&dump);
    let msix = guest.filter.msix().unwrap();
    assert_eq!((msix.offset, msix.vectors, msix.enabled, msix.masked), (0x40, 65, false, false));
    let place = |bar, offset| Place { bar, offset };
    assert_eq!((msix.table, msix.pending), (place(0, 0x2000), place(0, 0x3000)));
    let outcome = guest.write(0x40, &[0xff; 12]);
    assert!(outcome.msix && outcome.forwards.is_empty());
    let msix = guest.filter.msix().unwrap();
    assert_eq!((msix.vectors, msix.enabled, msix.masked), (65, true, true));
    assert_eq!(guest.dword(0x40), 0xc040_0011);
    assert_eq!(guest.dword(0x44), 0x2000);
    assert!(!guest.write_word(0x42, 0xc000).msix);
    assert!(guest.write(0x43, &[0x80]).msix);
    assert!(!guest.filter.msix().unwrap().masked);
    assert!(guest.filter.reset().msix);
    assert!(!guest.filter.msix().unwrap().enabled);
    let msix = Guest::new(&dumps::e1000e()).filter.msix().unwrap();
    assert_eq!((msix.table, msix.pending), (place(3, 0), place(3, 0x2000)));
}

#[test]
fn a_table_outside_of_its_bar_is_none() {
    let with =
        |vectors, table, pending| -> Dump { dumps::msix(0x40, 0, vectors, table, pending, dumps::nvme()) };
    for (vectors, table, pending) in [
        (65, 0x2001, 0x3000), // the upper half of BAR 0
        (65, 0x2000, 0x3006), // no such BAR
        (1025, 0, 0x8000),    // past its end
        (1024, 0x8, 0x0000),  // the same
    ] {
        let guest = Guest::new(&with(vectors, table, pending));
        assert_eq!(guest.capabilities(), [(0x80, 0x10), (0x60, 1)], "{vectors} {table:#x} {pending:#x}");
        assert_eq!(guest.filter.msix(), None);
        assert_eq!(guest.bytes(0x40, 12), [0; 12]);
    }
    assert!(Guest::new(&with(1024, 0, 0x3f80)).filter.msix().is_some(), "up to its very end");
}
