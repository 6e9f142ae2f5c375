//! A small ATA driver: it knows the registers of a PIIX IDE controller, and waits for interrupts where the standard promises one.

use alloc::vec;
use alloc::vec::Vec;

use super::Rng;
use crate::ata::bits::{control, device, status};
use crate::ata::{Address, Opcode, Protocol};
use crate::ide::{Channel, Ide, Port};
use crate::memory::DmaMemory;
use crate::storage::{Controller, SECTOR};

/// A guest's `in al, dx`; ones when nothing answers.
pub fn inb(ide: &mut Ide, port: Port) -> u8 {
    let mut out = [0xff];
    if ide.read(port, &mut out).is_ok() { out[0] } else { 0xff }
}

/// A guest's `out dx, al`.
pub fn outb(ide: &mut Ide, mem: &impl DmaMemory, port: Port, value: u8) {
    let _dropped_like_on_a_bus = ide.write(mem, port, &[value]);
}

/// A guest's `in eax, dx`; ones when nothing answers.
pub fn inl(ide: &mut Ide, port: Port) -> u32 {
    let mut out = [0xff; 4];
    if ide.read(port, &mut out).is_ok() { u32::from_le_bytes(out) } else { u32::MAX }
}

/// A guest's `out dx, eax`.
pub fn outl(ide: &mut Ide, mem: &impl DmaMemory, port: Port, value: u32) {
    let _dropped_like_on_a_bus = ide.write(mem, port, &value.to_le_bytes());
}

/// What an [`Order`] writes to the command block. Counts and LBAs of more than a register hold go in two writes each, for EXT commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Features.
    pub features: u8,
    /// Sector Count, both values.
    pub count: u16,
    /// The address.
    pub lba: u64,
}

/// What a command moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    None,
    /// So many sectors to the guest.
    In(u32),
    /// These bytes, whole sectors, to the disk.
    Out(Vec<u8>),
}

/// A command for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The command.
    pub opcode: Opcode,
    /// Its arguments.
    pub registers: Registers,
    /// Its data.
    pub data: Data,
}

impl Order {
    /// A command without data.
    #[must_use]
    pub fn plain(opcode: Opcode, features: u8, count: u16) -> Self {
        Order { opcode, registers: Registers { features, count, lba: 0 }, data: Data::None }
    }

    /// IDENTIFY DEVICE.
    #[must_use]
    pub fn identify() -> Self {
        Order { data: Data::In(1), ..Order::plain(Opcode::Identify, 0, 0) }
    }

    /// A read of `sectors` sectors.
    #[must_use]
    pub fn read(protocol: Protocol, address: Address, lba: u64, sectors: u32) -> Self {
        let registers = Registers { features: 0, count: sectors as u16, lba };
        Order { opcode: Opcode::Read { protocol, address }, registers, data: Data::In(sectors) }
    }

    /// A write of `data`, whole sectors.
    #[must_use]
    pub fn write(protocol: Protocol, address: Address, fua: bool, lba: u64, data: Vec<u8>) -> Self {
        let count = (data.len() as u32 / SECTOR) as u16;
        let opcode = Opcode::Write { protocol, address, fua };
        Order { opcode, registers: Registers { features: 0, count, lba }, data: Data::Out(data) }
    }

    /// TRIM of ranges, by first sector and count.
    #[must_use]
    pub fn trim(ranges: &[(u64, u16)]) -> Self {
        let entries = ranges.iter().flat_map(|(lba, count)| (u64::from(*count) << 48 | lba).to_le_bytes());
        let mut data: Vec<u8> = entries.collect();
        data.resize(data.len().next_multiple_of(SECTOR as usize), 0);
        let registers = Registers { features: 1, count: (data.len() as u32 / SECTOR) as u16, lba: 0 };
        Order { opcode: Opcode::DataSetManagement, registers, data: Data::Out(data) }
    }

    fn address(&self) -> Address {
        match self.opcode {
            Opcode::Read { address, .. }
            | Opcode::Write { address, .. }
            | Opcode::Verify(address)
            | Opcode::Flush(address)
            | Opcode::ReadNativeMax(address) => address,
            Opcode::DataSetManagement => Address::Lba48,
            _ => Address::Lba28,
        }
    }

