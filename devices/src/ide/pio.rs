//! Data through the data port, in storage commands of bounded size.

use crate::ata::{Job, Transfer};
use crate::storage::{Operation, SECTOR};

/// Sectors that the buffer holds: a command of 65,536 sectors goes through 128 KiB. A multiple of every DRQ block.
const BUFFER_SECTORS: u32 = 256;

/// What the buffer holds, and how far the guest has moved it.
#[derive(Clone, Debug)]
pub(super) struct Pio {
    /// The whole command; `None` when the disk itself sends a sector.
    pub(super) job: Option<Job>,
    /// Sectors of the command before those in the buffer.
    pub(super) done: u32,
    /// Sectors in the buffer.
    sectors: u32,
    /// The next byte in the buffer.
    at: u32,
    /// Sectors that could be read come first; the error of the next one follows.
    pub(super) error: Option<u8>,
}

/// Where the guest stands after moving some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Within a DRQ block.
    Inside,
    /// At the end of one, with more in the buffer.
    Block,
    /// At the end of the buffer.
    Buffer,
}

impl Pio {
    /// A sector that the disk itself sends.
    pub(super) fn answer() -> Self {
        Pio { job: None, done: 0, sectors: 1, at: 0, error: None }
    }

    /// The first buffer of a command.
    pub(super) fn first(job: Job) -> Self {
        Pio { job: Some(job), done: 0, sectors: sectors(job).min(BUFFER_SECTORS), at: 0, error: None }
    }

    /// The buffer after this one, if the command goes on.
    pub(super) fn next(&self) -> Option<Self> {
        let job = self.job?;
        let done = self.done + self.sectors;
        let left = sectors(job).checked_sub(done).filter(|left| *left > 0)?;
        Some(Pio { job: Some(job), done, sectors: left.min(BUFFER_SECTORS), at: 0, error: None })
    }

    /// Only the first `sectors` of the buffer could be read; then `error`.
    pub(super) fn cut(&mut self, sectors: u32, error: u8) {
        self.sectors = sectors.min(self.sectors);
        self.error = Some(error);
    }

    /// Sectors of the command before the end of the buffer.
    pub(super) fn end(&self) -> u32 {
        self.done + self.sectors
    }

    /// Bytes in the buffer.
    pub(super) fn bytes(&self) -> usize {
        (self.sectors * SECTOR) as usize
    }

    /// The next byte in the buffer.
    pub(super) fn at(&self) -> usize {
        self.at as usize
    }

    /// Bytes to the end of the DRQ block.
    pub(super) fn block_left(&self) -> usize {
        let block = match self.job.map(|job| job.transfer) {
            Some(Transfer::Pio { block }) => u32::from(block.max(1)) * SECTOR,
            Some(Transfer::NoData | Transfer::Dma) | None => SECTOR,
        };
        let end = (self.at / block + 1).saturating_mul(block).min(self.sectors * SECTOR);
        (end - self.at) as usize
    }

    /// The guest has moved `bytes`, at most to the end of the DRQ block.
    pub(super) fn advance(&mut self, bytes: usize) -> Progress {
        let ends = bytes >= self.block_left();
        self.at += bytes as u32;
        if !ends {
            Progress::Inside
        } else if self.at < self.sectors * SECTOR {
            Progress::Block
        } else {
            Progress::Buffer
        }
    }

    /// The storage command for the buffer.
    pub(super) fn operation(&self) -> Option<Operation> {
        self.job.map(|job| part(job.operation, self.done, self.sectors))
    }
}

/// Sectors or blocks of payload.
fn sectors(job: Job) -> u32 {
    (job.operation.bytes_in() + job.operation.bytes_out()) / SECTOR
}

/// `count` sectors or blocks of an operation, without the first `skip`.
pub(super) fn part(operation: Operation, skip: u32, count: u32) -> Operation {
    let from = |lba: u64| lba + u64::from(skip);
    match operation {
        Operation::Read { lba, sectors: _ } => Operation::Read { lba: from(lba), sectors: count },
        Operation::Write { lba, sectors: _, durable } => {
            Operation::Write { lba: from(lba), sectors: count, durable }
        }
        Operation::Verify { lba, sectors: _ } => Operation::Verify { lba: from(lba), sectors: count },
        Operation::Flush => Operation::Flush,
        Operation::Trim { blocks: _ } => Operation::Trim { blocks: count },
    }
}
