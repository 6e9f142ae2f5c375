//! One channel: up to two disks on a cable, their registers, resets and interrupt.

use alloc::vec::Vec;

use super::bus_master::BusMaster;
use super::prd::PrdTable;
use super::transfer::{Phase, Requests};
use crate::ata::bits::{control, device, status};
use crate::ata::identify::Position;
use crate::ata::{Action, Drive, Opcode, Register};
use crate::memory::DmaMemory;
use crate::storage::{Disk, Request};

/// What a channel without devices reads as. An empty cable's lines are pulled up, but for DD7, so that nothing seems busy (ATA8-APT, 5.2): 7Fh. With
/// that, Linux asks a thousand times for DRQ to go away after a reset, an exit each. As if SATA ports were behind it, all is quiet at once.
const FLOATING: u8 = 0;

/// One channel, with the bus master that serves it. The way of a command's data is in `transfer`.
#[derive(Clone, Debug)]
pub(super) struct Cable {
    pub(super) drives: [Option<Drive>; 2],
    /// The device that the DEV bit names, 0 or 1. Does not change while a command is under way.
    pub(super) selected: usize,
    /// The Device Control register.
    control: u8,
    /// Which disks have an interrupt pending. INTRQ is the selected one's, unless the guest holds it back.
    pending: [bool; 2],
    pub(super) phase: Phase,
    pub(super) requests: Requests,
    pub(super) bus_master: BusMaster,
    pub(super) table: PrdTable,
    /// What goes through the data port; grows to what PIO commands need, and stays.
    pub(super) buffer: Vec<u8>,
}

/// Who answers when the guest reads a register.
enum Answering<'a> {
    /// The selected disk.
    Selected(&'a Drive),
    /// Device 0, for device 1 that is not there (ATA8-APT, 7.3).
    ForAbsent(&'a Drive),
    /// Nobody.
    Nobody,
}

impl Cable {
    /// Channel `number`, 0 or 1, with its disks.
    pub(super) fn new(number: u8, disks: [Option<Disk>; 2]) -> Self {
        let [disk_0, disk_1] = disks;
        Cable {
            drives: [
                disk_0.map(|disk| Drive::new(disk, Position::Device0)),
                disk_1.map(|disk| Drive::new(disk, Position::Device1)),
            ],
            selected: 0,
            control: 0,
            pending: [false; 2],
            phase: Phase::Idle,
            requests: Requests::new(number),
            bus_master: BusMaster::default(),
            table: PrdTable::default(),
            buffer: Vec::new(),
        }
    }

    /// Off and on again.
    pub(super) fn power_on(&mut self) {
        self.cancel();
        let Self { drives, selected, control, pending, phase, requests: _, bus_master, table, buffer } = self;
        drives.iter_mut().flatten().for_each(Drive::power_on);
        *selected = 0;
        *control = 0;
        *pending = [false; 2];
        *phase = Phase::Idle;
        bus_master.reset();
        table.clear();
        buffer.clear();
    }

    /// INTRQ as the interrupt controller sees it.
    pub(super) fn intrq(&self) -> bool {
        self.control & control::NIEN == 0 && self.pending[self.selected]
    }

    pub(super) fn read(&self, register: Register) -> u8 {
        match self.answering() {
            Answering::Selected(drive) | Answering::ForAbsent(drive) => {
                drive.file().read(register, self.control & control::HOB != 0)
            }
            Answering::Nobody => FLOATING,
        }
    }

    /// Reads Status, which lets INTRQ drop (ATA8-ACS, 6.2).
    pub(super) fn read_status(&mut self) -> u8 {
        self.pending[self.selected] = false;
        self.alternate_status()
    }

    /// The same bits, with no effect on INTRQ.
    pub(super) fn alternate_status(&self) -> u8 {
        match self.answering() {
            Answering::Selected(_) if self.resetting() => status::BSY,
            Answering::Selected(drive) => match self.phase {
                Phase::Idle => drive.idle_status(),
                Phase::Armed(_) | Phase::Busy { .. } => status::BSY,
                Phase::DataIn(_) | Phase::DataOut(_) => status::DRDY | status::DSC | status::DRQ,
            },
            Answering::ForAbsent(_) => 0,
            Answering::Nobody => FLOATING,
        }
    }

    /// Both disks hear every write; neither listens while a command is under way.
    pub(super) fn write(&mut self, register: Register, value: u8) {
        self.control &= !control::HOB;
        if self.occupied() {
            return;
        }
        for drive in self.drives.iter_mut().flatten() {
            drive.file_mut().write(register, value);
        }
        if register == Register::Device {
            self.selected = usize::from(value & device::DEV != 0);
        }
    }

    pub(super) fn command(&mut self, mem: &impl DmaMemory, code: u8) {
        self.control &= !control::HOB;
        if self.occupied() {
            return;
        }
        self.pending[self.selected] = false;
        let Some(drive) = &mut self.drives[self.selected] else {
            // Device 0 lets commands for an absent device 1 pass, but for this one.
            if Opcode::decode(code) == Some(Opcode::ExecuteDiagnostic) {
                self.diagnose();
            }
            return;
        };
        match drive.execute(code) {
            Action::Ended => self.raise(),
            Action::Diagnose => self.diagnose(),
            Action::Answer(answer) => {
                let sector = drive.answer(answer);
                self.send(&sector);
            }
            Action::Job(job) => self.begin(job),
        }
        self.settle(mem);
    }

    pub(super) fn write_control(&mut self, value: u8) {
        let reset = value & control::SRST != 0 && !self.resetting();
        self.control = value;
        if reset {
            self.cancel();
            self.phase = Phase::Idle;
            self.pending = [false; 2];
            self.signature();
        }
    }

    pub(super) fn bus_master(&self) -> &BusMaster {
        &self.bus_master
    }

    pub(super) fn write_bus_master(&mut self, mem: &impl DmaMemory, offset: u8, value: u8) {
        if self.bus_master.write(offset, value) {
            self.stop();
        }
        self.settle(mem);
    }

    pub(super) fn poll_request(&mut self) -> Option<Request> {
        self.requests.poll()
    }

    /// The selected disk raises INTRQ. The bus master notes that also while the guest holds INTRQ back: SeaBIOS polls it so.
    pub(super) fn raise(&mut self) {
        self.pending[self.selected] = true;
        self.bus_master.interrupt = true;
    }

    /// SRST is held.
    fn resetting(&self) -> bool {
        self.control & control::SRST != 0
    }

    /// Status has BSY or DRQ.
    fn occupied(&self) -> bool {
        self.resetting() || !matches!(self.phase, Phase::Idle)
    }

    fn answering(&self) -> Answering<'_> {
        match (&self.drives[self.selected], &self.drives[0]) {
            (Some(drive), _) => Answering::Selected(drive),
            (None, Some(drive)) => Answering::ForAbsent(drive),
            (None, None) => Answering::Nobody,
        }
    }

    fn diagnose(&mut self) {
        self.signature();
        if self.drives[0].is_some() {
            self.raise();
        }
    }

    /// Both disks show their signature, and device 0 is selected.
    fn signature(&mut self) {
        self.drives.iter_mut().flatten().for_each(Drive::soft_reset);
        self.selected = 0;
    }
}
