//! A disk: its registers and settings, and what becomes of a command.

use super::bits::{error, status};
use super::identify::{self, Position};
use super::{Address, Geometry, Opcode, Protocol, Settings, TRIM_BLOCKS_MAX, TaskFile, smart};
use crate::storage::{Disk, Operation};

/// How a [`Job`]'s data goes between guest and disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// There is none.
    NoData,
    /// Through the data port.
    Pio {
        /// Sectors in a DRQ block, each with an interrupt.
        block: u8,
    },
    /// By bus master.
    Dma,
}

/// Something that only the medium can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// What, checked against the disk's size.
    pub operation: Operation,
    /// How its data goes.
    pub transfer: Transfer,
    /// How the address lies in the registers, for what the disk leaves there afterwards.
    pub address: Address,
}

/// 512 bytes that the disk itself sends through the data port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// IDENTIFY DEVICE.
    Identify,
    /// SMART READ DATA.
    SmartData,
    /// SMART READ THRESHOLDS.
    SmartThresholds,
}

/// What a command comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It has ended, well or not: the status says so, and an interrupt is due.
    Ended,
    /// The disk has [data](Drive::answer) to send; call [`Drive::succeed`] when it is fetched.
    Answer(Answer),
    /// Carry this out, then call [`Drive::finish`] or [`Drive::fail`].
    Job(Job),
    /// EXECUTE DEVICE DIAGNOSTIC concerns both disks on the cable: call [`Drive::soft_reset`] of each.
    Diagnose,
}

/// CHECK POWER MODE's answers (7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    Active,
    Idle,
    Standby,
    /// A host shall reset a sleeping disk before it does anything else; one that doesn't is served all the same.
    Sleep,
}

/// A disk on an ATA cable.
#[derive(Clone, Debug)]
pub struct Drive {
    disk: Disk,
    position: Position,
    file: TaskFile,
    settings: Settings,
    power: Power,
    /// Whether the last command ended with an error.
    failed: bool,
}

impl Drive {
    /// A disk that was just switched on.
    #[must_use]
    pub fn new(disk: Disk, position: Position) -> Self {
        let settings = Settings::power_on(disk.sectors);
        let mut file = TaskFile::default();
        file.put_signature();
        Drive { disk, position, file, settings, power: Power::Active, failed: false }
    }

    /// Off and on again.
    pub fn power_on(&mut self) {
        let Self { disk, position: _, file, settings, power, failed } = self;
        file.put_signature();
        *settings = Settings::power_on(disk.sectors);
        *power = Power::Active;
        *failed = false;
    }

    /// A software reset, or EXECUTE DEVICE DIAGNOSTIC: signature and result of the self-test. Settings stay (9.2).
    pub fn soft_reset(&mut self) {
        let Self { disk: _, position: _, file, settings: _, power, failed } = self;
        file.put_signature();
        if *power == Power::Sleep {
            *power = Power::Standby;
        }
        *failed = false;
    }

    /// The disk has become larger or smaller, in sectors.
    pub fn resize(&mut self, sectors: u64) {
        self.disk.sectors = sectors;
        self.settings.geometry = Geometry::of(sectors);
    }

    /// What the disk is.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The registers.
    #[must_use]
    pub fn file(&self) -> &TaskFile {
        &self.file
    }

    /// The registers, for the guest to write.
    pub fn file_mut(&mut self) -> &mut TaskFile {
        &mut self.file
    }

    /// The Status register while no command is under way.
    #[must_use]
    pub fn idle_status(&self) -> u8 {
        status::DRDY | status::DSC | if self.failed { status::ERR } else { 0 }
    }

    /// Carries out a command, as far as the disk can do it alone.
    pub fn execute(&mut self, code: u8) -> Action {
        self.succeed();
        let Some(opcode) = Opcode::decode(code) else { return self.abort() };
        match opcode {
            Opcode::Read { protocol, address } => self.transfer(protocol, address, None),
            Opcode::Write { protocol, address, fua } => self.transfer(protocol, address, Some(fua)),
            Opcode::Verify(address) => {
                let operation = |lba, sectors| Operation::Verify { lba, sectors };
                self.media(address, Transfer::NoData, operation)
            }
            Opcode::Flush(address) => self.job(Operation::Flush, Transfer::NoData, address),
            Opcode::DataSetManagement => self.trim(),
            Opcode::Seek => match self.file.lba(Address::Lba28, self.settings.geometry) {
                Some(lba) if lba < self.disk.sectors => Action::Ended,
                _ => self.end(error::IDNF),
            },
            Opcode::Recalibrate | Opcode::SecurityFreezeLock => Action::Ended,
            Opcode::ExecuteDiagnostic => Action::Diagnose,
            Opcode::InitializeParameters => {
                let heads = self.file.head() + 1;
                let geometry = Geometry::with_track(heads, self.file.count(), self.disk.sectors);
                let done = geometry.map(|geometry| self.settings.geometry = geometry);
                self.settle(done)
            }
            Opcode::SetMultiple => {
                let done = self.settings.set_multiple(self.file.count());
                self.settle(done)
            }
            Opcode::SetFeatures => {
                let done = self.settings.set_feature(&self.file);
                self.settle(done)
            }
            Opcode::Identify => Action::Answer(Answer::Identify),
            Opcode::Smart => match smart::execute(&mut self.settings, &self.file) {
                Ok(Some(answer)) => Action::Answer(answer),
                Ok(None) => Action::Ended,
                Err(()) => self.abort(),
            },
            Opcode::ReadNativeMax(address) => {
                let last = match address {
                    Address::Lba28 => self.disk.sectors.min(identify::LBA28_SECTORS),
                    Address::Lba48 => self.disk.sectors,
                };
                self.file.put_lba(address, self.settings.geometry, last.saturating_sub(1));
                Action::Ended
            }
            Opcode::CheckPower => {
                self.file.put_count(match self.power {
                    Power::Active => 0xff,
                    Power::Idle => 0x80,
                    Power::Standby | Power::Sleep => 0x00,
                });
                Action::Ended
            }
            Opcode::StandbyImmediate | Opcode::Standby => self.enter(Power::Standby),
            Opcode::IdleImmediate | Opcode::Idle => self.enter(Power::Idle),
            Opcode::Sleep => self.enter(Power::Sleep),
            Opcode::Nop | Opcode::DeviceReset | Opcode::Packet | Opcode::IdentifyPacket => self.abort(),
        }
    }

