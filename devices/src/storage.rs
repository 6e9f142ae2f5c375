//! The seam between a disk controller and whatever carries out its commands.
//!
//! A [`Controller`] decodes registers into a [`Command`] and later takes the answer: [`data_in`](Controller::data_in) or
//! [`data_out`](Controller::data_out) for each piece of the payload, in any order, then [`complete`](Controller::complete) once. The AoE
//! initiator is the one that calls; payload moves straight between frame and guest memory.

use crate::memory::{DmaFault, DmaMemory};

/// Bytes in a sector. ATA allows others; AoE and every guest we boot use this one.
pub const SECTOR: u32 = 512;

/// Names one command while it is under way.
///
/// The controller chooses it and never gives it to a second command while an answer to the first may still come, also not after a
/// [`Request::Cancel`]: a stale tag is ignored by everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

/// What a disk shall do, after the task file has decoded and checked it against the disk's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Names the command in every later call.
    pub tag: Tag,
    /// Which of the controller's disks: for IDE, twice the channel plus the device.
    pub disk: u8,
    /// What to do.
    pub operation: Operation,
}

/// The operations that reach a disk; all else is answered by the controller itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Disk to guest: `sectors` from `lba` on.
    Read {
        /// First sector.
        lba: u64,
        /// How many, 1 to 65,536.
        sectors: u32,
    },
    /// Guest to disk.
    Write {
        /// First sector.
        lba: u64,
        /// How many, 1 to 65,536.
        sectors: u32,
        /// Complete only when the data survives a loss of power (the FUA commands).
        durable: bool,
    },
    /// Check that sectors can be read; moves no data to the guest.
    Verify {
        /// First sector.
        lba: u64,
        /// How many, 1 to 65,536.
        sectors: u32,
    },
    /// All completed writes survive a loss of power once this completes.
    Flush,
    /// DATA SET MANAGEMENT with the Trim bit: the payload, guest to disk, is `blocks` times 512 bytes of range entries.
    Trim {
        /// Blocks of 64 entries, 1 to 65,535.
        blocks: u32,
    },
}

impl Operation {
    /// Bytes that [`Controller::data_in`] will deliver.
    #[must_use]
    pub fn bytes_in(self) -> u32 {
        match self {
            Operation::Read { sectors, .. } => sectors * SECTOR,
            Operation::Write { .. }
            | Operation::Verify { .. }
            | Operation::Flush
            | Operation::Trim { .. } => 0,
        }
    }

    /// Bytes that [`Controller::data_out`] will fetch.
    #[must_use]
    pub fn bytes_out(self) -> u32 {
        match self {
            Operation::Write { sectors, .. } => sectors * SECTOR,
            Operation::Trim { blocks } => blocks * SECTOR,
            Operation::Read { .. } | Operation::Verify { .. } | Operation::Flush => 0,
        }
    }
}

/// What a controller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Carry this out, then call [`Controller::complete`] once.
    Start(Command),
    /// A reset ended this command: call nothing for it any more, and send nothing more of its payload.
    Cancel(Tag),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was done.
    Done,
    /// The disk ended it with an error.
    Failed {
        /// ATA Error register, as the target reported it.
        error: u8,
        /// Sectors done before the one that failed.
        done: u32,
    },
    /// The command's payload lies outside guest memory.
    DmaFault,
}

/// A disk controller as its initiator sees it: `Ide`, later `Ahci`.
///
/// Order: after every register write, call [`poll_request`](Self::poll_request) until it gives `None`; after every other call compare
/// [`irq`](Self::irq) with the last level.
pub trait Controller {
    /// The next thing to do, oldest first: a cancellation comes before the command that follows it.
    fn poll_request(&mut self) -> Option<Request>;

    /// Takes `data` that was read from the disk, as the bytes from `at` on of the payload of command `tag`.
    ///
    /// A fault in guest memory is kept and shown in the registers when the command completes.
    fn data_in(&mut self, mem: &impl DmaMemory, tag: Tag, at: u32, data: &[u8]);

    /// Fills `out` with the bytes from `at` on of the payload of command `tag`. May be called more than once for the same bytes.
    ///
    /// # Errors
    /// [`DmaFault`] when the guest's buffer is not guest memory, or the tag is stale; end the command with [`Outcome::DmaFault`].
    fn data_out(&mut self, mem: &impl DmaMemory, tag: Tag, at: u32, out: &mut [u8]) -> Result<(), DmaFault>;

    /// Command `tag` has ended: sets status and interrupt.
    fn complete(&mut self, mem: &impl DmaMemory, tag: Tag, outcome: Outcome);

    /// The interrupt lines now, a bit each: for IDE bit 0 is the primary channel's INTRQ, bit 1 the secondary's.
    fn irq(&self) -> u32;
}

/// The controller of a machine without one: lets an initiator find its target before there is a guest.
impl Controller for () {
    fn poll_request(&mut self) -> Option<Request> {
        None
    }

    fn data_in(&mut self, _: &impl DmaMemory, _: Tag, _: u32, _: &[u8]) {}

    fn data_out(&mut self, _: &impl DmaMemory, _: Tag, _: u32, _: &mut [u8]) -> Result<(), DmaFault> {
        Err(DmaFault { gpa: 0 })
    }

    fn complete(&mut self, _: &impl DmaMemory, _: Tag, _: Outcome) {}

    fn irq(&self) -> u32 {
        0
    }
}

/// What a target says of its disk, as the drive behind a controller needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Size in sectors of 512 bytes.
    pub sectors: u64,
    /// Serial number, at most 20 printable ASCII characters. Windows keys the installed disk on it: it must not change.
    pub serial: alloc::string::String,
    /// Model, at most 40 printable ASCII characters.
    pub model: alloc::string::String,
    /// Whether [`Operation::Trim`] is understood.
    pub trim: bool,
}
