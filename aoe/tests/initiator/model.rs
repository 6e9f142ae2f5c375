//! The other parties of these tests: a controller that keeps payloads in maps, and a target that is a few lines on a `Vec`.

use kagero_aoe::wire::{self, *};
use kagero_devices::ata::Settings;
use kagero_devices::ata::identify::{self, Position};
use kagero_devices::memory::{DmaFault, DmaMemory};
use kagero_devices::storage::{Controller, Disk, Outcome, Request, Tag};
use std::collections::HashMap;

pub const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub const SERVER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
pub const ADDRESS: Address = Address { shelf: 7, slot: 1 };

/// No guest memory: the payloads are in the controller.
pub struct NoMemory;

impl DmaMemory for NoMemory {
    fn read(&self, gpa: u64, _: &mut [u8]) -> Result<(), DmaFault> {
        Err(DmaFault { gpa })
    }

    fn write(&self, gpa: u64, _: &[u8]) -> Result<(), DmaFault> {
        Err(DmaFault { gpa })
    }
}

/// Payloads by tag. A call for a tag that isn't under way fails the test.
#[derive(Default)]
pub struct Payloads {
    /// What a write brings, or what a read has got so far.
    pub data: HashMap<Tag, Vec<u8>>,
    /// Commands whose payload is not guest memory.
    pub faulty: Vec<Tag>,
    pub completed: Vec<(Tag, Outcome)>,
}

impl Controller for Payloads {
    fn poll_request(&mut self) -> Option<Request> {
        None
    }

    fn data_in(&mut self, _: &impl DmaMemory, tag: Tag, at: u32, data: &[u8]) {
        let buffer = self.data.get_mut(&tag).expect("data for a command that is not under way");
        buffer[at as usize..][..data.len()].copy_from_slice(data);
    }

    fn data_out(&mut self, _: &impl DmaMemory, tag: Tag, at: u32, out: &mut [u8]) -> Result<(), DmaFault> {
        if self.faulty.contains(&tag) {
            return Err(DmaFault { gpa: 0 });
        }
        let buffer = self.data.get(&tag).expect("payload of a command that is not under way");
        out.copy_from_slice(&buffer[at as usize..][..out.len()]);
        Ok(())
    }

    fn complete(&mut self, _: &impl DmaMemory, tag: Tag, outcome: Outcome) {
        assert!(!self.completed.iter().any(|&(completed, _)| completed == tag), "completed twice");
        self.completed.push((tag, outcome));
    }

    fn irq(&self) -> u32 {
        0
    }
}

/// Sectors in memory, and what would survive a loss of power.
#[derive(Clone)]
pub struct Target {
    pub mac: MacAddress,
    pub buffer_count: u16,
    pub sectors_per_frame: u8,
    pub disk: Vec<[u8; 512]>,
    pub durable: Vec<[u8; 512]>,
    pub identity: [u8; 512],
    /// ATA commands that end with ABRT.
    pub unknown: Vec<u8>,
    /// Reads and writes that touch this sector end with UNC.
    pub bad_sector: Option<u64>,
    /// Every ATA command is refused with this error of the protocol.
    pub refuse: Option<ErrorCode>,
    /// Reads and writes get no answer.
    pub hung: bool,
    /// Frames longer than this never arrive here, as if the path didn't carry them.
    pub mtu: usize,
    /// Whether a request that the initiator would not send fails the test.
    pub strict: bool,
    /// ATA commands carried out, in order.
    pub log: Vec<Ata>,
}

impl Target {
    pub fn new(sectors: usize) -> Self {
        let mut target = Target {
            mac: SERVER,
            buffer_count: 16,
            sectors_per_frame: 2,
            disk: vec![[0; 512]; sectors],
            durable: vec![[0; 512]; sectors],
            identity: [0; 512],
            unknown: Vec::new(),
            bad_sector: None,
            refuse: None,
            hung: false,
            mtu: 9000,
            strict: true,
            log: Vec::new(),
        };
        target.identify(sectors as u64, "MODEL1");
        target
    }

