//! Bus-master DMA and the PRD table (Programming Interface for Bus Master IDE Controller 1.0).

use kagero_devices::ata::{Address, Protocol, bits::error};
use kagero_devices::ide::Port;
use kagero_devices::memory::DmaMemory;
use kagero_devices::storage::{Controller, Operation, Outcome, Request};
use kagero_devices::toy::{Driver, Order, Pace, Rng, inl, outl};
use proptest::prelude::*;

use crate::machine::{BUFFER, FAILED, Machine, READY, Secondary, TABLE};

const EOT: u32 = 0x8000_0000;

/// Bits of the bus master's Status register.
const ACTIVE: u8 = 1;
const ERROR: u8 = 2;
const INTERRUPT: u8 = 4;

/// A read of `sectors` from sector 20 with this table, to its end: the bus master's Status.
fn read(m: &mut Machine, sectors: u8, entries: &[(u32, u32)]) -> u8 {
    m.table(entries);
    m.bm_out(0, 0x08);
    m.bm_out(2, 0x06);
    m.issue(0xc8, 0, sectors, 20);
    m.bm_out(0, 0x09);
    m.settle();
    m.bm_in(2)
}

#[test]
fn a_read_and_a_write_by_every_command() {
    let mut m = Machine::new();
    let mut driver = m.driver();
    for address in [Address::Lba28, Address::Lba48] {
        for sectors in [1, 3, 256] {
            let order = Order::read(Protocol::Dma, address, 33, sectors);
            let reply = m.run(&mut driver, order);
            assert_eq!((reply.status, reply.bus_master, reply.interrupts), (READY, INTERRUPT, 1));
            assert!(reply.data == m.sectors(33, sectors as usize));
            for fua in [false, true] {
                let data = Rng::new(u64::from(sectors) + u64::from(fua)).bytes(sectors as usize * 512);
                let reply =
                    m.run(&mut driver, Order::write(Protocol::Dma, address, fua, 1_000, data.clone()));
                assert!(reply.good(), "{reply:?}");
                assert!(m.sectors(1_000, sectors as usize) == data);
            }
        }
    }
    for retired in [0xc9, 0xcb] {
        m.table(&[(BUFFER, 512 | EOT)]);
        m.bm_out(0, if retired == 0xc9 { 9 } else { 1 });
        assert_eq!(m.command(retired, 0, 1, 0), READY, "{retired:#x}");
        m.bm_out(0, 0);
    }
}

/// A DMA command is one storage command, however long.
#[test]
fn dma_goes_as_one_operation() {
    let mut m = Machine::with([20_000, 0, 0, 0], Pace::Pieces(1_024));
    let mut driver = m.driver();
    let reply = m.run(&mut driver, Order::read(Protocol::Dma, Address::Lba48, 5, 10_000));
    assert!(reply.good() && reply.data == m.sectors(5, 10_000));
    let [Request::Start(command)] = m.disks.log[..] else { panic!("one request") };
    assert_eq!(command.operation, Operation::Read { lba: 5, sectors: 10_000 });
}

#[test]
fn the_second_channel_and_second_disks_have_their_own() {
    let mut m = Machine::with([100, 200, 300, 400], Pace::Pieces(512));
    for (disk, (channel, device_1)) in [
        (kagero_devices::ide::Channel::Primary, false),
        (kagero_devices::ide::Channel::Primary, true),
        (Secondary, false),
        (Secondary, true),
    ]
    .into_iter()
    .enumerate()
    {
        let mut driver = Driver::new(channel, device_1, 0x10_0000, 5);
        for protocol in [Protocol::Dma, Protocol::Pio] {
            let reply = m.run(&mut driver, Order::read(protocol, Address::Lba28, 90, 10));
            assert!(reply.good(), "disk {disk}: {reply:?}");
            assert!(reply.data == m.disks.contents[disk][90 * 512..100 * 512]);
        }
    }
}

