//! The load generator: reads with a fixed window over a packet ring. It checks each answer's tag, status and length, and gives a frame
//! that stays unanswered up for lost, which is counted; nothing cleverer, so that it costs little.
//!
//! It is a process that lives as long as the server it reads from. Each line of its standard input asks for one [`Slice`]; each line
//! of its standard output is that slice's [`Outcome`].

mod generator;
mod streams;

pub(crate) use generator::{Generator, Shape};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use kagero_aoe::link::Link;
use kagero_aoe::wire::{Ata, Command, Frame, Header, SECTOR, encode, sectors_for_mtu};
use kagero_link::{PacketLink, packet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use crate::sample::percentile;
use streams::Streams;
pub(crate) use streams::address;

/// READ SECTORS EXT.
const READ_EXT: u8 = 0x24;
/// ERR, DRQ, DF and BSY (the Linux driver fails a command on these).
const FAILED: u8 = 0xA9;
/// Sectors of a random read: 4 KiB.
pub(crate) const RANDOM_SECTORS: u64 = 8;
/// A frame without an answer for so long is lost.
const LOST: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Pattern {
    /// As many sectors as a frame takes, one after the other
    Sequential,
    /// 4 KiB each, anywhere
    Random,
}

impl Pattern {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pattern::Sequential => "sequential",
            Pattern::Random => "random",
        }
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    interface: String,
    /// Disks, at [`address`]
    #[arg(long, default_value_t = 1)]
    exports: usize,
    /// The size of each
    #[arg(long)]
    sectors: u64,
    /// Play so many clients, each with an address of its own
    #[arg(long, default_value_t = 1)]
    stations: usize,
    /// Every second client first writes so many frames, spread over the disk
    #[arg(long, default_value_t = 0)]
    writes: u64,
}

/// What one measurement is of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slice {
    pub(crate) pattern: Pattern,
    /// Frames outstanding, over all disks and clients.
    pub(crate) window: usize,
    pub(crate) milliseconds: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
    pub(crate) frames: u64,
    pub(crate) operations: u64,
    /// Of operations, in nanoseconds.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) lost: u64,
}

/// A frame on its way.
#[derive(Clone, Copy)]
struct Flight {
    tag: u32,
    operation: usize,
    sectors: u8,
    sent: Instant,
}

/// A read that takes one or more frames.
#[derive(Clone, Copy)]
struct Operation {
    stream: usize,
    next: u64,
    unsent: u64,
    unanswered: u64,
    started: Instant,
}

struct Load {
    link: PacketLink,
    streams: Streams,
    per_frame: u64,
    tag: u32,
    latencies: Vec<u64>,
}

/// One slice under way.
struct Reading<'a> {
    load: &'a mut Load,
    pattern: Pattern,
    flights: Vec<Option<Flight>>,
    vacant: Vec<usize>,
    operations: Vec<Operation>,
    /// The operation that has frames to send yet.
    current: Option<usize>,
    free: Vec<usize>,
    outcome: Outcome,
}

/// Reads slices until standard input ends.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.exports > 0 && options.exports <= 255, "there are 1 to 255 disks");
    ensure!(options.stations > 0 && options.stations <= 255, "there are 1 to 255 clients");
    let promiscuous = options.stations > 1;
    let link =
        PacketLink::open(&options.interface, packet::Options { promiscuous, ..packet::Options::default() })?;
    let per_frame = sectors_for_mtu(link.mtu()) as u64;
    ensure!(options.sectors > RANDOM_SECTORS.max(per_frame), "the disks are too small");
    let streams = Streams::new(link.mac(), options.exports, options.stations, options.sectors);
    let mut load = Load { link, streams, per_frame, tag: 0, latencies: Vec::with_capacity(1 << 18) };
    load.find_disks()?;
    load.write_some(options.writes)?;
    for line in std::io::stdin().lock().lines() {
        let outcome = load.read(serde_json::from_str(&line?)?)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
        out.flush()?;
    }
    Ok(())
}

