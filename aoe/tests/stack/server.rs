//! The target's core with disks in memory, and an engine whose jobs end in random order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kagero_aoe::Instant;
use kagero_aoe::target::{Answer, Export, Fault, Job, Operation, Port, Step, Target};
use kagero_aoe::wire::{Address, MacAddress};
use kagero_devices::storage::Disk;
use kagero_devices::toy::Rng;

use crate::contents::SECTOR;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

/// Where disk number `disk` is.
pub(crate) fn address(disk: u8) -> Address {
    Address { shelf: 7, slot: disk }
}

/// A disk's contents.
pub(crate) struct Medium {
    pub(crate) contents: Vec<u8>,
    /// Can be neither read nor written.
    pub(crate) bad: Option<u64>,
    /// Sectors that differ from what a loss of power would leave.
    pub(crate) unsynced: BTreeSet<u64>,
    /// Changes under way: the request's tag, and when.
    changing: Vec<(u32, Instant)>,
}

impl Medium {
    pub(crate) fn new(contents: Vec<u8>, bad: Option<u64>) -> Self {
        Medium { contents, bad, unsynced: BTreeSet::new(), changing: Vec::new() }
    }

    /// What comes of a job on these bytes.
    fn test(&self, offset: u64, length: usize) -> Result<(), Fault> {
        let done = self.bad.and_then(|bad| bad.checked_sub(offset / SECTOR as u64));
        match done {
            Some(done) if done < (length / SECTOR) as u64 => Err(Fault::Medium { done: done as u8 }),
            _ => Ok(()),
        }
    }

    /// When the change of the request with this tag is made. A frame that the network has doubled is carried out with its double: alone
    /// it could come after what the client sends once the double is answered.
    fn when(&mut self, tag: u32, due: Instant) -> Instant {
        if let Some(&(_, due)) = self.changing.iter().find(|&&(other, _)| other == tag) {
            return due;
        }
        self.changing.push((tag, due));
        due
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, new) in (offset as usize..).step_by(SECTOR).zip(data.chunks(SECTOR)) {
            let old = &mut self.contents[at..at + SECTOR];
            if old != new {
                old.copy_from_slice(new);
                self.unsynced.insert((at / SECTOR) as u64);
            }
        }
    }
}

/// Something to do later.
enum Work {
    Send(Answer),
    /// Reads, verifies and flushes.
    Job(Job<'static>),
    /// What a write or a trim brings, with the byte where it goes.
    Change {
        disk: u8,
        data: Vec<(u64, Vec<u8>)>,
        durable: bool,
        answer: Answer,
    },
}

pub(crate) struct Server {
    target: Target,
    port: Port,
    pub(crate) media: Vec<Medium>,
    work: BTreeMap<(Instant, u64), Work>,
    numbered: u64,
    /// Frames that came while it hung.
    backlog: Vec<Vec<u8>>,
    hangs_until: Option<Instant>,
    down_until: Instant,
    rng: Rng,
    buffer: Vec<u8>,
}

impl Server {
    pub(crate) fn new(media: Vec<Medium>, mtu: usize, seed: u64) -> Self {
        let mut target = Target::new();
        for (disk, medium) in (0..).zip(&media) {
            let sectors = (medium.contents.len() / SECTOR) as u64;
            let disk_facts =
                Disk { sectors, serial: format!("serial-{disk}"), model: "Kagero".into(), trim: true };
            target.add(Export::new(address(disk), disk_facts)).expect("an address of its own");
        }
        Server {
            target,
            port: Port { number: 0, mac: MAC, mtu, buffer_count: 32 },
            media,
            work: BTreeMap::new(),
            numbered: 0,
            backlog: Vec::new(),
            hangs_until: None,
            down_until: Instant::ZERO,
            rng: Rng::new(seed),
            buffer: vec![0; mtu + 14],
        }
    }

    /// Does nothing until then; what comes waits.
    pub(crate) fn hang(&mut self, until: Instant) {
        self.hangs_until = Some(until);
    }

    /// The process is killed, and started anew then: what was answered is on the disks, what was not may be.
    pub(crate) fn crash(&mut self, until: Instant) {
        self.down_until = until;
        self.work.clear();
        self.backlog.clear();
        self.media.iter_mut().for_each(|medium| medium.changing.clear());
    }

    /// Takes a frame from the network.
    pub(crate) fn receive(&mut self, now: Instant, frame: &[u8]) {
        if now < self.down_until {
        } else if self.hangs_until.is_some() {
            self.backlog.push(frame.to_vec());
        } else {
            let due = now + duration(&mut self.rng);
            self.take(now, due, frame);
        }
    }