#[test]
fn both_channels_work_at_once() {
    let mut m = Machine::with([500, 0, 500, 0], Pace::Pieces(512));
    let mut one = Driver::new(kagero_devices::ide::Channel::Primary, false, 0x10_0000, 5);
    let mut two = Driver::new(Secondary, false, 0x80_0000, 6);
    one.begin(&mut m.ide, &m.mem, Order::read(Protocol::Dma, Address::Lba28, 0, 200));
    two.begin(&mut m.ide, &m.mem, Order::read(Protocol::Dma, Address::Lba28, 0, 200));
    m.disks.poll(&mut m.ide);
    assert_eq!(m.disks.tags().count(), 2);
    m.settle();
    let first = one.poll(&mut m.ide, &m.mem).expect("done");
    let second = two.poll(&mut m.ide, &m.mem).expect("done");
    assert!(first.data == m.disks.contents[0][..200 * 512]);
    assert!(second.data == m.disks.contents[2][..200 * 512]);
}

#[test]
fn command_and_bus_master_start_in_either_order() {
    for bus_master_first in [false, true] {
        let mut m = Machine::new();
        m.table(&[(BUFFER, 512 | EOT)]);
        m.bm_out(0, 0x08);
        if bus_master_first {
            m.bm_out(0, 0x09);
            assert_eq!(m.bm_in(2), ACTIVE);
            m.issue(0xc8, 0, 1, 9);
        } else {
            m.issue(0xc8, 0, 1, 9);
            assert_eq!((m.status(), m.requests()), (0x80, vec![]), "it waits for the bus master");
            m.bm_out(0, 0x09);
        }
        assert_eq!((m.status(), m.bm_in(2)), (0x80, ACTIVE));
        m.settle();
        assert_eq!((m.status(), m.bm_in(2), m.intrq()), (READY, INTERRUPT, true));
        assert_eq!(m.peek(BUFFER, 512), m.sectors(9, 1));
        assert_eq!((m.inb(2), m.inb(3)), (0, 9));
    }
}

#[test]
fn a_count_of_zero_is_64_kib() {
    let mut m = Machine::new();
    assert_eq!(read(&mut m, 129, &[(BUFFER, 0), (0x6_0000, 512 | EOT)]), INTERRUPT);
    assert!(m.peek(BUFFER, 65_536) == m.sectors(20, 128));
    assert!(m.peek(0x6_0000, 512) == m.sectors(148, 1));
}

#[test]
fn bit_0_of_address_and_count_is_not_there() {
    let mut m = Machine::new();
    assert_eq!(read(&mut m, 1, &[(BUFFER + 1, 255), (BUFFER + 0x1001, 259 | EOT)]), INTERRUPT);
    let (head, tail) = (m.peek(BUFFER, 254), m.peek(BUFFER + 0x1000, 258));
    assert!([head, tail].concat() == m.sectors(20, 1));
}

#[test]
fn a_longer_table_leaves_the_bus_master_active() {
    let mut m = Machine::new();
    for entries in [&[(BUFFER, 1_024 | EOT)][..], &[(BUFFER, 512), (BUFFER, 512 | EOT)]] {
        assert_eq!(read(&mut m, 1, entries), ACTIVE | INTERRUPT);
        assert_eq!(m.inb(7), READY);
        assert!(m.peek(BUFFER, 512) == m.sectors(20, 1));
        m.bm_out(0, 0x08);
        assert_eq!(m.bm_in(2), INTERRUPT, "until it is stopped");
    }
}

#[test]
fn a_shorter_table_ends_without_an_interrupt() {
    let mut m = Machine::new();
    m.disks.log.clear();
    assert_eq!(read(&mut m, 4, &[(BUFFER, 700 | EOT)]), 0);
    assert_eq!((m.status(), m.intrq()), (READY, false));
    assert!(m.peek(BUFFER, 700) == m.sectors(20, 2)[..700]);
    assert!(m.peek(BUFFER + 700, 324).iter().all(|byte| *byte == 0), "nothing past the table");

    // A write puts on the disk what whole sectors the table has, and nothing made up.
    let before = m.sectors(40, 4).to_vec();
    m.table(&[(BUFFER, 700 | EOT)]);
    m.bm_out(0, 0);
    m.issue(0xca, 0, 4, 40);
    m.bm_out(0, 1);
    m.settle();
    assert_eq!((m.bm_in(2), m.status(), m.intrq()), (0, READY, false));
    assert!(m.sectors(40, 1) == m.peek(BUFFER, 512));
    assert!(m.sectors(41, 3) == &before[512..]);

    m.table(&[(BUFFER, 16 | EOT)]);
    m.bm_out(0, 0);
    m.issue(0xca, 0, 1, 40);
    m.bm_out(0, 1);
    assert_eq!((m.bm_in(2), m.status(), m.requests()), (0, READY, vec![]), "less than a sector");
}