    /// Says that the disk has so many sectors and this serial number.
    pub fn identify(&mut self, sectors: u64, serial: &str) {
        let disk = Disk { sectors, serial: serial.into(), model: "Model".into(), trim: true };
        self.identity = identify::build(&disk, &Settings::power_on(sectors), Position::Device0);
    }

    /// The answer to a frame, if there is one.
    pub fn handle(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if bytes.len() > self.mtu + ETHERNET_HEADER {
            return None;
        }
        let Frame { header, argument } = Frame::parse(bytes).ok()?;
        let meant = header.destination == self.mac || header.destination == MacAddress::BROADCAST;
        if !meant || header.response || header.version != VERSION || !header.address.reaches(ADDRESS) {
            return None;
        }
        let mut answer = header.answer(self.mac, ADDRESS);
        let mut buffer = vec![0; 9100];
        let length = match header.command {
            Command::Config => {
                let config = wire::Config {
                    buffer_count: self.buffer_count,
                    sectors: self.sectors_per_frame,
                    ..wire::Config::query()
                };
                wire::encode(&mut buffer, &answer, |out| config.encode(out))?
            }
            Command::Ata => {
                let (ata, rest) = Ata::parse(argument).ok()?;
                answer.error = self.refuse;
                let (ata, data) = self.carry_out(&ata, rest)?;
                wire::encode(&mut buffer, &answer, |out| {
                    let length = ata.encode(out)?;
                    out.get_mut(length..length + data.len())?.copy_from_slice(&data);
                    Some(length + data.len())
                })?
            }
            _ => return None,
        };
        buffer.truncate(length);
        (length <= self.mtu + ETHERNET_HEADER).then_some(buffer)
    }

    fn carry_out(&mut self, ata: &Ata, rest: &[u8]) -> Option<(Ata, Vec<u8>)> {
        if self.refuse.is_some() {
            return Some((*ata, Vec::new()));
        }
        self.log.push(*ata);
        let done = Ata { command: 0x40, count: 0, feature: 0, ..*ata };
        let failed = |error| Some((Ata { command: 0x41, feature: error, ..*ata }, Vec::new()));
        let (lba, count) = (ata.address(), usize::from(ata.count));
        let range = lba as usize..lba as usize + count;
        if self.hung && ata.command != 0xec {
            return None;
        }
        if self.unknown.contains(&ata.command) {
            return failed(0x04);
        }
        if matches!(ata.command, 0x20 | 0x24 | 0x30 | 0x34) {
            let fits = count <= usize::from(self.sectors_per_frame.max(2));
            assert!(fits || !self.strict, "{count} sectors in a frame");
            if !fits {
                return failed(0x04);
            }
            if range.end > self.disk.len() {
                return failed(0x10);
            }
            if let Some(bad) = self.bad_sector.filter(|&bad| range.contains(&(bad as usize))) {
                let lba = Ata::registers(bad);
                return Some((Ata { command: 0x41, feature: 0x40, lba, ..*ata }, Vec::new()));
            }
        }
        match ata.command {
            0xec => Some((done, self.identity.to_vec())),
            0x20 | 0x24 => Some((done, self.disk[range].concat())),
            0x30 | 0x34 => {
                assert!(ata.write || !self.strict);
                let data = Ata::data(rest, count).ok()?;
                self.disk[range].iter_mut().zip(data.as_chunks().0).for_each(|(to, from)| *to = *from);
                Some((done, Vec::new()))
            }
            0xe7 | 0xea => {
                self.durable = self.disk.clone();
                Some((done, Vec::new()))
            }
            0x06 => {
                assert!(ata.write && ata.feature == 1 || !self.strict);
                for entry in Ata::data(rest, count).ok()?.as_chunks::<8>().0 {
                    let entry = u64::from_le_bytes(*entry);
                    let (first, sectors) = ((entry & 0xffff_ffff_ffff) as usize, (entry >> 48) as usize);
                    self.disk
                        .get_mut(first..first + sectors)
                        .into_iter()
                        .flatten()
                        .for_each(|sector| sector.fill(0));
                }
                Some((done, Vec::new()))
            }
            _ => failed(0x04),
        }
    }
}
