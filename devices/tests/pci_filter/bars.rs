//! BARs, the Command register, and power.

use kagero_devices::pci::filter::Change;
use kagero_devices::pci::{BarChange, ROM, command};

use crate::dumps;
use crate::guest::Guest;

#[test]
fn sizes_are_found_as_linux_does() {
    let mut guest = Guest::new(&dumps::e1000e());
    let sizes: Vec<_> = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30].map(|at| guest.size(at)).into();
    assert_eq!(sizes, [0xfffe_0000, 0xfffe_0000, 0xffff_ffe1, 0xffff_c000, 0, 0, 0xfffc_0001]);
    let mut guest = Guest::new(&dumps::nvme());
    let sizes: Vec<_> = [0x10, 0x14, 0x18, 0x1c, 0x30].map(|at| guest.size(at)).into();
    assert_eq!(sizes, [0xffff_c004, 0xffff_ffff, 0xc, 0xffff_fffe, 0]);
}

#[test]
fn bars_are_the_guests_and_follow_the_command_register() {
    let dump = dumps::e1000e();
    let mut guest = Guest::new(&dump);
    assert_eq!(guest.dword(0x10), 0, "where the host has put it is none of the guest's business");
    assert_eq!(guest.filter.command(), 0);
    for (at, value) in [(0x10, 0xe000_0000), (0x18, 0xd000), (0x30, 0xe010_0001)] {
        let outcome = guest.write_dword(at, value);
        assert_eq!((outcome.forwards, outcome.bars), (vec![], vec![]));
    }
    let on = command::IO | command::MEMORY | command::MASTER;
    let outcome = guest.write_word(4, on | command::SERR);
    let at = |bar, to| BarChange { bar, from: None, to: Some(to) };
    assert_eq!(outcome.bars, [at(0, 0xe000_0000), at(2, 0xd000), at(ROM, 0xe010_0000)]);
    assert_eq!(outcome.command, Some(Change { from: 0, to: on }));
    assert_eq!(guest.hardware[4..6], [7, 1], "the hardware has it too");
    assert_eq!(guest.hardware[0x10..0x34], dump.config[0x10..0x34], "but not the BARs");
    let outcome = guest.write_dword(0x30, 0xe010_0000);
    assert_eq!(outcome.bars, [BarChange { bar: ROM, from: Some(0xe010_0000), to: None }]);
    assert_eq!(guest.filter.rom_decoded(), None);
    let outcome = guest.write_word(4, command::MEMORY | command::INTX_DISABLE);
    assert_eq!(outcome.bars, [BarChange { bar: 2, from: Some(0xd000), to: None }]);
    assert_eq!(guest.filter.command(), command::MEMORY | command::INTX_DISABLE);

    let outcome = guest.filter.reset();
    assert_eq!(outcome.bars, [BarChange { bar: 0, from: Some(0xe000_0000), to: None }]);
    guest.carry_out(&outcome);
    assert_eq!(guest.hardware[4..6], [0, 0]);
    assert_eq!((guest.dword(0x10), guest.word(4)), (0, 0));
}