impl Load {
    fn read(&mut self, slice: Slice) -> Result<Outcome> {
        ensure!(slice.window > 0 && slice.window <= 256, "a window is of 1 to 256 frames");
        self.latencies.clear();
        let mut reading = Reading {
            pattern: slice.pattern,
            flights: vec![None; slice.window],
            vacant: (0..slice.window).collect(),
            operations: Vec::new(),
            current: None,
            free: Vec::new(),
            outcome: Outcome::default(),
            load: self,
        };
        reading.run(Duration::from_millis(slice.milliseconds))?;
        let mut outcome = reading.outcome;
        outcome.p50 = percentile(&mut self.latencies, 0.5);
        outcome.p99 = percentile(&mut self.latencies, 0.99);
        Ok(outcome)
    }

    /// A tag whose low byte is the slot; the rest tells a late answer from the present one. Bit 31 stays clear.
    fn next_tag(&mut self, slot: usize) -> u32 {
        self.tag = (self.tag + 0x100) & 0x7FFF_FF00;
        self.tag | slot as u32
    }
}

impl Reading<'_> {
    /// Sends until the time is over, then waits for what is outstanding, so that the server is idle when its rival's turn comes.
    fn run(&mut self, time: Duration) -> Result<()> {
        let start = Instant::now();
        let mut looked = start;
        let mut last_answer = start;
        loop {
            let now = Instant::now();
            if now.duration_since(looked) > LOST / 4 {
                looked = now;
                self.give_up(now);
            }
            if now.duration_since(start) < time {
                self.load.link.hold();
                while let Some(slot) = self.vacant.pop() {
                    self.send(slot, now)?;
                }
                self.load.link.flush();
            } else if self.vacant.len() == self.flights.len() {
                break;
            }
            if self.take()? {
                last_answer = Instant::now();
            } else {
                wait(&self.load.link, LOST / 4)?;
            }
        }
        self.outcome.seconds = last_answer.duration_since(start).max(time).as_secs_f64();
        Ok(())
    }

    /// Starts the next operation: a free number for it.
    fn start(&mut self, now: Instant) -> usize {
        let sectors = match self.pattern {
            Pattern::Sequential => self.load.per_frame,
            Pattern::Random => RANDOM_SECTORS,
        };
        let (stream, next) = self.load.streams.next(self.pattern, sectors);
        let operation = Operation { stream, next, unsent: sectors, unanswered: sectors, started: now };
        match self.free.pop() {
            Some(index) => {
                self.operations[index] = operation;
                index
            }
            None => {
                self.operations.push(operation);
                self.operations.len() - 1
            }
        }
    }

    fn send(&mut self, slot: usize, now: Instant) -> Result<()> {
        let index = match self.current.take() {
            Some(index) => index,
            None => self.start(now),
        };
        let operation = &mut self.operations[index];
        let sectors = operation.unsent.min(self.load.per_frame);
        let lba = operation.next;
        operation.next += sectors;
        operation.unsent -= sectors;
        if operation.unsent > 0 {
            self.current = Some(index);
        }
        let stream = operation.stream;
        let tag = self.load.next_tag(slot);
        let header = self.load.streams.request(stream, Command::Ata, tag);
        self.flights[slot] = Some(Flight { tag, operation: index, sectors: sectors as u8, sent: now });
        self.load.transmit(&header, &read(lba, sectors as u8), &[])
    }

    /// Takes every answer that has arrived; false when there was none.
    fn take(&mut self) -> Result<bool> {
        let mut some = false;
        let mut now = None;
        loop {
            let mut answer = None;
            let flights = &self.flights;
            if !self.load.link.receive(|frame| answer = check(frame, flights)) {
                return Ok(some);
            }
            let Some(slot) = answer else { continue };
            let Some(flight) = slot.and_then(|slot| self.flights[slot].take()) else {
                bail!("a read failed or was answered with too little data");
            };
            some = true;
            self.vacant.push(flight.tag as usize & 0xFF);
            self.outcome.frames += 1;
            self.outcome.bytes += u64::from(flight.sectors) * SECTOR as u64;
            let operation = &mut self.operations[flight.operation];
            operation.unanswered -= u64::from(flight.sectors);
            if operation.unanswered == 0 {
                let now = *now.get_or_insert_with(Instant::now);
                self.load.latencies.push(now.duration_since(operation.started).as_nanos() as u64);
                self.outcome.operations += 1;
                self.free.push(flight.operation);
            }
        }
    }

    fn give_up(&mut self, now: Instant) {
        for (slot, flight) in self.flights.iter_mut().enumerate() {
            // Its operation never ends, and its number is never used again.
            if flight.take_if(|flight| now.duration_since(flight.sent) > LOST).is_some() {
                self.outcome.lost += 1;
                self.vacant.push(slot);
            }
        }
    }
}

