//! Resets, and what becomes of a command under way.

use kagero_devices::ata::{Address, Protocol};
use kagero_devices::storage::{Controller, Operation, Outcome, Request, Tag};
use kagero_devices::toy::{Order, Pace};

use crate::machine::{BUFFER, DATA, Machine, READY, Secondary};

fn started(m: &mut Machine) -> Tag {
    match m.requests()[..] {
        [Request::Start(command)] => command.tag,
        ref other => panic!("one request, not {other:?}"),
    }
}

#[test]
fn srst_is_busy_while_held_then_the_signature() {
    let mut m = Machine::with([64, 64, 0, 0], Pace::Whole);
    m.issue(0xe5, 0, 0, 0);
    m.outb(6, 0xb0);
    m.control(0x04);
    assert_eq!((m.inb(7), m.status(), m.intrq()), (0x80, 0x80, false));
    m.outb(2, 0x99);
    m.outb(6, 0xb0);
    m.outb(7, 0xec);
    m.control(0x0c);
    assert_eq!(m.status(), 0x80, "still held");
    m.control(0x00);
    for device in [0x00, 0x10] {
        let registers: Vec<u8> = (1..=7).map(|offset| m.inb(offset)).collect();
        assert_eq!(registers, [1, 1, 1, 0, 0, device, READY]);
        m.outb(6, 0x10);
    }
    assert!(!m.intrq(), "a reset ends without an interrupt");
}

#[test]
fn srst_cancels_what_is_under_way() {
    for (what, code) in [("PIO", 0x20), ("DMA", 0xc8), ("no data", 0xe7)] {
        let mut m = Machine::new();
        m.table(&[(BUFFER, 0x8000_0200)]);
        m.bm_out(0, 0x09);
        m.issue(code, 0, 1, 3);
        let tag = started(&mut m);
        m.control(0x04);
        assert_eq!(m.requests(), [Request::Cancel(tag)], "{what}");
        m.control(0x00);
        assert_eq!(m.status(), READY);

        // Whatever comes for the stale tag goes nowhere.
        m.ide.data_in(&m.mem, tag, 0, &[0xee; 512]);
        assert!(m.ide.data_out(&m.mem, tag, 0, &mut [0; 512]).is_err());
        m.ide.complete(&m.mem, tag, Outcome::Done);
        assert_eq!((m.status(), m.intrq(), m.bm_in(2) & 6), (READY, false, 0), "{what}");
        assert_eq!(m.peek(BUFFER, 512), [0; 512]);

        // The guest tries again, with a tag of its own.
        m.issue(0x20, 0, 1, 3);
        m.ide.complete(&m.mem, tag, Outcome::Done);
        assert_eq!(m.status(), 0x80);
        m.settle();
        assert_eq!(m.status(), DATA);
        assert_eq!(m.read_data(512), m.sectors(3, 1));
    }
}

#[test]
fn srst_takes_back_what_nobody_has_polled() {
    let mut m = Machine::new();
    m.issue(0x20, 0, 1, 3);
    m.control(0x04);
    m.control(0x00);
    assert_eq!(m.requests(), []);
}

#[test]
fn a_cancellation_comes_before_the_next_command() {
    let mut m = Machine::new();
    m.issue(0x20, 0, 1, 3);
    let tag = started(&mut m);
    m.control(0x04);
    m.control(0x00);
    m.issue(0xe7, 0, 0, 0);
    m.control(0x04);
    m.control(0x00);
    m.issue(0x40, 0, 1, 3);
    let [Request::Cancel(first), Request::Start(second)] = m.requests()[..] else { panic!("two requests") };
    assert_eq!((first, second.operation), (tag, Operation::Verify { lba: 3, sectors: 1 }));
    assert_ne!(second.tag, tag);
}

/// Tags follow each other, so a confused network may name one that was not yet given out.
#[test]
fn an_answer_before_its_command_is_ignored() {
    let mut m = Machine::new();
    m.issue(0xe7, 0, 0, 0);
    let Tag(first) = started(&mut m);
    m.ide.complete(&m.mem, Tag(first), Outcome::Done);
    m.issue(0x20, 0, 1, 3);
    m.ide.complete(&m.mem, Tag(first + 2), Outcome::Done);
    assert_eq!(m.status(), 0x80);
    assert_eq!(started(&mut m), Tag(first + 2));
    m.ide.complete(&m.mem, Tag(first + 2), Outcome::Done);
    assert_eq!(m.status(), DATA);
}

