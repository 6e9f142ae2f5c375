//! The way of a command's data: from the task file to the disk and back.

use super::bus_master::BusMaster;
use super::cable::Cable;
use super::pio::{Pio, Progress, part};
use crate::ata::bits::error;
use crate::ata::{Drive, Job, Transfer};
use crate::memory::{DmaFault, DmaMemory};
use crate::storage::{Command, Operation, Outcome, Request, SECTOR, Tag};

/// What a channel is at. Status is computed from it.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Ready for a command.
    Idle,
    /// A DMA command waits for the bus master to be started. (BSY)
    Armed(Job),
    /// The disk works. (BSY)
    Busy {
        /// Names the storage command.
        tag: Tag,
        /// What comes of it.
        work: Work,
    },
    /// The buffer is for the guest to read. (DRQ)
    DataIn(Pio),
    /// The buffer is for the guest to write. (DRQ)
    DataOut(Pio),
}

/// What a storage command is for.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// It moves no data.
    NoData(Job),
    /// It moves data between the disk and the regions of the PRD table.
    Dma {
        /// The command as the guest gave it.
        job: Job,
        /// A region lay outside guest memory.
        fault: bool,
    },
    /// It fills or empties the buffer.
    Pio(Pio),
}

/// What a channel asks for and was not yet polled. There is one storage command at a time, so this is all there can be.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    channel: u8,
    sequence: u32,
    cancel: Option<Tag>,
    start: Option<Command>,
}

impl Requests {
    pub(super) fn new(channel: u8) -> Self {
        Requests { channel: channel & 1, sequence: 0, cancel: None, start: None }
    }

    /// The next request; a cancellation comes before the command that follows it.
    pub(super) fn poll(&mut self) -> Option<Request> {
        let cancel = self.cancel.take().map(Request::Cancel);
        cancel.or_else(|| self.start.take().map(Request::Start))
    }

    /// Asks for an operation under a fresh tag, of which bit 0 is the channel.
    fn start(&mut self, device: usize, operation: Operation) -> Tag {
        self.sequence = self.sequence.wrapping_add(1);
        let tag = Tag(self.sequence << 1 | u32::from(self.channel));
        self.start = Some(Command { tag, disk: 2 * self.channel + device as u8, operation });
        tag
    }

    /// Takes a request back if nobody has polled it yet, and else asks for its end.
    fn cancel(&mut self, tag: Tag) {
        if self.start.take().is_none() {
            self.cancel = Some(tag);
        }
    }
}

impl Cable {
    /// Sends a sector of the disk's own.
    pub(super) fn send(&mut self, sector: &[u8; SECTOR as usize]) {
        let pio = Pio::answer();
        if let Some(room) = self.reserve(pio.bytes()).first_chunk_mut() {
            *room = *sector;
        }
        self.phase = Phase::DataIn(pio);
        self.raise();
    }

    /// Begins what only the medium can do.
    pub(super) fn begin(&mut self, job: Job) {
        match job.transfer {
            Transfer::NoData => self.work(job.operation, Work::NoData(job)),
            Transfer::Dma => self.phase = Phase::Armed(job),
            Transfer::Pio { .. } => {
                let pio = Pio::first(job);
                self.reserve(pio.bytes());
                match job.operation {
                    // The first DRQ block of a write comes without an interrupt (ATA8-ACS, 9.6 "PIO data-out").
                    Operation::Write { .. } | Operation::Trim { .. } => self.phase = Phase::DataOut(pio),
                    Operation::Read { .. } | Operation::Verify { .. } | Operation::Flush => self.fetch(pio),
                }
            }
        }
    }

    /// The tail of every register write: a DMA command runs once both it and the bus master are started, in either order.
    pub(super) fn settle(&mut self, mem: &impl DmaMemory) {
        let Phase::Armed(job) = self.phase else { return };
        if !self.bus_master.active {
            return;
        }
        let bytes = job.operation.bytes_in() + job.operation.bytes_out();
        if self.table.snapshot(mem, self.bus_master.table(), bytes).is_err() {
            return self.dma_fault(job);
        }
        let covered = self.table.covered();
        let sectors = match job.operation {
            // A table that is too short gets what fits; a write must not put anything else on the disk.
            Operation::Read { .. } => covered.div_ceil(SECTOR),
            Operation::Write { .. }
            | Operation::Trim { .. }
            | Operation::Verify { .. }
            | Operation::Flush => covered / SECTOR,
        };
        if sectors == 0 {
            return self.dma_short();
        }
        self.work(part(job.operation, 0, sectors), Work::Dma { job, fault: false });
    }