#[test]
fn the_table_is_read_once() {
    let mut m = Machine::new();
    m.table(&[(BUFFER, 512 | EOT)]);
    m.bm_out(0, 0x09);
    m.issue(0xc8, 0, 1, 20);
    m.disks.poll(&mut m.ide);
    let elsewhere = u64::from(512 | EOT) << 32 | u64::from(BUFFER + 0x1000);
    assert_eq!(m.mem.write(TABLE.into(), &elsewhere.to_le_bytes()), Ok(()));
    m.settle();
    assert!(m.peek(BUFFER, 512) == m.sectors(20, 1));
    assert_eq!(m.peek(BUFFER + 0x1000, 512), [0; 512]);
}

#[test]
fn regions_and_tables_outside_memory_end_the_command_with_the_error_bit() {
    let outside = 0xf000_0000;
    for code in [0xc8, 0xca] {
        for table_outside in [false, true] {
            let mut m = Machine::new();
            let before = m.disks.contents[0].clone();
            m.table(&[(BUFFER, 512), (outside, 512 | EOT)]);
            if table_outside {
                outl(&mut m.ide, &m.mem, Port::BusMaster(4), outside);
            }
            m.bm_out(0, if code == 0xc8 { 8 } else { 0 });
            m.issue(code, 0, 2, 20);
            m.bm_out(0, if code == 0xc8 { 9 } else { 1 });
            m.settle();
            assert_eq!(m.bm_in(2), ERROR | INTERRUPT);
            assert_eq!((m.intrq(), m.inb(7), m.inb(1)), (true, FAILED, error::ABRT));
            if code == 0xca {
                assert!(m.disks.contents[0][21 * 512..] == before[21 * 512..]);
            }
            // And the next one is as good as ever.
            m.bm_out(0, 0);
            assert_eq!(read(&mut m, 1, &[(BUFFER, 512 | EOT)]), INTERRUPT);
        }
    }
}

/// A table without an end is not followed past the 64 KiB that a table may have.
#[test]
fn a_table_without_end_is_left() {
    let mut m = Machine::with([70_000, 0, 0, 0], Pace::Whole);
    m.table(&[(BUFFER, 2); 8_192]);
    m.bm_out(0, 0x08);
    for offset in [2, 3, 4, 5] {
        m.outb(offset, 0);
        m.outb(offset, 0);
    }
    m.outb(6, 0xe0);
    m.outb(7, 0x25);
    m.bm_out(0, 0x09);
    let [Request::Start(command)] = m.requests()[..] else { panic!("one request") };
    assert_eq!(command.operation, Operation::Read { lba: 0, sectors: 32 });
}

#[test]
fn without_the_bus_master_enable_bit_memory_is_out_of_reach() {
    let mut m = Machine::new();
    assert_eq!(m.ide.write_config(4, &[1, 0]).count(), 0);
    assert_eq!(read(&mut m, 1, &[(BUFFER, 512 | EOT)]), ERROR | INTERRUPT);
    assert_eq!((m.inb(7), m.peek(BUFFER, 512)), (FAILED, vec![0; 512]));
}

#[test]
fn the_bus_master_enable_bit_counts_during_a_transfer_too() {
    for code in [0xc8, 0xca] {
        let mut m = Machine::new();
        m.table(&[(BUFFER, 512 | EOT)]);
        m.bm_out(0, if code == 0xc8 { 9 } else { 1 });
        m.issue(code, 0, 1, 20);
        let before = m.sectors(20, 1).to_vec();
        m.disks.poll(&mut m.ide);
        assert_eq!(m.ide.write_config(4, &[1, 0]).count(), 0);
        m.settle();
        assert_eq!((m.bm_in(2), m.inb(7)), (ERROR | INTERRUPT, FAILED));
        assert_eq!((m.peek(BUFFER, 512), m.sectors(20, 1)), (vec![0; 512], &before[..]));
    }
}

