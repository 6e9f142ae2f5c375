//! Disks in memory, on the other side of a controller.

use alloc::vec;
use alloc::vec::Vec;

use super::Rng;
use crate::memory::DmaMemory;
use crate::storage::{Command, Controller, Operation, Outcome, Request, SECTOR, Tag};

/// How payload moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A command's payload in one piece.
    Whole,
    /// Pieces of at most so many bytes, in random order, some of them twice.
    Pieces(u32),
}

/// Disks that carry out what a controller asks for, a step at a time.
#[derive(Clone, Debug)]
pub struct Disks {
    /// The contents of each disk; an empty one is not there.
    pub contents: Vec<Vec<u8>>,
    /// Reads and writes that touch this sector of disk 0 fail there, with this ATA error.
    pub bad: Option<(u64, u8)>,
    /// Everything that was asked for, in order.
    pub log: Vec<Request>,
    /// How payload moves.
    pub pace: Pace,
    under_way: Vec<Work>,
    rng: Rng,
}

#[derive(Clone, Debug)]
struct Work {
    command: Command,
    /// Pieces of payload that are still to move, by offset and length.
    pieces: Vec<(u32, u32)>,
    /// Sectors before a bad one, with the error.
    failed: Option<(u32, u8)>,
}

impl Disks {
    /// Disks with these contents.
    #[must_use]
    pub fn new(contents: Vec<Vec<u8>>, pace: Pace, seed: u64) -> Self {
        Disks { contents, bad: None, log: Vec::new(), pace, under_way: Vec::new(), rng: Rng::new(seed) }
    }

    /// The command under way, by tag.
    pub fn tags(&self) -> impl Iterator<Item = Tag> {
        self.under_way.iter().map(|work| work.command.tag)
    }

    /// Takes what the controller asks for, without doing any of it.
    ///
    /// # Panics
    /// When the controller asks for what no disk can do: that is an error of the controller.
    pub fn poll(&mut self, controller: &mut impl Controller) {
        while let Some(request) = controller.poll_request() {
            self.log.push(request);
            match request {
                Request::Cancel(tag) => {
                    let before = self.under_way.len();
                    self.under_way.retain(|work| work.command.tag != tag);
                    assert_eq!(self.under_way.len() + 1, before, "cancelled what was not under way");
                }
                Request::Start(command) => {
                    assert!(self.tags().all(|tag| tag != command.tag), "a tag twice");
                    let work = self.plan(command);
                    self.under_way.push(work);
                }
            }
        }
    }

    /// Moves a piece of payload of some command, or ends it; false when there is nothing to do.
    pub fn step(&mut self, controller: &mut impl Controller, mem: &impl DmaMemory) -> bool {
        self.poll(controller);
        if self.under_way.is_empty() {
            return false;
        }
        let n = self.rng.below(self.under_way.len() as u64) as usize;
        let work = &mut self.under_way[n];
        let command = work.command;
        match work.pieces.pop() {
            Some((at, len)) => {
                if !self.transfer(controller, mem, command, at, len) {
                    self.under_way.swap_remove(n);
                    controller.complete(mem, command.tag, Outcome::DmaFault);
                }
            }
            None => {
                let failed = work.failed;
                self.under_way.swap_remove(n);
                let outcome = failed.map_or(Outcome::Done, |(done, error)| Outcome::Failed { error, done });
                controller.complete(mem, command.tag, outcome);
            }
        }
        true
    }

    fn transfer(
        &mut self,
        controller: &mut impl Controller,
        mem: &impl DmaMemory,
        command: Command,
        at: u32,
        len: u32,
    ) -> bool {
        let (from, len) = (at as usize, len as usize);
        let contents = &mut self.contents[usize::from(command.disk)];
        match command.operation {
            Operation::Read { lba, .. } => {
                let start = lba as usize * SECTOR as usize + from;
                controller.data_in(mem, command.tag, at, &contents[start..start + len]);
                true
            }
            Operation::Write { lba, .. } => {
                let start = lba as usize * SECTOR as usize + from;
                controller.data_out(mem, command.tag, at, &mut contents[start..start + len]).is_ok()
            }
            Operation::Trim { .. } => {
                let mut entries = vec![0; len];
                let good = controller.data_out(mem, command.tag, at, &mut entries).is_ok();
                for entry in entries.chunks_exact(8) {
                    trim(contents, entry);
                }
                good
            }
            Operation::Verify { .. } | Operation::Flush => true,
        }
    }

    fn plan(&mut self, command: Command) -> Work {
        let operation = command.operation;
        let mut bytes = operation.bytes_in() + operation.bytes_out();
        let mut failed = None;
        if let Operation::Read { lba, sectors }
        | Operation::Write { lba, sectors, .. }
        | Operation::Verify { lba, sectors } = operation
        {
            assert!((1..=65_536).contains(&sectors), "{operation:?}");
            let end = (lba + u64::from(sectors)) * u64::from(SECTOR);
            let size = self.contents[usize::from(command.disk)].len() as u64;
            assert!(end <= size, "{operation:?} past the end");
            if let Some((bad, error)) = self.bad
                && command.disk == 0
                && (lba..lba + u64::from(sectors)).contains(&bad)
            {
                let done = (bad - lba) as u32;
                bytes = bytes.min(done * SECTOR);
                failed = Some((done, error));
            }
        }
        Work { command, pieces: self.pieces(bytes), failed }
    }

    fn pieces(&mut self, bytes: u32) -> Vec<(u32, u32)> {
        let Pace::Pieces(most) = self.pace else {
            return if bytes == 0 { Vec::new() } else { vec![(0, bytes)] };
        };
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < bytes {
            // Multiples of 8, so that no TRIM entry is torn.
            let len = (8 * (1 + self.rng.below(u64::from(most / 8).max(1)) as u32)).min(bytes - at);
            pieces.push((at, len));
            if self.rng.below(16) == 0 {
                pieces.push((at, len));
            }
            at += len;
        }
        for i in (1..pieces.len()).rev() {
            pieces.swap(i, self.rng.below(i as u64 + 1) as usize);
        }
        pieces
    }
}

/// Zeros what a range entry of DATA SET MANAGEMENT names.
fn trim(contents: &mut [u8], entry: &[u8]) {
    let entry = entry.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let start = ((entry & 0xffff_ffff_ffff) as usize).saturating_mul(SECTOR as usize);
    let len = (entry >> 48) as usize * SECTOR as usize;
    if let Some(range) = contents.get_mut(start..).and_then(|rest| rest.get_mut(..len)) {
        range.fill(0);
    }
}
