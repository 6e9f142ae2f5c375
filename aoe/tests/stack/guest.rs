//! A guest that does random things to the disks of one channel, and knows what must come of them.

use std::time::Duration;

use kagero_aoe::Instant;
use kagero_devices::ata::bits::{control, error, status};
use kagero_devices::ata::{Address, Opcode, Protocol, identify};
use kagero_devices::ide::{Channel, Ide, Port};
use kagero_devices::storage::Controller;
use kagero_devices::toy::{Data, Driver, Memory, Order, Reply, Rng, outb};

use crate::contents::Model;
use crate::server::{Medium, Server};

/// What the drive shows when all is well.
const READY: u8 = status::DRDY | status::DSC;

/// What must come of a command.
#[derive(Debug)]
enum Expect {
    Read {
        lba: u64,
        sectors: u32,
    },
    Write {
        lba: u64,
        sectors: u32,
        version: u32,
        durable: bool,
    },
    Trim(Vec<(u64, u16)>),
    Verify {
        lba: u64,
        sectors: u32,
    },
    Flush,
    Identify,
    Multiple(u8),
    WriteCache(bool),
    /// It does nothing that could be seen.
    Done,
    /// It ends with this error and does nothing.
    Error(u8),
}

/// One of the guest's disks.
struct Disk {
    /// Its number, of all the machine's.
    number: u8,
    driver: Driver,
    model: Model,
    write_cache: bool,
    /// Where the last command was.
    recent: u64,
}

struct Running {
    disk: usize,
    expect: Expect,
    /// When the guest loses patience.
    reset_at: Option<Instant>,
}

/// Commands, by how they went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) reset: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
}

pub(crate) struct Guest {
    channel: Channel,
    disks: Vec<Disk>,
    running: Option<Running>,
    rng: Rng,
    /// Commands still to begin.
    pub(crate) left: u64,
    pub(crate) counts: Counts,
    /// When the last command ended.
    pub(crate) ended: Instant,
}

impl Guest {
    /// A guest with the channel's disks in `models`; it uses 8 MiB of RAM from `base`.
    pub(crate) fn new(channel: Channel, models: Vec<Model>, base: u32, seed: u64) -> Self {
        let disk = |(place, model): (u32, Model)| {
            let number = 2 * channel as u8 + place as u8;
            let driver = Driver::new(channel, place == 1, base + place * 0x40_0000, seed + u64::from(place));
            Disk { number, driver, model, write_cache: true, recent: 0 }
        };
        let disks = (0..).zip(models).map(disk).collect();
        let rng = Rng::new(!seed);
        Guest { channel, disks, running: None, rng, left: 0, counts: Counts::default(), ended: Instant::ZERO }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.left == 0 && self.running.is_none()
    }

