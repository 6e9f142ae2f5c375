//! Reads and writes through the data port.

use kagero_devices::ata::{Address, Protocol, bits::error};
use kagero_devices::storage::{Operation, Request};
use kagero_devices::toy::{Order, Pace, Rng};

use crate::machine::{DATA, FAILED, Machine, Primary, READY};

fn operations(m: &Machine) -> Vec<Operation> {
    let start = |request: &Request| match request {
        Request::Start(command) => Some(command.operation),
        Request::Cancel(_) => None,
    };
    m.disks.log.iter().filter_map(start).collect()
}

#[test]
fn a_read_interrupts_for_each_block_and_not_after_the_last() {
    let mut m = Machine::new();
    m.issue(0x20, 0, 2, 7);
    assert_eq!((m.status(), m.intrq()), (0x80, false));
    m.settle();
    for sector in 7..9 {
        assert!(m.intrq());
        assert_eq!(m.inb(7), DATA);
        assert!(!m.intrq());
        assert_eq!(m.read_data(510), m.sectors(sector, 1)[..510]);
        assert!(!m.intrq());
        assert_eq!(m.read_data(2), m.sectors(sector, 1)[510..]);
    }
    assert_eq!((m.status(), m.intrq()), (READY, false));
    assert_eq!((m.inb(2), m.inb(3)), (0, 8), "none left, and the last sector's address");
    assert_eq!(m.read_data(2), [0xff; 2], "nothing more to read");
}

#[test]
fn a_write_interrupts_after_each_block_and_not_before_the_first() {
    let mut m = Machine::new();
    let data = Rng::new(1).bytes(1_024);
    m.issue(0x30, 0, 2, 7);
    assert_eq!((m.status(), m.intrq()), (DATA, false));
    m.write_data(&data[..512]);
    assert!(m.intrq());
    assert_eq!(m.inb(7), DATA);
    m.write_data(&data[512..]);
    assert_eq!((m.status(), m.intrq()), (0x80, false));
    m.write_data(&[0; 4]);
    m.settle();
    assert!(m.intrq());
    assert_eq!(m.inb(7), READY);
    assert_eq!(m.sectors(7, 2), data);
    assert_eq!((m.inb(2), m.inb(3)), (0, 8));
}

#[test]
fn multiple_moves_as_many_sectors_in_a_block_as_were_set() {
    let mut m = Machine::new();
    let mut driver = m.driver();
    for (multiple, sectors, interrupts) in [(16, 40, 3), (4, 40, 10), (1, 3, 3)] {
        assert_eq!(m.command(0xc6, 0, multiple, 0), READY);
        driver.multiple = multiple.into();
        let reply = m.run(&mut driver, Order::read(Protocol::Multiple, Address::Lba28, 100, sectors));
        assert!(reply.good(), "{reply:?}");
        assert_eq!(reply.interrupts, interrupts, "the last block may be shorter");
        assert_eq!(reply.data, m.sectors(100, sectors as usize));

        let data = Rng::new(multiple.into()).bytes(sectors as usize * 512);
        let order = Order::write(Protocol::Multiple, Address::Lba48, false, 200, data.clone());
        let reply = m.run(&mut driver, order);
        assert!(reply.good(), "{reply:?}");
        assert_eq!(reply.interrupts, interrupts);
        assert_eq!(m.sectors(200, sectors as usize), data);
    }
}

#[test]
fn word_and_dword_accesses_mix() {
    let mut m = Machine::new();
    m.issue(0x20, 0, 1, 3);
    m.settle();
    let mut got = m.read_data(6);
    let mut rest = [0; 506];
    let (head, tail) = rest.split_at_mut(4);
    assert_eq!(m.ide.read(kagero_devices::ide::Port::Command(Primary, 0), head), Ok(()));
    assert_eq!(m.ide.read_data(Primary, 2, tail), Ok(()));
    got.extend(rest);
    assert_eq!(got, m.sectors(3, 1));

    let mut driver = m.driver();
    driver.dwords = true;
    let data = Rng::new(9).bytes(1_024);
    assert!(m.run(&mut driver, Order::write(Protocol::Pio, Address::Lba28, false, 3, data.clone())).good());
    let reply = m.run(&mut driver, Order::read(Protocol::Pio, Address::Lba28, 3, 2));
    assert_eq!((reply.good(), reply.data), (true, data));
}

/// `rep insw` over the end of a block goes on with the next; over the end of the command it reads ones.
#[test]
fn one_access_may_run_over_blocks() {
    let mut m = Machine::new();
    m.issue(0x20, 0, 2, 7);
    m.settle();
    let data = m.read_data(1_030);
    assert_eq!(data[..1_024], *m.sectors(7, 2));
    assert_eq!(data[1_024..], [0xff; 6]);
    assert_eq!(m.status(), READY);
    assert!(m.intrq(), "of the second block");
}

