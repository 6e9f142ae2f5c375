//! The controller as a PCI function.

use kagero_devices::ide::Port;
use kagero_devices::pci::BarChange;
use kagero_devices::register::Fault;

use crate::machine::{Machine, Primary, READY, Secondary};

fn read(m: &Machine, offset: u8) -> u32 {
    let mut out = [0; 4];
    m.ide.read_config(offset, &mut out);
    u32::from_le_bytes(out)
}

fn write(m: &mut Machine, offset: u8, data: &[u8]) -> Vec<BarChange> {
    m.ide.write_config(offset, data).collect()
}

#[test]
fn it_is_a_piix3() {
    let mut m = Machine::new();
    assert_eq!(read(&m, 0x00), 0x7010_8086);
    assert_eq!(read(&m, 0x08), 0x0101_8001);
    for offset in [0x10, 0x14, 0x18, 0x1c, 0x24, 0x30] {
        assert_eq!(write(&mut m, offset, &[0xff; 4]), []);
        assert_eq!(read(&m, offset), 0, "no register at {offset:#x}");
    }
    assert_eq!(read(&m, 0x3c) >> 8, 0, "no interrupt pin: 14 and 15 are its own");
}

#[test]
fn bar_4_decodes_only_with_io_space_enabled() {
    let mut m = Machine::new();
    assert_eq!(write(&mut m, 4, &[0, 0]), []);
    assert_eq!(write(&mut m, 0x20, &[0xff; 4]), []);
    assert_eq!(read(&m, 0x20), 0xffff_fff1, "16 ports");
    assert_eq!(write(&mut m, 0x20, &0xc040u32.to_le_bytes()), []);
    assert_eq!(m.ide.bus_master_base(), None);
    let at = |from, to| [BarChange { bar: 4, from, to }];
    assert_eq!(write(&mut m, 4, &[5, 0]), at(None, Some(0xc040)));
    assert_eq!(m.ide.bus_master_base(), Some(0xc040));
    assert_eq!(write(&mut m, 0x20, &0xc100u32.to_le_bytes()), at(Some(0xc040), Some(0xc100)));
    assert_eq!(write(&mut m, 4, &[4, 0]), at(Some(0xc100), None));
}

#[test]
fn timing_registers_read_back() {
    let mut m = Machine::new();
    assert_eq!(read(&m, 0x40), 0x8000_8000, "both channels decode from the start");
    for (offset, written, kept) in [
        (0x40, 0xa307, 0xa307),
        (0x42, 0xe303, 0xe303),
        (0x44, 0x00bb, 0x00bb),
        (0x48, 0x0005, 0x0005),
        (0x4a, 0x2121, 0x2121),
        (0x54, 0x1003, 0x1003),
    ] {
        assert_eq!(write(&mut m, offset, &u16::to_le_bytes(written)), []);
        assert_eq!(read(&m, offset) as u16, kept, "{offset:#x}");
    }
}

#[test]
fn a_channel_that_is_switched_off_does_not_answer() {
    let mut m = Machine::new();
    assert_eq!(write(&mut m, 0x41, &[0x00]), []);
    assert_eq!(m.ide.read(Port::Command(Primary, 7), &mut [0]), Err(Fault::NoRegister));
    assert_eq!(m.ide.read(Port::Control(Primary), &mut [0]), Err(Fault::NoRegister));
    assert_eq!(m.ide.write(&m.mem, Port::Command(Primary, 7), &[0xec]), Err(Fault::NoRegister));
    assert_eq!(m.ide.read(Port::Command(Secondary, 7), &mut [0]), Ok(()));
    assert_eq!(write(&mut m, 0x41, &[0x80]), []);
    assert_eq!(m.inb(7), READY, "and the command went nowhere");
}