    /// When something is to be done that no interrupt tells.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.running.as_ref()?.reset_at
    }

    /// Does what can be done now; false when there is nothing.
    pub(crate) fn step(&mut self, now: Instant, ide: &mut Ide, mem: &Memory, server: &Server) -> bool {
        let Some(running) = &self.running else {
            if self.left > 0 {
                self.left -= 1;
                self.begin(now, ide, mem, server);
                return true;
            }
            return false;
        };
        let disk = &mut self.disks[running.disk];
        if running.reset_at.is_some_and(|at| at <= now) {
            if self.rng.below(2) == 0 {
                // Without stopping the bus master first, as a driver in distress may.
                outb(ide, mem, Port::Control(self.channel), control::SRST);
            }
            disk.driver.reset(ide, mem);
            self.abandon();
            return true;
        }
        loop {
            if let Some(reply) = disk.driver.poll(ide, mem) {
                self.ended = now;
                self.end(&reply, server);
                return true;
            }
            if ide.irq() & 1 << self.channel as u32 == 0 {
                return false;
            }
        }
    }

    /// The machine was reset.
    pub(crate) fn machine_reset(&mut self, ide: &mut Ide, mem: &Memory) {
        self.abandon();
        for disk in &mut self.disks {
            disk.driver.reset(ide, mem);
            disk.driver.multiple = 16;
            disk.write_cache = true;
        }
    }

    /// The command was cut short: a write may have reached any of its sectors.
    fn abandon(&mut self) {
        let Some(Running { disk, expect, .. }) = self.running.take() else { return };
        self.counts.reset += 1;
        self.disks[disk].unsure(&expect);
    }

    /// Compares the disks with what they must hold.
    pub(crate) fn compare(&self, server: &Server) {
        for disk in &self.disks {
            disk.model.compare(&disk.medium(server).contents);
        }
    }

    fn begin(&mut self, now: Instant, ide: &mut Ide, mem: &Memory, server: &Server) {
        let Guest { disks, rng, .. } = self;
        let index = rng.below(disks.len() as u64) as usize;
        let disk = &mut disks[index];
        let (order, expect) = disk.order(rng, disk.medium(server).bad);
        disk.driver.dwords = rng.below(2) == 0;
        disk.driver.begin(ide, mem, order);
        // Some resets come before anything was sent, some when much is under way.
        let patience = Duration::from_nanos(1 + rng.below(4_000_000));
        let reset_at = (rng.below(50) == 0).then(|| now + patience);
        self.running = Some(Running { disk: index, expect, reset_at });
    }

    fn end(&mut self, reply: &Reply, server: &Server) {
        let Some(Running { disk, expect, .. }) = self.running.take() else { return };
        let disk = &mut self.disks[disk];
        let medium = disk.medium(server);
        let bad =
            |lba: u64, sectors: u32| medium.bad.filter(|bad| (lba..lba + u64::from(sectors)).contains(bad));
        let failure = match expect {
            Expect::Error(error) => Some(error),
            Expect::Read { lba, sectors }
            | Expect::Write { lba, sectors, .. }
            | Expect::Verify { lba, sectors } => bad(lba, sectors).map(|_| error::UNC),
            _ => None,
        };
        if let Some(error) = failure {
            self.counts.failed += 1;
            assert_eq!((reply.status, reply.error), (READY | status::ERR, error), "{expect:?}");
            disk.unsure(&expect);
            return;
        }
        self.counts.done += 1;
        assert!(reply.good() && reply.status == READY, "{expect:?}: {:#x} {:#x}", reply.status, reply.error);
        match expect {
            Expect::Read { lba, sectors } => {
                assert_eq!(reply.data.len(), sectors as usize * 512, "{expect:?}");
                disk.model.read(lba, &reply.data);
                self.counts.bytes_read += reply.data.len() as u64;
            }
            Expect::Write { lba, sectors, version, durable } => {
                disk.model.written(lba, sectors, version);
                self.counts.bytes_written += u64::from(sectors) * 512;
                let unsynced = medium.unsynced.range(lba..lba + u64::from(sectors)).next();
                assert!(!durable || unsynced.is_none(), "{expect:?}: {unsynced:?} would be lost");
            }
            Expect::Trim(ranges) => {
                ranges.iter().for_each(|&(lba, sectors)| disk.model.written(lba, sectors.into(), 0));
            }
            Expect::Flush => {
                // A write that was cut short may arrive at any time.
                let lost = medium.unsynced.iter().find(|&&lba| disk.model.is_certain(lba));
                assert_eq!(lost, None, "a sector would be lost after FLUSH CACHE");
            }
            Expect::Identify => {
                let data = reply.data.as_slice().try_into().expect("a sector");
                let told = identify::parse(data).expect("a disk").disk;
                let serial = format!("serial-{}", disk.number);
                assert_eq!((told.sectors, told.serial, told.trim), (disk.model.sectors(), serial, true));
            }
            Expect::Multiple(sectors) => disk.driver.multiple = sectors.into(),
            Expect::WriteCache(on) => disk.write_cache = on,
            Expect::Verify { .. } | Expect::Done | Expect::Error(_) => {}
        }
    }
}