    fn protocol(&self) -> Protocol {
        match self.opcode {
            Opcode::Read { protocol, .. } | Opcode::Write { protocol, .. } => protocol,
            Opcode::DataSetManagement => Protocol::Dma,
            _ => Protocol::Pio,
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status register.
    pub status: u8,
    /// Error register.
    pub error: u8,
    /// Bus master's Status register, before its bits are cleared; 0 for other than DMA commands.
    pub bus_master: u8,
    /// What was read, as far as it came.
    pub data: Vec<u8>,
    /// Interrupts that there were.
    pub interrupts: u32,
}

impl Reply {
    /// Neither drive nor bus master complains.
    #[must_use]
    pub fn good(&self) -> bool {
        self.status & (status::BSY | status::DF | status::DRQ | status::ERR) == 0 && self.bus_master & 3 == 0
    }
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    /// Waits for an interrupt: the end, or a block to read or write.
    Waiting,
    /// Waits for DRQ, as the first block of a write comes without an interrupt.
    FirstBlock,
}

/// The driver for one disk. Give it an order, then poll it.
#[derive(Clone, Debug)]
pub struct Driver {
    channel: Channel,
    device_1: bool,
    /// RAM that is the driver's: the PRD table at the start, then buffers.
    base: u32,
    rng: Rng,
    /// Sectors of a DRQ block in READ and WRITE MULTIPLE, as told with SET MULTIPLE MODE.
    pub multiple: u32,
    /// Use 32-bit accesses of the data port.
    pub dwords: bool,
    state: State,
    order: Order,
    regions: Vec<(u32, u32)>,
    moved: usize,
    data: Vec<u8>,
    interrupts: u32,
}

impl Driver {
    /// A driver for a disk. From `base`, a multiple of 64 KiB, it uses RAM: 64 KiB and about three times what a command moves.
    #[must_use]
    pub fn new(channel: Channel, device_1: bool, base: u32, seed: u64) -> Self {
        Driver {
            channel,
            device_1,
            base,
            rng: Rng::new(seed),
            multiple: 16,
            dwords: false,
            state: State::Idle,
            order: Order::identify(),
            regions: Vec::new(),
            moved: 0,
            data: Vec::new(),
            interrupts: 0,
        }
    }

    /// Begins a command.
    pub fn begin(&mut self, ide: &mut Ide, mem: &impl DmaMemory, order: Order) {
        self.moved = 0;
        self.interrupts = 0;
        self.data = Vec::new();
        self.order = order;
        let dma = self.order.protocol() == Protocol::Dma && self.order.data != Data::None;
        if dma {
            self.prepare(ide, mem);
        }
        self.issue(ide, mem);
        if dma {
            let start = inb(ide, self.bus_master(0)) | 1;
            outb(ide, mem, self.bus_master(0), start);
        }
        let pio_out = !dma && matches!(self.order.data, Data::Out(_));
        self.state = if pio_out { State::FirstBlock } else { State::Waiting };
    }

    /// Looks whether something is to be done; the reply when the command has ended.
    pub fn poll(&mut self, ide: &mut Ide, mem: &impl DmaMemory) -> Option<Reply> {
        match self.state {
            State::Idle => None,
            State::FirstBlock => {
                let status = inb(ide, Port::Control(self.channel));
                if status & status::BSY != 0 {
                    return None;
                }
                if status & status::DRQ == 0 {
                    return Some(self.end(ide, mem, status, 0));
                }
                self.state = State::Waiting;
                self.block(ide);
                None
            }
            State::Waiting => {
                if ide.irq() & (1 << self.channel as u8) == 0 {
                    return None;
                }
                self.interrupts += 1;
                self.interrupt(ide, mem)
            }
        }
    }

    /// A whole command, while `others` moves everything else.
    ///
    /// # Panics
    /// When the command has not ended after a million rounds.
    pub fn run(
        &mut self,
        ide: &mut Ide,
        mem: &impl DmaMemory,
        order: Order,
        mut others: impl FnMut(&mut Ide),
    ) -> Reply {
        self.begin(ide, mem, order);
        for _ in 0..1_000_000 {
            if let Some(reply) = self.poll(ide, mem) {
                return reply;
            }
            others(ide);
        }
        panic!("the command does not end: {:?}", self.order);
    }

    /// Resets the channel by SRST and forgets the command.
    pub fn reset(&mut self, ide: &mut Ide, mem: &impl DmaMemory) {
        outb(ide, mem, self.bus_master(0), 0);
        outb(ide, mem, self.bus_master(2), 6);
        outb(ide, mem, Port::Control(self.channel), control::SRST);
        outb(ide, mem, Port::Control(self.channel), 0);
        self.state = State::Idle;
    }

    /// The bus master's register at `offset`, 0 to 7, of this channel.
    #[must_use]
    pub fn bus_master(&self, offset: u8) -> Port {
        Port::BusMaster(8 * self.channel as u8 + offset)
    }

    fn interrupt(&mut self, ide: &mut Ide, mem: &impl DmaMemory) -> Option<Reply> {
        if self.order.protocol() == Protocol::Dma {
            let bus_master = inb(ide, self.bus_master(2));
            outb(ide, mem, self.bus_master(0), 0);
            let status = inb(ide, Port::Command(self.channel, 7));
            let reply = self.end(ide, mem, status, bus_master);
            outb(ide, mem, self.bus_master(2), 6);
            return Some(reply);
        }
        let status = inb(ide, Port::Command(self.channel, 7));
        outb(ide, mem, self.bus_master(2), 4);
        if status & status::DRQ == 0 {
            return Some(self.end(ide, mem, status, 0));
        }
        self.block(ide);
        let Data::In(sectors) = self.order.data else { return None };
        if self.data.len() < (sectors * SECTOR) as usize {
            return None;
        }
        let status = inb(ide, Port::Control(self.channel));
        Some(self.end(ide, mem, status, 0))
    }

    /// Moves a DRQ block through the data port.
    fn block(&mut self, ide: &mut Ide) {
        let sectors = if self.order.protocol() == Protocol::Multiple { self.multiple } else { 1 };
        let width = if self.dwords { 4 } else { 2 };
        let room = (sectors * SECTOR) as usize;
        let moved = match &self.order.data {
            Data::None => Ok(()),
            Data::In(sectors) => {
                let len = room.min((sectors * SECTOR) as usize - self.data.len());
                let mut block = vec![0; len];
                let result = ide.read_data(self.channel, width, &mut block);
                self.data.extend(block);
                result
            }
            Data::Out(data) => {
                let rest = data.get(self.moved..).unwrap_or_default();
                let block = &rest[..room.min(rest.len())];
                self.moved += block.len();
                ide.write_data(self.channel, width, block)
            }
        };
        assert_eq!(moved, Ok(()), "the data port answers");
    }

    fn end(&mut self, ide: &mut Ide, mem: &impl DmaMemory, status: u8, bus_master: u8) -> Reply {
        self.state = State::Idle;
        let mut data = core::mem::take(&mut self.data);
        if let (Protocol::Dma, Data::In(_)) = (self.order.protocol(), &self.order.data) {
            for (gpa, len) in &self.regions {
                let start = data.len();
                data.resize(start + *len as usize, 0);
                assert_eq!(mem.read((*gpa).into(), &mut data[start..]), Ok(()), "RAM of the driver's");
            }
        }
        let error = inb(ide, Port::Command(self.channel, 1));
        Reply { status, error, bus_master, data, interrupts: self.interrupts }
    }

    /// Lays the data out in random regions, with a PRD table for them.
    fn prepare(&mut self, ide: &mut Ide, mem: &impl DmaMemory) {
        let (bytes, to_memory) = match &self.order.data {
            Data::None => (0, false),
            Data::In(sectors) => (sectors * SECTOR, true),
            Data::Out(data) => (data.len() as u32, false),
        };
        self.regions.clear();
        let mut at = 0;
        let mut gpa = self.base + 0x1_0000;
        // As many regions as a table has room for, at most; a region does not cross 64 KiB.
        let least = bytes.div_ceil(4_096).max(2);
        while at < bytes {
            let gap = 2 * self.rng.below(128) as u32;
            gpa += gap;
            let to_boundary = 0x1_0000 - gpa % 0x1_0000;
            let wanted = least.max(2 + 2 * self.rng.below(32_768) as u32).next_multiple_of(2);
            let len = wanted.min(to_boundary).min(bytes - at);
            self.regions.push((gpa, len));
            gpa += len;
            at += len;
        }
        let last = self.regions.len().saturating_sub(1);
        let mut from = 0;
        for (i, (gpa, len)) in self.regions.iter().enumerate() {
            let end = if i == last { 0x8000_0000 } else { 0 };
            let entry = u64::from(end | (len & 0xffff)) << 32 | u64::from(*gpa);
            let table = u64::from(self.base) + 8 * i as u64;
            assert_eq!(mem.write(table, &entry.to_le_bytes()), Ok(()), "RAM of the driver's");
            if let Data::Out(data) = &self.order.data {
                let piece = &data[from..from + *len as usize];
                assert_eq!(mem.write((*gpa).into(), piece), Ok(()), "RAM of the driver's");
                from += piece.len();
            }
        }
        outl(ide, mem, self.bus_master(4), self.base);
        outb(ide, mem, self.bus_master(0), if to_memory { 8 } else { 0 });
        outb(ide, mem, self.bus_master(2), 6);
    }

    fn issue(&self, ide: &mut Ide, mem: &impl DmaMemory) {
        let Registers { features, count, lba } = self.order.registers;
        let address = self.order.address();
        let select = device::LBA | if self.device_1 { device::DEV } else { 0 };
        let head = match address {
            Address::Lba28 => (lba >> 24) as u8 & device::HEAD,
            Address::Lba48 => 0,
        };
        let mut write = |offset, value| outb(ide, mem, Port::Command(self.channel, offset), value);
        write(6, 0xa0 | select | head);
        if address == Address::Lba48 {
            write(2, (count >> 8) as u8);
            for byte in 0..3 {
                write(3 + byte, (lba >> (24 + 8 * byte)) as u8);
            }
        }
        write(1, features);
        write(2, count as u8);
        for byte in 0..3 {
            write(3 + byte, (lba >> (8 * byte)) as u8);
        }
        write(7, self.order.opcode.code());
    }
}