    fn take(&mut self, now: Instant, due: Instant, frame: &[u8]) {
        let Server { target, port, media, work, numbered, .. } = self;
        let tag = frame.get(20..24).and_then(|tag| tag.try_into().ok()).map_or(0, u32::from_be_bytes);
        target.handle_frame(port, frame, |_, step| {
            let (due, item) = match step {
                Step::Answer(answer) => (now, Work::Send(answer)),
                Step::Job(job) => {
                    let medium = &mut media[usize::from(job.address().slot)];
                    match job.detach() {
                        Ok(job) => (due, Work::Job(job)),
                        Err(job) => (medium.when(tag, due), change(job, medium)),
                    }
                }
            };
            work.insert((due, *numbered), item);
            *numbered += 1;
        });
    }

    /// When to call [`poll`](Self::poll).
    pub(crate) fn next(&self) -> Option<Instant> {
        self.hangs_until.or(self.work.first_key_value().map(|(&(due, _), _)| due))
    }

    /// Does what is due and hands the answers on.
    pub(crate) fn poll(&mut self, now: Instant, mut send: impl FnMut(&[u8])) {
        if let Some(until) = self.hangs_until {
            if now < until {
                return;
            }
            // It may have been away for longer than the life of a frame: the client can only trust that what came first is done first.
            self.hangs_until = None;
            self.carry_out(Instant::from_nanos(u64::MAX), &mut send);
            for frame in std::mem::take(&mut self.backlog) {
                self.take(now, now, &frame);
            }
        }
        self.carry_out(now, send);
    }

    /// Does what is due until then.
    fn carry_out(&mut self, until: Instant, mut send: impl FnMut(&[u8])) {
        while let Some(entry) = self.work.first_entry().filter(|entry| entry.key().0 <= until) {
            let (due, _) = *entry.key();
            let answer = match entry.remove() {
                Work::Send(answer) => answer,
                Work::Job(job) => {
                    let medium = &mut self.media[usize::from(job.address().slot)];
                    let result = carry_out(&job, medium, &mut self.buffer);
                    job.finish(result)
                }
                Work::Change { disk, data, durable, answer } => {
                    let medium = &mut self.media[usize::from(disk)];
                    medium.changing.retain(|&(_, when)| when > due);
                    for (offset, data) in data {
                        medium.write(offset, &data);
                    }
                    if durable {
                        medium.unsynced.clear();
                    }
                    answer
                }
            };
            let length =
                self.target.encode(&self.port, &answer, &mut self.buffer).expect("room for any answer");
            send(&self.buffer[..length]);
        }
    }
}

/// How long a job takes: mostly a moment, now and then long.
fn duration(rng: &mut Rng) -> Duration {
    let most = match rng.below(500) {
        0 => 100_000,
        1..=20 => 5_000,
        _ => 300,
    };
    Duration::from_nanos(rng.below(most * 1_000))
}

/// What a write or a trim comes to.
fn change(job: Job<'_>, medium: &Medium) -> Work {
    let disk = job.address().slot;
    let (data, durable, result) = match job.operation {
        Operation::Write { offset, data, durable } => {
            let result = medium.test(offset, data.len());
            let good = match result {
                Err(Fault::Medium { done }) => usize::from(done) * SECTOR,
                _ => data.len(),
            };
            (vec![(offset, data[..good].to_vec())], durable, result)
        }
        Operation::Trim(ranges) => {
            let zeros = ranges.iter().map(|range| (range.offset, vec![0; range.length as usize]));
            (zeros.collect(), false, Ok(()))
        }
        Operation::Read { .. } | Operation::Verify { .. } | Operation::Flush => unreachable!("are detached"),
    };
    Work::Change { disk, data, durable, answer: job.finish(result) }
}

fn carry_out(job: &Job<'_>, medium: &mut Medium, frame: &mut [u8]) -> Result<(), Fault> {
    match job.operation {
        Operation::Read { offset, length } => {
            let data = job.data(frame).expect("room for a read");
            data.copy_from_slice(&medium.contents[offset as usize..][..length]);
            medium.test(offset, length)
        }
        Operation::Verify { offset, length } => medium.test(offset, length),
        Operation::Flush => {
            medium.unsynced.clear();
            Ok(())
        }
        Operation::Write { .. } | Operation::Trim(_) => unreachable!("are planned otherwise"),
    }
}
