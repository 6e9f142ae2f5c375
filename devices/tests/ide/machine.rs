//! A machine with an IDE controller and no CPU: the tests say what a guest would do.

use kagero_devices::ata::bits::{device, status};
use kagero_devices::ide::{Channel, Ide, Port};
use kagero_devices::memory::DmaMemory;
use kagero_devices::storage::{Controller, Disk, Request, SECTOR};
use kagero_devices::toy::{Disks, Driver, Memory, Order, Pace, Reply, Rng, inb, outb, outl};

pub(crate) use Channel::{Primary, Secondary};

/// Where the tests put PRD tables and buffers.
pub(crate) const TABLE: u32 = 0x2_0000;
pub(crate) const BUFFER: u32 = 0x4_0000;

pub(crate) const READY: u8 = status::DRDY | status::DSC;
pub(crate) const FAILED: u8 = READY | status::ERR;
pub(crate) const DATA: u8 = READY | status::DRQ;

pub(crate) struct Machine {
    pub(crate) ide: Ide,
    pub(crate) mem: Memory,
    pub(crate) disks: Disks,
}

pub(crate) fn disk(name: &str, sectors: u64) -> Disk {
    Disk { sectors, serial: format!("serial-{name}"), model: format!("Model {name}"), trim: true }
}

impl Machine {
    /// Disks of these sizes: primary 0 and 1, secondary 0 and 1. Their contents are random, or zeros past 66,000 sectors.
    pub(crate) fn with(sectors: [u64; 4], pace: Pace) -> Self {
        let mut rng = Rng::new(7);
        let contents = sectors.map(|sectors| match sectors as usize * SECTOR as usize {
            bytes if sectors > 66_000 => vec![0; bytes],
            bytes => rng.bytes(bytes),
        });
        let mut n = 0;
        let disks = sectors.map(|sectors| {
            n += 1;
            (sectors > 0).then(|| disk(&n.to_string(), sectors))
        });
        let mut ide = Ide::new(disks);
        assert_eq!(ide.write_config(4, &[5, 0]).count(), 0, "I/O and bus master, no base yet");
        Machine { ide, mem: Memory::new(16 << 20), disks: Disks::new(contents.to_vec(), pace, 11) }
    }

    /// A disk of 8,192 sectors as primary device 0.
    pub(crate) fn new() -> Self {
        Self::with([8_192, 0, 0, 0], Pace::Pieces(4_096))
    }

    pub(crate) fn driver(&self) -> Driver {
        Driver::new(Primary, false, 0x10_0000, 3)
    }

    /// A command by the driver, from begin to end.
    pub(crate) fn run(&mut self, driver: &mut Driver, order: Order) -> Reply {
        let Self { ide, mem, disks } = self;
        let mem = &*mem;
        driver.run(ide, mem, order, |ide| {
            disks.step(ide, mem);
        })
    }

    pub(crate) fn inb(&mut self, offset: u8) -> u8 {
        inb(&mut self.ide, Port::Command(Primary, offset))
    }

    pub(crate) fn outb(&mut self, offset: u8, value: u8) {
        outb(&mut self.ide, &self.mem, Port::Command(Primary, offset), value);
    }

    /// Alternate Status.
    pub(crate) fn status(&mut self) -> u8 {
        inb(&mut self.ide, Port::Control(Primary))
    }

    pub(crate) fn control(&mut self, value: u8) {
        outb(&mut self.ide, &self.mem, Port::Control(Primary), value);
    }

    pub(crate) fn bm_in(&mut self, offset: u8) -> u8 {
        inb(&mut self.ide, Port::BusMaster(offset))
    }

    pub(crate) fn bm_out(&mut self, offset: u8, value: u8) {
        outb(&mut self.ide, &self.mem, Port::BusMaster(offset), value);
    }

    /// INTRQ of the primary channel.
    pub(crate) fn intrq(&self) -> bool {
        self.ide.irq() & 1 != 0
    }

    /// Registers 1 to 6 and the command, with the LBA bit and in 28 bits.
    pub(crate) fn issue(&mut self, code: u8, features: u8, count: u8, lba: u32) {
        let [low, mid, high, top] = lba.to_le_bytes();
        let values = [features, count, low, mid, high, 0xa0 | device::LBA | top];
        for (offset, value) in (1..).zip(values) {
            self.outb(offset, value);
        }
        self.outb(7, code);
    }

    /// The command, and all that it needs from the disks.
    pub(crate) fn command(&mut self, code: u8, features: u8, count: u8, lba: u32) -> u8 {
        self.issue(code, features, count, lba);
        self.settle();
        self.status()
    }

    /// Lets the disks do all they have to do.
    pub(crate) fn settle(&mut self) {
        while self.disks.step(&mut self.ide, &self.mem) {}
    }

    pub(crate) fn requests(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.ide.poll_request()).collect()
    }

    pub(crate) fn read_data(&mut self, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        assert_eq!(self.ide.read_data(Primary, 2, &mut out), Ok(()));
        out
    }

    pub(crate) fn write_data(&mut self, data: &[u8]) {
        assert_eq!(self.ide.write_data(Primary, 2, data), Ok(()));
    }

    /// Words of an answer that is ready at the data port.
    pub(crate) fn words(&mut self) -> Vec<u16> {
        self.read_data(512).chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    /// A PRD table of regions: address, count and flags as in memory.
    pub(crate) fn table(&mut self, entries: &[(u32, u32)]) {
        for (i, (gpa, count)) in entries.iter().enumerate() {
            let entry = u64::from(*count) << 32 | u64::from(*gpa);
            assert_eq!(self.mem.write(u64::from(TABLE) + 8 * i as u64, &entry.to_le_bytes()), Ok(()));
        }
        outl(&mut self.ide, &self.mem, Port::BusMaster(4), TABLE);
    }

    pub(crate) fn peek(&self, gpa: u32, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        assert_eq!(self.mem.read(gpa.into(), &mut out), Ok(()));
        out
    }

    /// What the primary channel's disk 0 holds.
    pub(crate) fn sectors(&self, lba: usize, count: usize) -> &[u8] {
        &self.disks.contents[0][lba * 512..(lba + count) * 512]
    }
}