#[test]
fn a_bad_sector_ends_the_command() {
    let mut m = Machine::new();
    m.disks.bad = Some((23, error::UNC));
    assert_eq!(read(&mut m, 8, &[(BUFFER, 4_096 | EOT)]), INTERRUPT);
    assert_eq!((m.inb(7), m.inb(1)), (FAILED, error::UNC));
    assert_eq!((m.inb(2), m.inb(3)), (5, 23));
    assert!(m.peek(BUFFER, 1_536) == m.sectors(20, 3), "what was good before it is there");
}

#[test]
fn stopping_the_bus_master_ends_the_transfer() {
    let mut m = Machine::new();
    m.table(&[(BUFFER, 512 | EOT)]);
    m.bm_out(0, 0x09);
    m.issue(0xc8, 0, 1, 20);
    let [Request::Start(command)] = m.requests()[..] else { panic!("one request") };
    m.bm_out(0, 0x08);
    assert_eq!((m.bm_in(2), m.status(), m.inb(1)), (0, FAILED, error::ABRT));
    assert!(!m.intrq());
    assert_eq!(m.requests(), [Request::Cancel(command.tag)]);
    m.ide.data_in(&m.mem, command.tag, 0, &[0xee; 512]);
    m.ide.complete(&m.mem, command.tag, Outcome::Done);
    assert_eq!(m.peek(BUFFER, 512), [0; 512], "the tag is stale");
    assert_eq!(read(&mut m, 1, &[(BUFFER, 512 | EOT)]), INTERRUPT);
}

#[test]
fn the_bus_master_registers_read_back() {
    let mut m = Machine::new();
    outl(&mut m.ide, &m.mem, Port::BusMaster(4), 0x1234_5677);
    outl(&mut m.ide, &m.mem, Port::BusMaster(12), 0xffff_ffff);
    assert_eq!(inl(&mut m.ide, Port::BusMaster(4)), 0x1234_5674);
    assert_eq!(inl(&mut m.ide, Port::BusMaster(12)), 0xffff_fffc);
    m.bm_out(2, 0x60);
    m.bm_out(0, 0xff);
    assert_eq!(inl(&mut m.ide, Port::BusMaster(0)), 0x0061_0009, "start, direction; capable, active");
    m.bm_out(1, 0xff);
    m.bm_out(3, 0xff);
    assert_eq!((m.bm_in(1), m.bm_in(3)), (0, 0));
}

proptest! {
    /// Whatever the table: what it covers gets the sectors, in order; nothing else in memory changes.
    #[test]
    fn any_table_is_followed(
        sectors in 1u8..=16,
        regions in proptest::collection::vec((0u32..0x100, 1u32..3_000), 1..12),
    ) {
        let mut m = Machine::with([64, 0, 0, 0], Pace::Pieces(1_024));
        let mut gpa = BUFFER;
        let mut entries = Vec::new();
        for (gap, count) in &regions {
            gpa += gap;
            entries.push((gpa, *count));
            gpa += count + 2;
        }
        entries.last_mut().expect("at least one").1 |= EOT;
        let status = read(&mut m, sectors, &entries);

        let mut expect = vec![0; (gpa - BUFFER) as usize];
        let mut data = m.sectors(20, sectors.into());
        let mut room = 0;
        for (gpa, count) in &entries {
            let (start, len) = ((gpa & !1) - BUFFER, match count & 0xfffe { 0 => 65_536, count => count });
            let len = len as usize;
            room += len;
            if data.is_empty() { continue }
            let (now, later) = data.split_at(len.min(data.len()));
            if let Some(to) = expect.get_mut(start as usize..start as usize + now.len()) {
                to.copy_from_slice(now);
            } else {
                // A count of 1 is one of 64 KiB.
                expect.resize(start as usize + now.len(), 0);
                expect[start as usize..].copy_from_slice(now);
            }
            data = later;
        }
        let bytes = usize::from(sectors) * 512;
        let wanted = match room.cmp(&bytes) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => INTERRUPT,
            std::cmp::Ordering::Greater => ACTIVE | INTERRUPT,
        };
        prop_assert_eq!(status, wanted);
        prop_assert_eq!(m.status(), READY);
        prop_assert!(m.peek(BUFFER, expect.len()) == expect);
    }
}
