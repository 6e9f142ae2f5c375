//! The load generator: reads with a fixed window over a packet ring. It checks each answer's tag, status and length, and gives a frame
//! that stays unanswered up for lost, which is counted; nothing cleverer, so that it costs little.

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use kagero_aoe::link::Link;
use kagero_aoe::wire::{
    Address, Ata, Command, Config, Frame, Header, MacAddress, SECTOR, encode, sectors_for_mtu,
};
use kagero_link::{PacketLink, packet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

use crate::sample::percentile;

/// READ SECTORS EXT.
const READ_EXT: u8 = 0x24;
/// ERR, DRQ, DF and BSY (the Linux driver fails a command on these).
const FAILED: u8 = 0xA9;
/// Sectors of a random read: 4 KiB.
const RANDOM_SECTORS: u64 = 8;
/// A frame without an answer for so long is lost.
const LOST: Duration = Duration::from_millis(200);
/// How long a server has to answer for the first time.
const FIRST_ANSWER: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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
    /// Frames outstanding, over all disks
    #[arg(long)]
    window: usize,
    #[arg(long)]
    pattern: Pattern,
    #[arg(long)]
    milliseconds: u64,
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

/// The address of the disk of this number.
pub(crate) fn address(index: usize) -> Address {
    Address { shelf: 7, slot: index as u8 }
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
    export: usize,
    next: u64,
    unsent: u64,
    unanswered: u64,
    started: Instant,
}

struct Load {
    options: Options,
    link: PacketLink,
    /// Where each disk is, and how far the sequential read of it has come.
    disks: Vec<(MacAddress, u64)>,
    per_frame: u64,
    flights: Vec<Option<Flight>>,
    operations: Vec<Operation>,
    current: Option<usize>,
    free: Vec<usize>,
    turn: usize,
    random: u64,
    tag: u32,
    outcome: Outcome,
    latencies: Vec<u64>,
}

/// Reads for as long as was asked.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    ensure!(options.window > 0 && options.window <= 256, "a window is of 1 to 256 frames");
    ensure!(options.exports > 0 && options.exports <= 255, "there are 1 to 255 disks");
    let link = PacketLink::open(&options.interface, packet::Options::default())?;
    let per_frame = sectors_for_mtu(link.mtu()) as u64;
    ensure!(options.sectors > RANDOM_SECTORS.max(per_frame), "the disks are too small");
    let mut load = Load {
        link,
        disks: Vec::new(),
        per_frame,
        flights: vec![None; options.window],
        operations: Vec::new(),
        current: None,
        free: Vec::new(),
        turn: 0,
        random: 0x9E37_79B9_7F4A_7C15,
        tag: 0,
        outcome: Outcome::default(),
        latencies: Vec::with_capacity(1 << 20),
        options: options.clone(),
    };
    load.find_disks()?;
    load.read()?;
    Ok(load.outcome)
}