impl Disk {
    fn medium<'a>(&self, server: &'a Server) -> &'a Medium {
        &server.media[usize::from(self.number)]
    }

    /// The command has not done all of its work.
    fn unsure(&mut self, expect: &Expect) {
        match expect {
            Expect::Write { lba, sectors, version, .. } => {
                self.model.perhaps_written(*lba, *sectors, *version)
            }
            Expect::Trim(ranges) => {
                ranges.iter().for_each(|&(lba, sectors)| self.model.perhaps_written(lba, sectors.into(), 0));
            }
            _ => {}
        }
    }

    /// Some sectors, often where the last command was.
    fn place(&mut self, rng: &mut Rng) -> (u64, u32) {
        let sectors = self.model.sectors();
        let most = match rng.below(400) {
            0 => 2_000,
            1..=20 => 300,
            _ => 16,
        };
        let count = 1 + rng.below(most.min(sectors));
        let anywhere = rng.below(sectors - count + 1);
        let lba = if rng.below(2) == 0 { anywhere } else { self.recent.min(sectors - count) };
        self.recent = lba;
        (lba, count as u32)
    }

    /// A random command, and what must come of it.
    fn order(&mut self, rng: &mut Rng, bad: Option<u64>) -> (Order, Expect) {
        let (lba, sectors) = self.place(rng);
        let protocol =
            [Protocol::Pio, Protocol::Multiple, Protocol::Dma, Protocol::Dma][rng.below(4) as usize];
        let address = if sectors > 256 || rng.below(2) == 0 { Address::Lba48 } else { Address::Lba28 };
        match rng.below(100) {
            0..40 => (Order::read(protocol, address, lba, sectors), Expect::Read { lba, sectors }),
            40..80 => {
                let (version, data) = self.model.payload(lba, sectors);
                let fua = rng.below(4) == 0;
                let has_fua = address == Address::Lba48 && protocol != Protocol::Pio;
                let durable = fua && has_fua || !self.write_cache;
                let order = Order::write(protocol, address, fua, lba, data);
                (order, Expect::Write { lba, sectors, version, durable })
            }
            80..84 => {
                // Sometimes more than fit a block of 64, so that it goes in several frames.
                let count = if rng.below(3) == 0 { 200 } else { 1 + rng.below(8) };
                let mut ranges: Vec<_> =
                    (0..count).map(|_| self.place(rng)).map(|(lba, n)| (lba, n as u16)).collect();
                ranges.retain(|&(lba, n)| bad.is_none_or(|bad| !(lba..lba + u64::from(n)).contains(&bad)));
                ranges.push((0, 0));
                (Order::trim(&ranges), Expect::Trim(ranges))
            }
            84..88 => (Order::plain(Opcode::Flush(address), 0, 0), Expect::Flush),
            88..91 => {
                let order = Order::read(Protocol::Pio, address, lba, sectors);
                (
                    Order { opcode: Opcode::Verify(address), data: Data::None, ..order },
                    Expect::Verify { lba, sectors },
                )
            }
            91..93 => (Order::identify(), Expect::Identify),
            93 => {
                let sectors = 1 << rng.below(5);
                (Order::plain(Opcode::SetMultiple, 0, sectors.into()), Expect::Multiple(sectors))
            }
            94 => {
                let on = rng.below(4) > 0;
                let features = if on { 0x02 } else { 0x82 };
                (Order::plain(Opcode::SetFeatures, features, 0), Expect::WriteCache(on))
            }
            95 => {
                let beyond = self.model.sectors() - u64::from(sectors) + 1;
                (Order::read(protocol, address, beyond, sectors), Expect::Error(error::IDNF))
            }
            96 => {
                let beyond = self.model.sectors();
                let data = vec![0xaa; sectors as usize * 512];
                (Order::write(protocol, address, false, beyond, data), Expect::Error(error::IDNF))
            }
            97 => (Order::plain(Opcode::Nop, 0, 0), Expect::Error(error::ABRT)),
            98 => (Order::plain(Opcode::Recalibrate, 0, 0), Expect::Done),
            _ => (Order::plain(Opcode::CheckPower, 0, 0), Expect::Done),
        }
    }
}
