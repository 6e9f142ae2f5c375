//! The command block, Device Control, and who answers.

use kagero_devices::ide::{Channel, Port};
use kagero_devices::register::Fault;
use kagero_devices::storage::Controller;
use kagero_devices::toy::{Pace, inb, outb};
use proptest::prelude::*;

use crate::machine::{DATA, FAILED, Machine, Primary, READY, Secondary};

#[test]
fn a_disk_shows_its_signature_after_power_on() {
    let mut m = Machine::new();
    let registers: Vec<u8> = (1..=7).map(|offset| m.inb(offset)).collect();
    assert_eq!(registers, [0x01, 0x01, 0x01, 0x00, 0x00, 0x00, READY]);
    assert!(!m.intrq());
}

/// SeaBIOS and Linux believe in a drive only when both patterns read back.
#[test]
fn patterns_read_back() {
    let mut m = Machine::new();
    m.outb(2, 0x55);
    m.outb(3, 0xaa);
    assert_eq!((m.inb(2), m.inb(3)), (0x55, 0xaa));
}

#[test]
fn the_device_register_reads_back_as_written() {
    let mut m = Machine::with([64, 64, 0, 0], Pace::Whole);
    for value in 0..=0xff {
        m.outb(6, value);
        assert_eq!(m.inb(6), value);
    }
}

/// Through the registers, HOB selects the older of two values until the next write to the command block.
#[test]
fn hob_shows_the_older_value_until_the_next_write() {
    let mut m = Machine::new();
    for (offset, older) in (2..=5).zip([0x12, 0x34, 0x56, 0x78]) {
        m.outb(offset, older);
        m.outb(offset, older + 1);
    }
    let all = |m: &mut Machine| [2, 3, 4, 5].map(|offset| m.inb(offset));
    assert_eq!(all(&mut m), [0x13, 0x35, 0x57, 0x79]);
    m.control(0x80);
    assert_eq!(all(&mut m), [0x12, 0x34, 0x56, 0x78]);
    m.outb(6, 0xe0);
    assert_eq!(all(&mut m), [0x13, 0x35, 0x57, 0x79]);
    m.control(0x80);
    m.outb(7, 0xe5);
    assert_eq!(m.inb(2), 0xff, "CHECK POWER MODE: HOB is off after a command");
}

#[test]
fn device_0_answers_for_an_absent_device_1() {
    let mut m = Machine::new();
    m.outb(6, 0xb0);
    m.outb(2, 0x55);
    assert_eq!((m.inb(7), m.status()), (0, 0));
    assert_eq!((m.inb(2), m.inb(6)), (0x55, 0xb0));
    m.outb(7, 0xec);
    assert_eq!(m.status(), 0);
    assert!(!m.intrq(), "a command for it is not carried out");
    m.outb(6, 0xa0);
    assert_eq!(m.status(), READY, "nor by device 0");
}

#[test]
fn both_disks_hear_every_write() {
    let mut m = Machine::with([64, 128, 0, 0], Pace::Whole);
    m.outb(6, 0xe0);
    m.outb(2, 0x42);
    m.outb(6, 0xf0);
    assert_eq!(m.inb(2), 0x42);
    assert_eq!(m.command(0xf8, 0, 0, 0), READY);
    m.outb(6, 0xf0);
    assert_eq!(m.inb(3), 0, "device 1 did not carry out device 0's command");
    m.outb(7, 0xf8);
    assert_eq!(m.inb(3), 127);
    m.outb(6, 0xe0);
    assert_eq!(m.inb(3), 63);
}

/// Windows 7 polls 1F7h of channels without disks, and SeaBIOS waits for BSY to clear.
#[test]
fn an_empty_channel_is_quiet() {
    let mut m = Machine::new();
    for device in [0xa0, 0xb0] {
        outb(&mut m.ide, &m.mem, Port::Command(Secondary, 6), device);
        outb(&mut m.ide, &m.mem, Port::Command(Secondary, 2), 0x55);
        outb(&mut m.ide, &m.mem, Port::Command(Secondary, 7), 0xec);
        for offset in 1..=7 {
            assert_eq!(inb(&mut m.ide, Port::Command(Secondary, offset)), 0);
        }
        assert_eq!(inb(&mut m.ide, Port::Control(Secondary)), 0);
    }
    outb(&mut m.ide, &m.mem, Port::Control(Secondary), 4);
    assert_eq!(inb(&mut m.ide, Port::Control(Secondary)), 0, "nobody is busy with a reset");
    assert_eq!(m.ide.irq(), 0);
}

#[test]
fn device_1_alone_answers_for_itself_only() {
    let mut m = Machine::with([0, 64, 0, 0], Pace::Whole);
    assert_eq!(m.inb(7), 0);
    m.outb(6, 0xb0);
    assert_eq!(m.inb(7), READY);
    m.outb(7, 0x90);
    assert_eq!(m.inb(6), 0, "device 0 is selected");
    assert!(!m.intrq());
}

/// INTRQ drops on a Status read and on a Command write, not on Alternate Status; the bus master's bit stays.
#[test]
fn intrq_drops_on_status_and_command() {
    let mut m = Machine::new();
    m.outb(7, 0xe5);
    assert!(m.intrq());
    assert_eq!(m.status(), READY);
    assert!(m.intrq(), "Alternate Status leaves it");
    m.inb(2);
    assert!(m.intrq(), "so do other registers");
    m.inb(7);
    assert!(!m.intrq());
    assert_eq!(m.bm_in(2), 0x04);

    m.outb(7, 0xe5);
    assert!(m.intrq());
    m.issue(0x20, 0, 1, 0);
    assert!(!m.intrq(), "the read is still under way");
    m.settle();
    assert!(m.intrq());
}