    /// The guest stopped the bus master during a transfer: the command ends there. No interrupt, as the guest is at it already.
    pub(super) fn stop(&mut self) {
        if let Phase::Busy { work: Work::Dma { job, .. }, .. } = &self.phase {
            let job = *job;
            self.cancel();
            self.phase = Phase::Idle;
            self.drive(|drive| drive.fail(&job, error::ABRT, 0));
        }
    }

    /// Takes back what the disk was asked for. Its tag is stale from now on; the caller decides how the channel goes on.
    pub(super) fn cancel(&mut self) {
        if let Phase::Busy { tag, .. } = self.phase {
            self.requests.cancel(tag);
        }
    }

    pub(super) fn data_in(&mut self, mem: &impl DmaMemory, tag: Tag, at: u32, data: &[u8]) {
        match self.under_way(tag) {
            Some(Work::Dma { .. }) => {
                if self.table.scatter(mem, at, data).is_err()
                    && let Some(Work::Dma { fault, .. }) = self.under_way(tag)
                {
                    *fault = true;
                }
            }
            Some(Work::Pio(pio)) => {
                let end = pio.bytes();
                let room = self.buffer.get_mut(..end).and_then(|buffer| buffer.get_mut(at as usize..));
                let room = room.unwrap_or_default();
                let bytes = room.len().min(data.len());
                room[..bytes].copy_from_slice(&data[..bytes]);
            }
            Some(Work::NoData(_)) | None => {}
        }
    }

    pub(super) fn data_out(
        &mut self,
        mem: &impl DmaMemory,
        tag: Tag,
        at: u32,
        out: &mut [u8],
    ) -> Result<(), DmaFault> {
        match self.under_way(tag) {
            Some(Work::Dma { .. }) => self.table.gather(mem, at, out),
            Some(Work::Pio(pio)) => {
                let end = pio.bytes();
                let from = self.buffer.get(..end).and_then(|buffer| buffer.get(at as usize..));
                let from = from.and_then(|from| from.get(..out.len())).ok_or(DmaFault { gpa: 0 })?;
                out.copy_from_slice(from);
                Ok(())
            }
            Some(Work::NoData(_)) | None => Err(DmaFault { gpa: 0 }),
        }
    }

    pub(super) fn complete(&mut self, tag: Tag, outcome: Outcome) {
        if self.under_way(tag).is_none() {
            return;
        }
        let Phase::Busy { work, .. } = core::mem::replace(&mut self.phase, Phase::Idle) else { return };
        match work {
            Work::NoData(job) => self.end(job, 0, outcome),
            Work::Dma { job, fault } => self.complete_dma(job, fault, outcome),
            Work::Pio(pio) => self.complete_pio(pio, outcome),
        }
    }

    /// The guest reads the data port. Between DRQ blocks there is nothing to read but ones.
    pub(super) fn read_data(&mut self, mut out: &mut [u8]) {
        while let Phase::DataIn(pio) = &mut self.phase
            && !out.is_empty()
        {
            let (now, later) = out.split_at_mut(pio.block_left().min(out.len()));
            if let Some(from) = self.buffer.get(pio.at()..pio.at() + now.len()) {
                now.copy_from_slice(from);
            }
            match pio.advance(now.len()) {
                Progress::Inside => {}
                Progress::Block => self.raise(),
                Progress::Buffer => self.drained(),
            }
            out = later;
        }
        out.fill(0xff);
    }

    /// The guest writes the data port. Between DRQ blocks that goes nowhere.
    pub(super) fn write_data(&mut self, mut data: &[u8]) {
        while let Phase::DataOut(pio) = &mut self.phase
            && !data.is_empty()
        {
            let (now, later) = data.split_at(pio.block_left().min(data.len()));
            if let Some(to) = self.buffer.get_mut(pio.at()..pio.at() + now.len()) {
                to.copy_from_slice(now);
            }
            match pio.advance(now.len()) {
                Progress::Inside => {}
                Progress::Block => self.raise(),
                Progress::Buffer => {
                    let pio = pio.clone();
                    self.fetch(pio);
                }
            }
            data = later;
        }
    }