impl Load {
    fn find_disks(&mut self) -> Result<()> {
        let source = MacAddress(self.link.mac());
        let deadline = Instant::now() + FIRST_ANSWER;
        for index in 0..self.options.exports {
            let wanted = address(index);
            let mut found = None;
            while found.is_none() {
                ensure!(Instant::now() < deadline, "no answer from {wanted}");
                let header = Header::request(source, MacAddress::BROADCAST, wanted, Command::Config, 1);
                self.link.transmit(|out| encode(out, &header, |out| Config::query().encode(out)));
                wait(&self.link, Duration::from_millis(50))?;
                while self.link.receive(|frame| {
                    if let Ok(Frame { header, .. }) = Frame::parse(frame)
                        && header.response
                        && header.address == wanted
                    {
                        found = Some(header.source);
                    }
                }) {}
            }
            self.disks.extend(found.map(|mac| (mac, 0)));
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let start = Instant::now();
        let end = start + Duration::from_millis(self.options.milliseconds);
        let mut looked = start;
        let mut vacant: Vec<usize> = (0..self.flights.len()).collect();
        loop {
            let now = Instant::now();
            if now >= end {
                self.outcome.seconds = now.duration_since(start).as_secs_f64();
                break;
            }
            if now.duration_since(looked) > LOST / 4 {
                looked = now;
                self.give_up(now, &mut vacant);
            }
            self.link.hold();
            while let Some(slot) = vacant.pop() {
                self.send(slot, now)?;
            }
            self.link.flush();
            if !self.take(&mut vacant)? {
                wait(&self.link, LOST / 4)?;
            }
        }
        self.outcome.p50 = percentile(&mut self.latencies, 0.5);
        self.outcome.p99 = percentile(&mut self.latencies, 0.99);
        Ok(())
    }

    /// Starts the next operation: a free number for it.
    fn start(&mut self, now: Instant) -> usize {
        let export = self.turn;
        self.turn = (self.turn + 1) % self.disks.len();
        let sectors = match self.options.pattern {
            Pattern::Sequential => self.per_frame,
            Pattern::Random => RANDOM_SECTORS,
        };
        let next = match self.options.pattern {
            Pattern::Sequential => {
                let position = &mut self.disks[export].1;
                if *position + sectors > self.options.sectors {
                    *position = 0;
                }
                let at = *position;
                *position += sectors;
                at
            }
            Pattern::Random => {
                // xorshift64: any sequence without a pattern will do.
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                self.random % (self.options.sectors / sectors) * sectors
            }
        };
        let operation = Operation { export, next, unsent: sectors, unanswered: sectors, started: now };
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
        let sectors = operation.unsent.min(self.per_frame);
        let lba = operation.next;
        operation.next += sectors;
        operation.unsent -= sectors;
        if operation.unsent > 0 {
            self.current = Some(index);
        }
        // The low byte is the slot; the rest tells a late answer from the present one. Bit 31 stays clear.
        self.tag = (self.tag + 0x100) & 0x7FFF_FF00;
        let tag = self.tag | slot as u32;
        let source = MacAddress(self.link.mac());
        let export = operation.export;
        let header = Header::request(source, self.disks[export].0, address(export), Command::Ata, tag);
        let ata = Ata {
            extended: true,
            count: sectors as u8,
            command: READ_EXT,
            lba: Ata::registers(lba),
            ..Ata::default()
        };
        self.flights[slot] = Some(Flight { tag, operation: index, sectors: sectors as u8, sent: now });
        ensure!(
            self.link.transmit(|out| encode(out, &header, |out| ata.encode(out))),
            "the load generator's own interface takes no more frames"
        );
        Ok(())
    }

    /// Takes every answer that has arrived; false when there was none.
    fn take(&mut self, vacant: &mut Vec<usize>) -> Result<bool> {
        let mut some = false;
        let mut now = None;
        loop {
            let mut answer = None;
            let flights = &self.flights;
            if !self.link.receive(|frame| answer = check(frame, flights)) {
                return Ok(some);
            }
            some = true;
            let Some(slot) = answer else { continue };
            let Some(flight) = slot.and_then(|slot| self.flights[slot].take()) else {
                bail!("a read failed or was answered with too little data");
            };
            vacant.push(flight.tag as usize & 0xFF);
            self.outcome.frames += 1;
            self.outcome.bytes += u64::from(flight.sectors) * SECTOR as u64;
            let operation = &mut self.operations[flight.operation];
            operation.unanswered -= u64::from(flight.sectors);
            if operation.unanswered == 0 {
                let now = *now.get_or_insert_with(Instant::now);
                self.latencies.push(now.duration_since(operation.started).as_nanos() as u64);
                self.outcome.operations += 1;
                self.free.push(flight.operation);
            }
        }
    }

    fn give_up(&mut self, now: Instant, vacant: &mut Vec<usize>) {
        for (slot, flight) in self.flights.iter_mut().enumerate() {
            // Its operation never ends, and its number is never used again.
            if flight.take_if(|flight| now.duration_since(flight.sent) > LOST).is_some() {
                self.outcome.lost += 1;
                vacant.push(slot);
            }
        }
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