/// A count of 0 is 65,536 sectors for EXT commands. They go through 128 KiB at a time.
#[test]
fn the_longest_command_goes_in_pieces() {
    let mut m = Machine::with([66_000, 0, 0, 0], Pace::Whole);
    let mut driver = m.driver();
    let reply = m.run(&mut driver, Order::read(Protocol::Multiple, Address::Lba48, 300, 65_536));
    assert!(reply.good());
    assert!(reply.data == m.sectors(300, 65_536));
    let expect: Vec<Operation> =
        (0..256).map(|n| Operation::Read { lba: 300 + 256 * n, sectors: 256 }).collect();
    assert_eq!(operations(&m), expect);
    m.disks.log.clear();

    let data = Rng::new(2).bytes(300 * 512);
    let order = Order::write(Protocol::Pio, Address::Lba48, false, 9, data.clone());
    assert!(m.run(&mut driver, order).good());
    assert!(m.sectors(9, 300) == data);
    let write = |lba, sectors| Operation::Write { lba, sectors, durable: false };
    assert_eq!(operations(&m), [write(9, 256), write(265, 44)]);
}

#[test]
fn a_count_of_zero_is_256_sectors() {
    let mut m = Machine::new();
    let mut driver = m.driver();
    for protocol in [Protocol::Pio, Protocol::Multiple] {
        let reply = m.run(&mut driver, Order::read(protocol, Address::Lba28, 17, 256));
        assert!(reply.good() && reply.data == m.sectors(17, 256));
    }
}

/// The guest gets the sectors before a bad one, then the error with its address: Linux takes all before it for read.
#[test]
fn a_bad_sector_ends_a_read_after_the_good_ones() {
    let mut m = Machine::new();
    m.disks.bad = Some((0x1000 + 300, error::UNC));
    let mut driver = m.driver();
    let reply = m.run(&mut driver, Order::read(Protocol::Pio, Address::Lba48, 0x1000, 400));
    assert_eq!((reply.status, reply.error), (FAILED, error::UNC));
    assert!(reply.data == m.sectors(0x1000, 300));
    assert_eq!((m.inb(3), m.inb(4)), (0x2c, 0x11));
    assert_eq!(m.inb(2), 100, "not done");

    m.disks.bad = Some((0x1000, error::UNC));
    let reply = m.run(&mut driver, Order::read(Protocol::Multiple, Address::Lba28, 0x1000, 4));
    assert_eq!((reply.status, reply.error, reply.data.len()), (FAILED, error::UNC, 0));
    assert_eq!((m.inb(3), m.inb(4), m.inb(2)), (0x00, 0x10, 4));
}

#[test]
fn a_bad_sector_ends_a_write() {
    let mut m = Machine::new();
    m.disks.bad = Some((300, error::IDNF));
    let mut driver = m.driver();
    let order = Order::write(Protocol::Pio, Address::Lba48, false, 0, vec![1; 400 * 512]);
    let reply = m.run(&mut driver, order);
    assert_eq!((reply.status, reply.error), (FAILED, error::IDNF));
    assert_eq!((m.inb(2), m.inb(3), m.inb(4)), (100, 0x2c, 0x01));
}

/// A target that fails a command without an error bit must not look like success.
#[test]
fn an_error_without_a_reason_is_abrt() {
    let mut m = Machine::new();
    m.disks.bad = Some((0, 0));
    assert_eq!(m.command(0x20, 0, 1, 0), FAILED);
    assert_eq!(m.inb(1), error::ABRT);
}

/// Without the write cache, and with FUA, a write is done when its data is durable.
#[test]
fn durable_writes_say_so() {
    let mut m = Machine::new();
    let mut driver = m.driver();
    let mut write = |protocol, fua| {
        let order = Order::write(protocol, Address::Lba48, fua, 5, vec![7; 512]);
        assert!(m.run(&mut driver, order).good());
        matches!(operations(&m).last(), Some(Operation::Write { lba: 5, sectors: 1, durable: true }))
    };
    assert!(!write(Protocol::Pio, false));
    assert!(!write(Protocol::Multiple, false));
    assert!(write(Protocol::Multiple, true));
    assert!(!write(Protocol::Dma, false));
    assert!(write(Protocol::Dma, true));
    assert_eq!(m.command(0xef, 0x82, 0, 0), READY);
    let order = Order::write(Protocol::Pio, Address::Lba28, false, 5, vec![8; 512]);
    assert!(m.run(&mut driver, order).good());
    assert_eq!(operations(&m).last(), Some(&Operation::Write { lba: 5, sectors: 1, durable: true }));
}
