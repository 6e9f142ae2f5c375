//! The target's core with disks in memory, and an engine whose jobs end in random order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
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
    /// Changes under way: which bytes, and when.
    changing: Vec<(Range<u64>, Instant)>,
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
    hangs_until: Instant,
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
            port: Port { mac: MAC, mtu, buffer_count: 32 },
            media,
            work: BTreeMap::new(),
            numbered: 0,
            backlog: Vec::new(),
            hangs_until: Instant::ZERO,
            down_until: Instant::ZERO,
            rng: Rng::new(seed),
            buffer: vec![0; mtu + 14],
        }
    }

    /// Does nothing until then; what comes waits.
    pub(crate) fn hang(&mut self, until: Instant) {
        self.hangs_until = until;
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
            return;
        }
        if now < self.hangs_until {
            self.backlog.push(frame.to_vec());
            return;
        }
        let Server { target, port, media, work, numbered, rng, .. } = self;
        target.handle_frame(port, frame, |_, step| {
            let (due, item) = match step {
                Step::Answer(answer) => (now, Work::Send(answer)),
                Step::Job(job) => {
                    let disk = job.address().slot;
                    plan(job, &mut media[usize::from(disk)], now + duration(rng), now)
                }
            };
            work.insert((due, *numbered), item);
            *numbered += 1;
        });
    }

    /// When to call [`poll`](Self::poll).
    pub(crate) fn next(&self) -> Option<Instant> {
        let due = self.work.first_key_value().map(|(&(due, _), _)| due);
        let due = if self.backlog.is_empty() { due } else { Some(self.hangs_until) };
        due.map(|due| due.max(self.hangs_until))
    }

    /// Does what is due and hands the answers on.
    pub(crate) fn poll(&mut self, now: Instant, mut send: impl FnMut(&[u8])) {
        if now < self.hangs_until {
            return;
        }
        for frame in std::mem::take(&mut self.backlog) {
            self.receive(now, &frame);
        }
        while let Some(entry) = self.work.first_entry().filter(|entry| entry.key().0 <= now) {
            let answer = match entry.remove() {
                Work::Send(answer) => answer,
                Work::Job(job) => {
                    let medium = &mut self.media[usize::from(job.address().slot)];
                    let result = carry_out(&job, medium, &mut self.buffer);
                    job.finish(result)
                }
                Work::Change { disk, data, durable, answer } => {
                    let medium = &mut self.media[usize::from(disk)];
                    medium.changing.retain(|&(_, when)| when > now);
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

/// Turns a job into work that is done at `due`. Changes of the same bytes keep their order: a frame that the network has doubled must not
/// be carried out after what its client sends when the first copy is answered.
fn plan(job: Job<'_>, medium: &mut Medium, due: Instant, now: Instant) -> (Instant, Work) {
    let job = match job.detach() {
        Ok(job) => return (due, Work::Job(job)),
        Err(job) => job,
    };
    let disk = job.address().slot;
    let mut result = Ok(());
    let (data, durable): (Vec<_>, _) = match job.operation {
        Operation::Write { offset, data, durable } => {
            result = medium.test(offset, data.len());
            let good = match result {
                Err(Fault::Medium { done }) => usize::from(done) * SECTOR,
                _ => data.len(),
            };
            (vec![(offset, data[..good].to_vec())], durable)
        }
        Operation::Trim(ranges) => {
            (ranges.iter().map(|range| (range.offset, vec![0; range.length as usize])).collect(), false)
        }
        Operation::Read { .. } | Operation::Verify { .. } | Operation::Flush => unreachable!("were detached"),
    };
    let mut due = due;
    for (offset, data) in &data {
        let range = *offset..offset + data.len() as u64;
        let before =
            medium.changing.iter().filter(|(other, _)| other.start < range.end && range.start < other.end);
        due = before.map(|&(_, when)| when).max().unwrap_or(now).max(due);
    }
    let ranges = data.iter().map(|(offset, data)| (*offset..offset + data.len() as u64, due));
    medium.changing.extend(ranges);
    (due, Work::Change { disk, data, durable, answer: job.finish(result) })
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