/// The bus master's Interrupt bit is set with INTRQ even while nIEN holds it back: SeaBIOS polls so.
#[test]
fn nien_gates_intrq_and_nothing_else() {
    let mut m = Machine::new();
    m.control(0x02);
    m.outb(7, 0xe5);
    assert!(!m.intrq());
    assert_eq!(m.bm_in(2), 0x04);
    m.control(0x00);
    assert!(m.intrq(), "it was pending");
    m.inb(7);
    m.bm_out(2, 0x04);
    assert_eq!((m.intrq(), m.bm_in(2)), (false, 0));
}

#[test]
fn intrq_is_the_selected_disks() {
    let mut m = Machine::with([64, 64, 0, 0], Pace::Whole);
    m.outb(7, 0xe5);
    assert!(m.intrq());
    m.outb(6, 0xb0);
    assert!(!m.intrq());
    m.inb(7);
    m.outb(6, 0xa0);
    assert!(m.intrq(), "device 0 still has it pending");
}

#[test]
fn channels_interrupt_on_their_own() {
    let mut m = Machine::with([64, 0, 64, 0], Pace::Whole);
    outb(&mut m.ide, &m.mem, Port::Command(Secondary, 7), 0xe5);
    assert_eq!(m.ide.irq(), 0b10);
    assert_eq!((m.bm_in(2), m.bm_in(10)), (0, 4));
    m.outb(7, 0xe5);
    assert_eq!(m.ide.irq(), 0b11);
}

#[test]
fn what_is_written_while_busy_is_ignored() {
    let mut m = Machine::new();
    m.issue(0x20, 0, 1, 5);
    let registers: Vec<u8> = (1..=6).map(|offset| m.inb(offset)).collect();
    for (what, status) in [("busy", 0x80), ("data request", DATA)] {
        assert_eq!(m.status(), status);
        for offset in 1..=7 {
            m.outb(offset, 0x5a);
        }
        m.outb(7, 0xec);
        m.outb(7, 0x08);
        assert_eq!(m.status(), status, "{what}");
        assert_eq!((1..=6).map(|offset| m.inb(offset)).collect::<Vec<u8>>(), registers, "{what}");
        m.settle();
    }
    assert_eq!(m.read_data(512), m.sectors(5, 1));
    assert_eq!(m.disks.log.len(), 1);
}

#[test]
fn unknown_commands_end_with_abrt() {
    let mut m = Machine::new();
    for code in [0x02, 0x22, 0x2f, 0x47, 0x92, 0xc7, 0xe4, 0xe8, 0xf6, 0xff] {
        assert_eq!(m.command(code, 0, 1, 0), FAILED, "{code:#x}");
        assert_eq!(m.inb(1), 0x04);
        assert!(m.intrq());
    }
    assert_eq!(m.command(0xe5, 0, 0, 0), READY, "the next one clears the error");
    assert_eq!(m.inb(1), 0);
}

#[test]
fn accesses_that_no_register_answers_are_named() {
    let mut m = Machine::new();
    let mut read = |port, width| m.ide.read(port, &mut vec![0; width]);
    assert_eq!(read(Port::Command(Primary, 8), 1), Err(Fault::NoRegister));
    assert_eq!(read(Port::Command(Primary, 0), 1), Err(Fault::Width));
    assert_eq!(read(Port::Command(Primary, 0), 6), Err(Fault::Width));
    assert_eq!(read(Port::Command(Primary, 7), 2), Err(Fault::Width));
    assert_eq!(read(Port::Control(Primary), 4), Err(Fault::Width));
    assert_eq!(read(Port::BusMaster(16), 1), Err(Fault::NoRegister));
    assert_eq!(read(Port::BusMaster(6), 4), Err(Fault::Unaligned));
    assert_eq!(read(Port::BusMaster(0), 3), Err(Fault::Width));
    assert_eq!(read(Port::BusMaster(4), 4), Ok(()));
    assert_eq!(m.ide.read_data(Primary, 4, &mut [0; 6]), Err(Fault::Width));
    assert_eq!(m.ide.write_data(Primary, 1, &[0; 6]), Err(Fault::Width));
    assert_eq!(m.ide.write(&m.mem, Port::Command(Primary, 7), &[0xec, 0]), Err(Fault::Width));
    assert_eq!(m.status(), READY, "that was no command");
}

fn ports() -> impl Strategy<Value = Port> {
    let channel = prop_oneof![Just(Channel::Primary), Just(Channel::Secondary)];
    prop_oneof![
        (channel.clone(), any::<u8>()).prop_map(|(channel, offset)| Port::Command(channel, offset)),
        channel.prop_map(Port::Control),
        any::<u8>().prop_map(Port::BusMaster),
    ]
}

proptest! {
    /// Decoding depends on port and width alone, and is the same for reads and writes.
    #[test]
    fn every_access_is_answered_or_named(port in ports(), width in 0usize..9) {
        let mut m = Machine::with([64, 0, 64, 0], Pace::Whole);
        let widths: &[usize] = match port {
            Port::Command(_, 0) => &[2, 4],
            Port::Command(_, 1..=7) | Port::Control(_) => &[1],
            Port::Command(..) => &[],
            Port::BusMaster(offset) if offset < 16 => match offset % 4 {
                0 => &[1, 2, 4],
                2 => &[1, 2],
                _ => &[1],
            },
            Port::BusMaster(_) => &[],
        };
        let good = widths.contains(&width);
        prop_assert_eq!(m.ide.read(port, &mut vec![0; width]).is_ok(), good);
        prop_assert_eq!(m.ide.write(&m.mem, port, &vec![0; width]).is_ok(), good);
    }
}
