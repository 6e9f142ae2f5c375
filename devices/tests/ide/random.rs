//! Anything a guest may do, and any answer: no panic, and what must always hold does.

use kagero_devices::ata::{Address, Protocol};
use kagero_devices::ide::{Channel, Ide, Port};
use kagero_devices::memory::DmaMemory;
use kagero_devices::storage::{Controller, Outcome, Request, Tag};
use kagero_devices::toy::{Driver, Order, Pace, Rng, inb, outb, outl};
use proptest::prelude::*;

use crate::machine::{Machine, Primary, Secondary, TABLE};

/// What a hostile guest and a confused network do.
#[derive(Clone, Debug)]
enum Act {
    Write(Port, Vec<u8>),
    Read(Port, usize),
    ReadData(Channel, usize),
    WriteData(Channel, usize),
    Config(u8, Vec<u8>),
    /// A command that means something, with its arguments; perhaps with the bus master started for it.
    Command(Channel, u8, [u8; 6], bool),
    /// The bus master's command register, with a table that is there.
    BusMaster(Channel, u8),
    /// Device Control, mostly without SRST.
    Control(Channel, u8),
    Poll,
    DataIn {
        stale: bool,
        at: u32,
        bytes: usize,
    },
    DataOut {
        stale: bool,
        at: u32,
        bytes: usize,
    },
    Complete {
        stale: bool,
        outcome: Outcome,
    },
    Reset,
}

fn channel() -> impl Strategy<Value = Channel> {
    prop_oneof![Just(Primary), Just(Secondary)]
}

