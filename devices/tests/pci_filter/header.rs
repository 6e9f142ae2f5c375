//! The first 64 bytes, and what of a write goes on.

use kagero_devices::pci::filter::Forward;
use kagero_devices::pci::{Filter, Found};

use crate::dumps;
use crate::guest::Guest;

#[test]
fn says_who_it_is_and_what_slot_it_is_in() {
    let dump = dumps::e1000e();
    let mut guest = Guest::new(&dump);
    assert_eq!(guest.dword(0), 0x10d3_8086);
    assert_eq!((guest.byte(0x0e), guest.byte(0x3c), guest.byte(0x3d)), (0, 0, 1), "not the host's line");
    assert_eq!(guest.write(0x3c, &[10, 4]).forwards, []);
    assert_eq!(guest.word(0x3c), 0x010a);
    let guest = Guest::with(&dump, |found| Found { intx: false, multifunction: true, ..found });
    assert_eq!((guest.byte(0x0e), guest.byte(0x3d)), (0x80, 0));
}

#[test]
fn a_self_test_is_not_started() {
    let mut guest = Guest::new(&dumps::e1000e().at(0x0f, &[0x80]));
    assert_eq!(guest.byte(0x0f), 0);
    assert_eq!(guest.write(0x0c, &[0x08, 0, 0, 0x40]).forwards.len(), 1);
    assert_eq!((guest.hardware[0x0c], guest.hardware[0x0f]), (8, 0x80));
}

#[test]
fn writes_go_on_as_the_bus_has_them() {
    let mut guest = Guest::new(&dumps::ahci());
    let mut forwards = |offset, data: &[u8]| -> Vec<(u16, Vec<u8>)> {
        let of = |forward: &Forward| (forward.offset, forward.data().to_vec());
        guest.write(offset, data).forwards.iter().map(of).collect()
    };
    assert_eq!(forwards(0xc0, &[1, 2, 3, 4]), [(0xc0, vec![1, 2, 3, 4])]);
    assert_eq!(forwards(0x3c, &[1, 2, 3, 4]), [(0x3e, vec![3, 4])]);
    assert_eq!(forwards(0xc1, &[1, 2, 3]), [(0xc1, vec![1]), (0xc2, vec![2, 3])]);
    assert_eq!(forwards(0xfe, &[1, 2, 3, 4]), [(0xfe, vec![1, 2])], "conventional PCI ends there");
    assert_eq!(forwards(0x100, &[1, 2, 3, 4]), []);
    assert_eq!(forwards(0xffff, &[1, 2, 3, 4]), []);
}

#[test]
fn a_space_of_any_length_will_do() {
    for dump in dumps::all() {
        for length in (0..=300).chain([4095, 4096, 5000]) {
            let mut config = dump.config.clone();
            config.resize(length, 0xff);
            let filter = Filter::new(&Found { config: &config, ..dump.found() });
            let mut data = vec![0x55; 6000];
            filter.read(0, &mut data);
            assert!(data[length.clamp(64, 4096)..].iter().all(|byte| *byte == 0xff));
        }
    }
}