    /// The 512 bytes that the disk sends.
    #[must_use]
    pub fn answer(&self, answer: Answer) -> [u8; 512] {
        match answer {
            Answer::Identify => identify::build(&self.disk, &self.settings, self.position),
            Answer::SmartData => smart::data(),
            Answer::SmartThresholds => smart::thresholds(),
        }
    }

    /// No error, so far.
    pub fn succeed(&mut self) {
        self.file.put_error(0);
        self.failed = false;
    }

    /// A job is done: leaves the address of its last sector, and a count of zero.
    pub fn finish(&mut self, job: &Job) {
        self.succeed();
        if let Some((lba, sectors)) = extent(job.operation) {
            let last = lba + u64::from(sectors.saturating_sub(1));
            self.file.put_lba(job.address, self.settings.geometry, last);
            self.file.put_sectors(job.address, 0);
        }
    }

    /// A job has failed after `done` sectors: leaves the address of the one that failed, and how many were not done.
    pub fn fail(&mut self, job: &Job, error: u8, done: u32) {
        // A target that fails a command without saying why.
        self.end(if error == 0 { error::ABRT } else { error });
        if let Some((lba, sectors)) = extent(job.operation) {
            let done = done.min(sectors.saturating_sub(1));
            self.file.put_lba(job.address, self.settings.geometry, lba + u64::from(done));
            self.file.put_sectors(job.address, sectors - done);
        }
    }

    fn transfer(&mut self, protocol: Protocol, address: Address, write: Option<bool>) -> Action {
        let transfer = match protocol {
            Protocol::Pio => Transfer::Pio { block: 1 },
            Protocol::Multiple if self.settings.multiple == 0 => return self.abort(),
            Protocol::Multiple => Transfer::Pio { block: self.settings.multiple },
            Protocol::Dma => Transfer::Dma,
        };
        let cached = self.settings.write_cache;
        self.media(address, transfer, |lba, sectors| match write {
            None => Operation::Read { lba, sectors },
            Some(fua) => Operation::Write { lba, sectors, durable: fua || !cached },
        })
    }

    /// A job on the sectors that the registers name, if there are such sectors.
    fn media(
        &mut self,
        address: Address,
        transfer: Transfer,
        operation: impl FnOnce(u64, u32) -> Operation,
    ) -> Action {
        let sectors = self.file.sectors(address);
        let Some(lba) = self.file.lba(address, self.settings.geometry) else { return self.end(error::IDNF) };
        if lba + u64::from(sectors) > self.disk.sectors {
            self.file.put_lba(address, self.settings.geometry, lba.max(self.disk.sectors));
            return self.end(error::IDNF);
        }
        self.job(operation(lba, sectors), transfer, address)
    }

    fn trim(&mut self) -> Action {
        const TRIM: u8 = 1 << 0;
        let blocks = self.file.count_16();
        let known = self.disk.trim && self.file.features() & TRIM != 0;
        if !known || blocks == 0 || blocks > TRIM_BLOCKS_MAX {
            return self.abort();
        }
        self.job(Operation::Trim { blocks: blocks.into() }, Transfer::Dma, Address::Lba48)
    }

    fn job(&mut self, operation: Operation, transfer: Transfer, address: Address) -> Action {
        self.power = Power::Active;
        Action::Job(Job { operation, transfer, address })
    }

    fn enter(&mut self, power: Power) -> Action {
        self.power = power;
        Action::Ended
    }

    fn settle(&mut self, done: Option<()>) -> Action {
        if done.is_some() { Action::Ended } else { self.abort() }
    }

    fn abort(&mut self) -> Action {
        self.end(error::ABRT)
    }

    fn end(&mut self, error: u8) -> Action {
        self.file.put_error(error);
        self.failed = true;
        Action::Ended
    }
}

/// The sectors that an operation names.
fn extent(operation: Operation) -> Option<(u64, u32)> {
    match operation {
        Operation::Read { lba, sectors }
        | Operation::Write { lba, sectors, .. }
        | Operation::Verify { lba, sectors } => Some((lba, sectors)),
        Operation::Flush | Operation::Trim { .. } => None,
    }
}