fn port() -> impl Strategy<Value = Port> {
    prop_oneof![
        (channel(), 0u8..9).prop_map(|(channel, offset)| Port::Command(channel, offset)),
        (0u8..17).prop_map(Port::BusMaster),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        6 => Just(Outcome::Done),
        1 => (any::<u8>(), 0u32..70_000).prop_map(|(error, done)| Outcome::Failed { error, done }),
        1 => Just(Outcome::DmaFault),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let width = prop_oneof![Just(1usize), Just(2), Just(4), 0usize..6];
    let bytes = prop_oneof![Just(512usize), (0usize..2_048).prop_map(|words| 2 * words)];
    let at = prop_oneof![Just(0u32), 0u32..140_000, any::<u32>()];
    let code = prop_oneof![
        proptest::sample::select(vec![
            0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x3d, 0x06, 0x40, 0x42, 0x90, 0xc4, 0xc5, 0xc8,
            0xca, 0xce, 0xe7, 0xec,
        ]),
        any::<u8>(),
    ];
    let stale = proptest::bool::weighted(0.1);
    // Few sectors near the start of some disk, so that most commands are carried out.
    let file = (0u8..4, 0u8..4, 0u8..32, 0u8..2, prop_oneof![3 => Just(0x40u8), 1 => any::<u8>()]);
    let file = file.prop_map(|(features, count, low, mid, device)| [features, count, low, mid, 0, device]);
    let offset = prop_oneof![6 => Just(4u8), 6 => Just(0x20), 1 => any::<u8>()];
    let control = prop_oneof![6 => Just(0u8), 2 => Just(2), 1 => Just(0x80), 1 => any::<u8>()];
    let start = prop_oneof![4 => Just(1u8), 4 => Just(9), 4 => Just(0), 1 => any::<u8>()];
    prop_oneof![
        1 => (port(), proptest::collection::vec(any::<u8>(), 1..5)).prop_map(|(port, data)| Act::Write(port, data)),
        1 => (port(), any::<u8>()).prop_map(|(port, value)| Act::Write(port, vec![value])),
        2 => (port(), width).prop_map(|(port, width)| Act::Read(port, width)),
        8 => (channel(), bytes.clone()).prop_map(|(channel, bytes)| Act::ReadData(channel, bytes)),
        8 => (channel(), bytes.clone()).prop_map(|(channel, bytes)| Act::WriteData(channel, bytes)),
        1 => (offset, proptest::collection::vec(any::<u8>(), 1..5))
            .prop_map(|(offset, data)| Act::Config(offset, data)),
        12 => (channel(), code, file, any::<bool>()).prop_map(|(channel, code, file, start)| Act::Command(channel, code, file, start)),
        6 => (channel(), start).prop_map(|(channel, value)| Act::BusMaster(channel, value)),
        3 => (channel(), control).prop_map(|(channel, value)| Act::Control(channel, value)),
        1 => Just(Act::Poll),
        6 => (stale, at.clone(), bytes.clone()).prop_map(|(stale, at, bytes)| Act::DataIn { stale, at, bytes }),
        4 => (stale, at, bytes).prop_map(|(stale, at, bytes)| Act::DataOut { stale, at, bytes }),
        12 => (stale, outcome()).prop_map(|(stale, outcome)| Act::Complete { stale, outcome }),
        1 => Just(Act::Reset),
    ]
}

/// What the other side believes to be under way, by channel.
#[derive(Default)]
struct Believed([Option<Tag>; 2]);

impl Believed {
    fn poll(&mut self, ide: &mut Ide) {
        while let Some(request) = ide.poll_request() {
            match request {
                Request::Start(command) => {
                    let channel = usize::from(command.disk / 2);
                    assert_eq!(self.0[channel].replace(command.tag), None, "one command a channel");
                }
                Request::Cancel(tag) => {
                    let channel = self.0.iter().position(|believed| *believed == Some(tag));
                    self.0[channel.expect("cancelled what is under way")] = None;
                }
            }
        }
    }

    fn some(&self, rng: &mut Rng, stale: bool) -> Tag {
        let n = rng.below(2) as usize;
        match self.0[n].or(self.0[1 - n]) {
            Some(tag) if !stale => tag,
            _ => Tag(rng.below(64) as u32 | 1 << 20),
        }
    }
}

fn play(m: &mut Machine, believed: &mut Believed, rng: &mut Rng, act: Act) {
    match act {
        Act::Write(port, data) => drop(m.ide.write(&m.mem, port, &data)),
        Act::Read(port, width) => drop(m.ide.read(port, &mut vec![0; width])),
        Act::ReadData(channel, bytes) => drop(m.ide.read_data(channel, 2, &mut vec![0; bytes])),
        Act::WriteData(channel, bytes) => drop(m.ide.write_data(channel, 2, &vec![0; bytes])),
        Act::Config(offset, data) => assert!(m.ide.write_config(offset, &data).count() <= 1),
        Act::Command(channel, code, file, start) => {
            if start {
                play(m, believed, rng, Act::BusMaster(channel, 0));
                play(m, believed, rng, Act::BusMaster(channel, 1));
            }
            for (offset, value) in (1..).zip(file) {
                outb(&mut m.ide, &m.mem, Port::Command(channel, offset), value);
            }
            outb(&mut m.ide, &m.mem, Port::Command(channel, 7), code);
        }
        Act::BusMaster(channel, value) => {
            let base = 8 * channel as u8;
            outl(&mut m.ide, &m.mem, Port::BusMaster(base + 4), TABLE);
            outb(&mut m.ide, &m.mem, Port::BusMaster(base), value);
        }
        Act::Control(channel, value) => outb(&mut m.ide, &m.mem, Port::Control(channel), value),
        Act::Poll => {}
        Act::DataIn { stale, at, bytes } => {
            let tag = believed.some(rng, stale);
            m.ide.data_in(&m.mem, tag, at, &vec![0x5a; bytes]);
        }
        Act::DataOut { stale, at, bytes } => {
            let tag = believed.some(rng, stale);
            let _either = m.ide.data_out(&m.mem, tag, at, &mut vec![0; bytes]);
        }
        Act::Complete { stale, outcome } => {
            let tag = believed.some(rng, stale);
            m.ide.complete(&m.mem, tag, outcome);
            for slot in &mut believed.0 {
                if *slot == Some(tag) {
                    *slot = None;
                }
            }
        }
        Act::Reset => assert!(m.ide.reset().count() <= 1),
    }
    believed.poll(&mut m.ide);
}

/// What holds at any time, looked at without changing anything.
fn check(m: &mut Machine, believed: &Believed) {
    let mut decode = [0; 4];
    m.ide.read_config(0x40, &mut decode);
    for (n, channel) in [Primary, Secondary].into_iter().enumerate() {
        if decode[2 * n + 1] & 0x80 == 0 {
            continue;
        }
        let status = inb(&mut m.ide, Port::Control(channel));
        let device = inb(&mut m.ide, Port::Command(channel, 6));
        let present = device & 0x10 == 0 || n == 0;
        if !present {
            assert_eq!(status, 0);
            assert_eq!(m.ide.irq() >> n & 1, 0, "an absent disk does not interrupt");
            continue;
        }
        assert!([0x50, 0x51, 0x58, 0x80].contains(&status), "status {status:#x}");
        if believed.0[n].is_some() {
            assert_eq!(status, 0x80, "busy while a command is under way");
        }
        let error = inb(&mut m.ide, Port::Command(channel, 1));
        assert!(status & 1 == 0 || error != 0, "ERR has a reason");
    }
}

/// After all that, a reset makes it a controller that works.
fn recover(m: &mut Machine, believed: &mut Believed) {
    assert!(m.ide.reset().count() <= 1);
    believed.poll(&mut m.ide);
    assert_eq!(believed.0, [None; 2], "all that was under way is cancelled");
    assert!(m.ide.write_config(4, &[5, 0]).count() <= 1);
    let mut driver = Driver::new(Primary, false, 0x10_0000, 1);
    let reply = m.run(&mut driver, Order::read(Protocol::Dma, Address::Lba28, 1, 3));
    assert!(reply.good() && reply.data == m.sectors(1, 3));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_upsets_the_controller(acts in proptest::collection::vec(act(), 100..300), seed in any::<u64>()) {
        let mut m = Machine::with([300, 64, 100, 0], Pace::Whole);
        let mut rng = Rng::new(seed);
        // PRD tables with all kinds of entries, at zero and where the tests put theirs.
        for table in [0, TABLE] {
            for entry in 0..64 {
                let anywhere = rng.below(4) == 0;
                let gpa = if anywhere { rng.number() } else { rng.below(16 << 20) } as u32;
                let count = rng.below(0x4000) as u32 | if rng.below(8) == 0 { 0x8000_0000 } else { 0 };
                let value = u64::from(count) << 32 | u64::from(gpa);
                prop_assert!(m.mem.write(u64::from(table + 8 * entry), &value.to_le_bytes()).is_ok());
            }
        }
        let mut believed = Believed::default();
        for act in acts {
            play(&mut m, &mut believed, &mut rng, act);
            check(&mut m, &believed);
        }
        recover(&mut m, &mut believed);
    }
}

/// Random reads, writes and trims by a driver that knows what must be on the disk.
#[test]
fn what_is_written_is_read() {
    const SECTORS: u64 = 2_048;
    let mut m = Machine::with([SECTORS, 0, 0, 0], Pace::Pieces(2_048));
    let mut driver = m.driver();
    let mut rng = Rng::new(42);
    let mut model = m.disks.contents[0].clone();
    for round in 0..1_500 {
        let most = if rng.below(10) == 0 { 300 } else { 8 };
        let sectors = 1 + rng.below(most);
        let lba = rng.below(SECTORS - sectors + 1);
        let range = lba as usize * 512..(lba + sectors) as usize * 512;
        let protocol = [Protocol::Pio, Protocol::Multiple, Protocol::Dma][rng.below(3) as usize];
        let address = if sectors > 256 || rng.below(2) == 0 { Address::Lba48 } else { Address::Lba28 };
        driver.dwords = rng.below(2) == 0;
        match rng.below(10) {
            0 => {
                let reply = m.run(&mut driver, Order::trim(&[(lba, sectors as u16)]));
                assert!(reply.good(), "round {round}: {reply:?}");
                model[range].fill(0);
            }
            1..=4 => {
                let data = rng.bytes(range.len());
                model[range].copy_from_slice(&data);
                let fua = rng.below(2) == 0;
                let reply = m.run(&mut driver, Order::write(protocol, address, fua, lba, data));
                assert!(reply.good(), "round {round}: {reply:?}");
            }
            _ => {
                let reply = m.run(&mut driver, Order::read(protocol, address, lba, sectors as u32));
                assert!(reply.good(), "round {round}: {:#x} {:#x}", reply.status, reply.error);
                assert!(reply.data == model[range], "round {round}");
            }
        }
    }
    assert!(m.disks.contents[0] == model);
}
