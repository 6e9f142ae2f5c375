//! Power states, the PCI Express capability, and ways to ask for a reset.

use kagero_devices::pci::filter::Change;
use kagero_devices::pci::{BarChange, Found, command};

use crate::dumps;
use crate::guest::Guest;

#[test]
fn nothing_decodes_below_d0() {
    let mut guest = Guest::new(&dumps::hda());
    let _ = guest.write_dword(0x10, 0xe000_0000);
    let _ = guest.write_word(4, command::MEMORY);
    let outcome = guest.write_word(0x54, 0x8103);
    let at = Some(0xe000_0000);
    assert_eq!(outcome.power, Some(Change { from: 0, to: 3 }));
    assert_eq!(outcome.bars, [BarChange { bar: 0, from: at, to: None }]);
    assert_eq!(guest.filter.power_state(), 3);
    assert_eq!(guest.hardware[0x54..0x56], [3, 0], "the hardware falls asleep, and does not wake the host");
    assert_eq!(guest.word(0x54), 3);
    let outcome = guest.write_word(0x54, 0);
    assert_eq!(outcome.power, Some(Change { from: 3, to: 0 }));
    assert_eq!(outcome.bars, [BarChange { bar: 0, from: None, to: at }]);

    let _ = guest.write(0x54, &[3]);
    let outcome = guest.filter.reset();
    assert_eq!((outcome.power, outcome.bars.len()), (Some(Change { from: 3, to: 0 }), 0));
    assert_eq!(outcome.forwards[0].offset, 0x54, "awake before anything else");
    guest.carry_out(&outcome);
    assert_eq!((guest.hardware[0x54], guest.filter.power_state()), (0, 0));
}

#[test]
fn a_state_that_does_not_exist_is_not_entered() {
    // D1 but not D2.
    let mut guest = Guest::new(&dumps::hda().at(0x53, &[0x02]));
    assert_eq!(guest.write(0x54, &[1]).power, Some(Change { from: 0, to: 1 }));
    let outcome = guest.write(0x54, &[2]);
    assert_eq!((outcome.power, guest.byte(0x54), guest.hardware[0x54]), (None, 1, 1));
}

#[test]
fn wake_up_calls_are_hidden() {
    let guest = Guest::new(&dumps::e1000e().at(0xcd, &[0x81]));
    assert_eq!(guest.word(0xca), 0x0023);
    assert_eq!(guest.word(0xcc), 0x0008);
}

#[test]
fn an_endpoint_without_a_port_above_is_an_integrated_one() {
    let dump = dumps::nvme();
    let guest = Guest::new(&dump);
    assert_eq!(guest.word(0x82), 0x0092);
    assert_eq!((guest.bytes(0x8c, 8), guest.bytes(0xac, 8)), (vec![0; 8], vec![0; 8]), "no link");
    assert_eq!(guest.bytes(0xa4, 4), [0x1f, 8, 0, 0], "the rest is there");
    let guest = Guest::with(&dump, |found| Found { root_bus: false, ..found });
    assert_eq!(guest.word(0x82), 0x0002);
    assert_eq!((guest.byte(0x8c), guest.byte(0xac)), (0x11, 2));
    let legacy = dumps::express(0x80, 0x60, 1, true, dumps::nvme());
    assert_eq!(Guest::new(&legacy).capabilities(), [(0x60, 1), (0x40, 0x11)]);
    let guest = Guest::with(&legacy, |found| Found { root_bus: false, ..found });
    assert_eq!(guest.word(0x82), 0x0012);
}

#[test]
fn version_1_has_no_second_set_of_link_registers() {
    let guest = Guest::new(&dumps::e1000e().at(0xe0 + 0x14, &[0x55]));
    assert_eq!((guest.word(0xe2), guest.bytes(0xec, 9)), (0x0091, vec![0, 0, 0, 0, 0, 0, 0, 0, 0x55]));
    assert_eq!(guest.extended(), [(0x100, 1), (0x140, 3)]);
    // Version 2 that ends where the next begins.
    let dump = dumps::nvme().at(0x81, &[0xb0]).at(0xb0, &[9, 0x60, 8, 0x55]);
    assert_eq!(Guest::new(&dump).bytes(0xac, 8), [0, 0, 0, 0, 9, 0x60, 8, 0x55]);
}

#[test]
fn what_the_port_above_must_agree_to_is_not_the_guests() {
    let mut guest = Guest::new(&dumps::nvme());
    // Largest payload, phantom functions, and a read request size of 4096.
    let _ = guest.write_word(0x88, 0x5aff);
    assert_eq!(guest.word(0x88), 0x583f);
    assert_eq!(guest.hardware[0x88..0x8a], [0x3f, 0x58], "128 bytes as was found: bits 7 to 5 are 1");
}

#[test]
fn a_function_level_reset_is_asked_for() {
    let mut guest = Guest::new(&dumps::nvme());
    let outcome = guest.write_word(0x88, 0xa830);
    assert!(outcome.reset);
    assert_eq!((guest.hardware[0x89], guest.word(0x88)), (0x28, 0x2830), "the bit itself goes nowhere");
    assert!(guest.write(0x89, &[0x80]).reset);
    assert!(guest.write_dword(0x88, 0x8000).reset);
    assert!(guest.write(0x86, &[0, 0, 0, 0x80]).reset, "wherever the write begins");
    assert!(!guest.write_word(0x88, 0x2830).reset);
    assert!(!guest.write(0x88, &[0x80]).reset);
    let mut guest = Guest::new(&dumps::e1000e());
    assert!(!guest.write_word(0xe8, 0x8000).reset, "it has none");
    assert_eq!(guest.hardware[0xe9], 0);

    let dump = dumps::ahci().at(0xa9, &[0xb0]).at(0xb0, &[0x13, 0, 6, 3, 0, 0]);
    let mut guest = Guest::new(&dump);
    assert_eq!(guest.capabilities().last(), Some(&(0xb0, 0x13)));
    let outcome = guest.write(0xb4, &[1]);
    assert!(outcome.reset && outcome.forwards.is_empty());
    let mut guest = Guest::new(&dump.at(0xb3, &[1]));
    assert!(!guest.write(0xb4, &[1]).reset, "it has none");
}