fn read(lba: u64, count: u8) -> Ata {
    Ata { extended: true, count, command: READ_EXT, lba: Ata::registers(lba), ..Ata::default() }
}

impl Load {
    fn transmit(&mut self, header: &Header, ata: &Ata, data: &[u8]) -> Result<()> {
        let fill = |out: &mut [u8]| {
            let at = ata.encode(out)?;
            out.get_mut(at..at + data.len())?.copy_from_slice(data);
            Some(at + data.len())
        };
        ensure!(
            self.link.transmit(|out| encode(out, header, fill)),
            "the load generator's own interface takes no more frames"
        );
        Ok(())
    }
}

/// `None` for a frame that answers nothing outstanding; `Some(None)` for an answer that is wrong; else the slot.
fn check(frame: &[u8], flights: &[Option<Flight>]) -> Option<Option<usize>> {
    let Frame { header, argument } = Frame::parse(frame).ok().filter(|frame| frame.header.response)?;
    let slot = header.tag as usize & 0xFF;
    let flight = flights.get(slot)?.as_ref().filter(|flight| flight.tag == header.tag)?;
    let good = header.error.is_none()
        && header.command == Command::Ata
        && Ata::parse(argument).is_ok_and(|(ata, data)| {
            ata.command & FAILED == 0 && Ata::data(data, flight.sectors.into()).is_ok()
        });
    Some(good.then_some(slot))
}

/// Waits until the link has a frame, but not longer than this.
pub(crate) fn wait(link: &PacketLink, at_most: Duration) -> Result<()> {
    let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: at_most.subsec_nanos().into() };
    match poll(&mut [PollFd::new(link, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("waiting for a frame"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kagero_aoe::wire::MacAddress;

    #[test]
    fn answers_are_checked() {
        let flight = Flight { tag: 0x100, operation: 0, sectors: 2, sent: Instant::now() };
        let flights = [Some(flight), None];
        let answer = |tag, status, data: usize| {
            let (us, it) = (MacAddress([2; 6]), MacAddress([4; 6]));
            let header = Header::request(us, it, address(0), Command::Ata, tag).answer(it, address(0));
            let ata = Ata { command: status, ..Ata::default() };
            let mut frame = [0; 2048];
            let length = encode(&mut frame, &header, |out| ata.encode(out).map(|n| n + data)).unwrap();
            check(&frame[..length], &flights)
        };
        assert_eq!(answer(0x100, 0x40, 1024), Some(Some(0)));
        assert_eq!(answer(0x100, 0x40, 1023), Some(None), "too short");
        assert_eq!(answer(0x100, 0x41, 1024), Some(None), "the error bit is set");
        assert_eq!(answer(0x200, 0x40, 1024), None, "of an earlier request");
        assert_eq!(answer(0x101, 0x40, 1024), None, "of nothing outstanding");
        assert_eq!(answer(0x1FF, 0x40, 1024), None, "beyond the window");
    }
}
