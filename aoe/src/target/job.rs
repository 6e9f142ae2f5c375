//! What a storage engine is asked to do.

use kagero_devices::ata::bits::{error, status};

use super::Answer;
use super::answer::Body;
use crate::wire::{Address, MacAddress, SECTOR};

/// What a request comes to.
#[derive(Debug)]
pub enum Step<'f> {
    /// Send this.
    Answer(Answer),
    /// Do this first.
    Job(Job<'f>),
}

/// Something for the storage engine to do. All of it lies within the disk, and only a disk that may be written to is.
#[derive(Debug)]
pub struct Job<'f> {
    /// What to do.
    pub operation: Operation<'f>,
    /// Who waits for it. May be kept while the job is carried out, by another thread or later.
    pub pending: Pending,
}

/// The answer to a [`Job`] that is still to be done.
#[derive(Debug)]
pub struct Pending {
    /// The answer if it goes well.
    answer: Answer,
}

/// Offsets and lengths are in bytes, and multiples of 512.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'f> {
    /// Read into the answer's frame: see [`Pending::data`].
    Read {
        /// Where on the disk.
        offset: u64,
        /// How much.
        length: usize,
    },
    /// Write the data, which lies in the request's frame.
    Write {
        /// Where on the disk.
        offset: u64,
        /// What.
        data: &'f [u8],
        /// Finish only when it survives a loss of power.
        durable: bool,
    },
    /// Check that it can be read.
    Verify {
        /// Where on the disk.
        offset: u64,
        /// How much.
        length: usize,
    },
    /// Finish when every write that was answered before survives a loss of power.
    Flush,
    /// The contents of these ranges are of no use any more.
    Trim(Ranges<'f>),
}

/// The ranges of a trim, as DATA SET MANAGEMENT lays them out (ATA8-ACS2 7.5.3.2): 8 bytes each, 48 bits of LBA and 16 of length in
/// sectors; a length of 0 says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges<'f>(pub(super) &'f [u8]);

/// A part of a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub offset: u64,
    /// How long it is, not 0.
    pub length: u64,
}

impl Ranges<'_> {
    /// The ranges that say something.
    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        let (entries, _) = self.0.as_chunks::<8>();
        entries.iter().map(|&entry| u64::from_le_bytes(entry)).filter_map(|entry| {
            let (lba, sectors) = (entry & 0xffff_ffff_ffff, entry >> 48);
            let bytes = SECTOR as u64;
            (sectors > 0).then_some(Range { offset: lba * bytes, length: sectors * bytes })
        })
    }
}

/// Why a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The medium failed at the sector that is this far from the first: ATA's UNC.
    Medium {
        /// Sectors before it that were done.
        done: u8,
    },
    /// It can't be done, or not now (no room left, say): ATA's ABRT.
    Aborted,
}

impl<'f> Job<'f> {
    pub(super) fn new(operation: Operation<'f>, answer: Answer) -> Self {
        Job { operation, pending: Pending { answer } }
    }

    /// The same job without its hold on the request's frame, for later or for another thread.
    ///
    /// # Errors
    /// The job itself, when its data lies in that frame.
    pub fn detach(self) -> Result<Job<'static>, Self> {
        let operation = match self.operation {
            Operation::Read { offset, length } => Operation::Read { offset, length },
            Operation::Verify { offset, length } => Operation::Verify { offset, length },
            Operation::Flush => Operation::Flush,
            Operation::Write { .. } | Operation::Trim(_) => return Err(self),
        };
        Ok(Job { operation, pending: self.pending })
    }

    /// As [`Pending::address`].
    #[must_use]
    pub fn address(&self) -> Address {
        self.pending.address()
    }

    /// As [`Pending::client`].
    #[must_use]
    pub fn client(&self) -> MacAddress {
        self.pending.client()
    }

    /// As [`Pending::data`].
    #[must_use]
    pub fn data<'b>(&self, out: &'b mut [u8]) -> Option<&'b mut [u8]> {
        self.pending.data(out)
    }

    /// As [`Pending::finish`].
    #[must_use]
    pub fn finish(self, result: Result<(), Fault>) -> Answer {
        self.pending.finish(result)
    }
}

impl Pending {
    /// The disk.
    #[must_use]
    pub fn address(&self) -> Address {
        self.answer.header.address
    }

    /// The station that asks, as its frame's source address says.
    #[must_use]
    pub fn client(&self) -> MacAddress {
        self.answer.header.destination
    }

    /// As [`Answer::data`].
    #[must_use]
    pub fn data<'b>(&self, out: &'b mut [u8]) -> Option<&'b mut [u8]> {
        self.answer.data(out)
    }

    /// The answer, now that the job is done.
    #[must_use]
    pub fn finish(mut self, result: Result<(), Fault>) -> Answer {
        if let Err(fault) = result {
            self.fail(fault);
        }
        self.answer
    }

    /// The answer to a job that is done: that it went well, unless it has [failed](Self::fail).
    #[must_use]
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The job has failed: so its answer says from now on.
    pub fn fail(&mut self, fault: Fault) {
        let Body::Ata { registers, data } = &mut self.answer.body else { return };
        *data = 0;
        registers.command = status::DRDY | status::ERR;
        match fault {
            Fault::Medium { done } => {
                registers.feature = error::UNC;
                let failed = registers.address() + u64::from(done);
                registers.lba = crate::wire::Ata::registers(failed);
            }
            Fault::Aborted => registers.feature = error::ABRT,
        }
    }
}