#[test]
fn srst_in_the_middle_of_a_block_drops_the_rest() {
    let mut m = Machine::new();
    m.issue(0x30, 0, 1, 3);
    m.write_data(&[1; 100]);
    m.control(0x04);
    m.control(0x00);
    assert_eq!(m.status(), READY);
    m.issue(0x20, 0, 1, 3);
    m.settle();
    m.read_data(100);
    m.control(0x04);
    m.control(0x00);
    m.issue(0x20, 0, 1, 4);
    m.settle();
    assert_eq!(m.read_data(512), m.sectors(4, 1));
}

#[test]
fn the_other_channel_goes_on() {
    let mut m = Machine::with([500, 0, 500, 0], Pace::Pieces(512));
    let mut other = kagero_devices::toy::Driver::new(Secondary, false, 0x10_0000, 1);
    other.begin(&mut m.ide, &m.mem, Order::read(Protocol::Dma, Address::Lba28, 0, 100));
    m.issue(0x20, 0, 1, 3);
    m.disks.poll(&mut m.ide);
    m.control(0x04);
    m.control(0x00);
    m.settle();
    let reply = other.poll(&mut m.ide, &m.mem).expect("done");
    assert!(reply.data == m.disks.contents[2][..100 * 512]);
}

/// A guest whose target is lost for longer than its own time-out resets the channel and tries again.
#[test]
fn a_guest_recovers_by_reset_and_retry() {
    let mut m = Machine::new();
    let mut driver = m.driver();
    for protocol in [Protocol::Dma, Protocol::Pio, Protocol::Multiple] {
        let order = Order::read(protocol, Address::Lba48, 100, 300);
        for _ in 0..3 {
            driver.begin(&mut m.ide, &m.mem, order.clone());
            for _ in 0..20 {
                m.disks.step(&mut m.ide, &m.mem);
            }
            driver.reset(&mut m.ide, &m.mem);
        }
        let reply = m.run(&mut driver, order);
        assert!(reply.good() && reply.data == m.sectors(100, 300), "{protocol:?}");
    }
}

#[test]
fn the_machines_reset_is_a_power_on() {
    let mut m = Machine::new();
    assert_eq!(m.ide.write_config(0x20, &0xc000u32.to_le_bytes()).count(), 1);
    assert_eq!(m.ide.bus_master_base(), Some(0xc000));
    assert_eq!(m.command(0xef, 0x82, 0, 0), READY);
    assert_eq!(m.command(0xc6, 0, 0, 0), READY);
    m.bm_out(2, 0x60);
    m.control(0x02);
    m.issue(0x20, 0, 1, 3);
    let tag = started(&mut m);
    let changes: Vec<_> = m.ide.reset().collect();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].bar, changes[0].from, changes[0].to), (4, Some(0xc000), None));
    assert_eq!(m.requests(), [Request::Cancel(tag)]);
    let registers: Vec<u8> = (1..=7).map(|offset| m.inb(offset)).collect();
    assert_eq!(registers, [1, 1, 1, 0, 0, 0, READY]);
    assert_eq!((m.bm_in(0), m.bm_in(2)), (0, 0));
    m.issue(0xe5, 0, 0, 0);
    assert!(m.intrq(), "nIEN is off");
    assert_eq!(m.command(0xec, 0, 0, 0), DATA);
    let words = m.words();
    assert_eq!((words[59], words[85] & 0x20), (0x0110, 0x20));
    m.issue(0x20, 0, 1, 3);
    assert_ne!(started(&mut m), tag, "tags go on");
}

#[test]
fn resets_wake_a_sleeping_disk() {
    let mut m = Machine::new();
    assert_eq!(m.command(0xe0, 0, 0, 0), READY);
    assert_eq!(m.ide.reset().count(), 0);
    assert_eq!(m.command(0xe5, 0, 0, 0), READY);
    assert_eq!(m.inb(2), 0xff, "power-on: active");
    assert_eq!(m.command(0xe6, 0, 0, 0), READY);
    m.control(0x04);
    m.control(0x00);
    assert_eq!(m.command(0xe5, 0, 0, 0), READY);
    assert_eq!(m.inb(2), 0x00, "software reset: standby");
}