    /// The guest has read all of the buffer.
    fn drained(&mut self) {
        let Phase::DataIn(pio) = core::mem::replace(&mut self.phase, Phase::Idle) else { return };
        match (pio.job, pio.error, pio.next()) {
            (Some(job), Some(error), _) => self.end(job, 0, Outcome::Failed { error, done: pio.end() }),
            (_, None, Some(next)) => self.fetch(next),
            // The last block's end comes without an interrupt (ATA8-ACS, 9.5 "PIO data-in").
            (Some(job), None, None) => self.drive(|drive| drive.finish(&job)),
            (None, _, _) => self.drive(Drive::succeed),
        }
    }

    /// Has the buffer filled or emptied by the disk.
    fn fetch(&mut self, pio: Pio) {
        if let Some(operation) = pio.operation() {
            self.work(operation, Work::Pio(pio));
        }
    }

    fn complete_pio(&mut self, mut pio: Pio, outcome: Outcome) {
        let Some(job) = pio.job else { return };
        let reading = job.operation.bytes_in() > 0;
        match outcome {
            Outcome::Done if reading => self.phase = Phase::DataIn(pio),
            // What could be read before the sector that failed is the guest's: it believes the LBA that it finds later.
            Outcome::Failed { error, done } if reading && done > 0 => {
                pio.cut(done, error);
                self.phase = Phase::DataIn(pio);
            }
            Outcome::Done => match pio.next() {
                Some(next) => self.phase = Phase::DataOut(next),
                None => return self.end(job, 0, Outcome::Done),
            },
            Outcome::Failed { .. } | Outcome::DmaFault => return self.end(job, pio.done, outcome),
        }
        self.raise();
    }

    fn complete_dma(&mut self, job: Job, fault: bool, outcome: Outcome) {
        let bytes = job.operation.bytes_in() + job.operation.bytes_out();
        match outcome {
            _ if fault => self.dma_fault(job),
            Outcome::DmaFault => self.dma_fault(job),
            Outcome::Done if self.table.covered() < bytes => self.dma_short(),
            Outcome::Done => {
                // A table with room for more leaves the bus master waiting for it.
                self.bus_master.active = self.table.longer();
                self.end(job, 0, outcome);
            }
            Outcome::Failed { .. } => {
                self.bus_master.active = false;
                self.end(job, 0, outcome);
            }
        }
    }

    /// "PRDs specified a smaller size than the IDE transfer": Active is clear and there is no interrupt (BM-IDE 1.0, 3.1).
    fn dma_short(&mut self) {
        self.phase = Phase::Idle;
        self.bus_master.active = false;
        self.drive(Drive::succeed);
    }

    /// The table or a region of it is not guest memory.
    fn dma_fault(&mut self, job: Job) {
        self.phase = Phase::Idle;
        let BusMaster { active, error, .. } = &mut self.bus_master;
        (*active, *error) = (false, true);
        self.end(job, 0, Outcome::DmaFault);
    }

    /// The command has ended; of its sectors, `before` were done before the last storage command.
    fn end(&mut self, job: Job, before: u32, outcome: Outcome) {
        self.drive(|drive| match outcome {
            Outcome::Done => drive.finish(&job),
            Outcome::Failed { error, done } => drive.fail(&job, error, before.saturating_add(done)),
            Outcome::DmaFault => drive.fail(&job, error::ABRT, before),
        });
        self.raise();
    }

    fn work(&mut self, operation: Operation, work: Work) {
        let tag = self.requests.start(self.selected, operation);
        self.phase = Phase::Busy { tag, work };
    }

    /// The work under a tag that is not stale and was polled.
    fn under_way(&mut self, tag: Tag) -> Option<&mut Work> {
        let polled = self.requests.start.is_none();
        match &mut self.phase {
            Phase::Busy { tag: current, work } if *current == tag && polled => Some(work),
            Phase::Idle | Phase::Armed(_) | Phase::Busy { .. } | Phase::DataIn(_) | Phase::DataOut(_) => None,
        }
    }

    fn drive(&mut self, act: impl FnOnce(&mut Drive)) {
        if let Some(drive) = &mut self.drives[self.selected] {
            act(drive);
        }
    }

    /// The buffer, with room for that much.
    fn reserve(&mut self, bytes: usize) -> &mut [u8] {
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        &mut self.buffer
    }
}
